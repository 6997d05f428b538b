//! What the fuzz targets do with their bytes, and what must hold for any.
//! `tests/protocol/fuzzed.rs` runs the same in CI: with random bytes, and with those of `corpus`.

mod protocol;
mod rest;
mod rows;
mod session;
mod settings;
mod tokens;
mod zmq;

pub use protocol::{packet, payload, request, socket};
pub use rest::rest;
pub use rows::rows;
pub use session::session;
pub use settings::settings;
pub use tokens::tokens;
pub use zmq::zmq;

type Target = fn(&[u8]);

/// Each under its name.
pub const TARGETS: &[(&str, Target)] = &[
    ("packet", packet),
    ("payload", payload),
    ("request", request),
    ("session", session),
    ("socket", socket),
    ("rest", rest),
    ("settings", settings),
    ("tokens", tokens),
    ("zmq", zmq),
    ("rows", rows),
];

const TOKEN: &str = "sw_46cEBgodVdryuKp3vHiaQ1X7crPV7RxCaKxiuhKDtnFwABjqQ";
/// Nobody knows a key with another letter before or behind it.
const KEY: &str = " KwdMAjGmerYanjeui5SHS7JkmpZvVipYvB2LJGU1ZxJwYvP98617 ";

/// The bytes with a token in place of each 1 and a private key in place of each 2: nobody would
/// guess them.
fn with_secrets(data: &[u8]) -> Vec<u8> {
    let parts = data.iter().map(|byte| match byte {
        1 => TOKEN.as_bytes(),
        2 => KEY.as_bytes(),
        _ => std::slice::from_ref(byte),
    });
    parts.collect::<Vec<_>>().concat()
}

/// A sentence for a person, which shows no part of a secret.
fn check_sentence(sentence: &str) {
    assert!(
        !sentence.is_empty() && sentence.len() < 10_000,
        "{sentence:?}"
    );
    for secret in [TOKEN, KEY] {
        for start in (3..secret.len() - 16).step_by(8) {
            let part = &secret[start..start + 16];
            assert!(!sentence.contains(part), "{sentence:?}");
        }
    }
}
