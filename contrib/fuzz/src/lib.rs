//! What the fuzz targets do with their bytes, and what must hold for any.
//! `tests/protocol/fuzzed.rs` runs the same in CI: with random bytes, and with those of `corpus`.

mod descriptor;
mod protocol;
mod rest;
mod rows;
mod session;
mod settings;
mod tokens;
mod zmq;

use bitcoin::base58;
use bitcoin::hashes::{Hash, sha256};

pub use descriptor::descriptor;
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
    ("descriptor", descriptor),
];

/// Follow from the bytes in such a way that no bytes have their own in them.
struct Secrets {
    token: String,
    key: String,
}

impl Secrets {
    fn of(data: &[u8]) -> Self {
        let hash = sha256::Hash::hash(data).to_byte_array();
        let key = base58::encode_check(&[&[0x80], &hash[..], &[1]].concat());
        Self {
            token: format!("sw_{}", base58::encode_check(&hash)),
            // Nobody knows a key with another letter before or behind it.
            key: format!(" {key} "),
        }
    }

    /// The bytes with the token in place of each 1 and the private key in place of each 2.
    fn put(&self, data: &[u8]) -> Vec<u8> {
        let parts = data.iter().map(|byte| match byte {
            1 => self.token.as_bytes(),
            2 => self.key.as_bytes(),
            _ => std::slice::from_ref(byte),
        });
        parts.collect::<Vec<_>>().concat()
    }

    /// A sentence for a person, which shows no part of a secret.
    fn check(&self, sentence: &str) {
        assert!(
            !sentence.is_empty() && sentence.len() < 10_000,
            "{sentence:?}"
        );
        for secret in [&self.token, &self.key] {
            for start in (3..secret.len() - 16).step_by(8) {
                let part = &secret[start..start + 16];
                assert!(!sentence.contains(part), "{sentence:?}");
            }
        }
    }
}
