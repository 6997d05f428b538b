//! Signatures of Standard Webhooks (standardwebhooks.com), which users verify with its stock
//! libraries.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};

use crate::api::error::ApiError;

const PREFIX: &str = "whsec_";
const LEAST_BYTES: usize = 24;
const MOST_BYTES: usize = 64;
const GENERATED_BYTES: usize = 32;

/// The header `webhook-signature`. `timestamp`: seconds since the Unix epoch.
pub fn sign(secret: &[u8], id: &str, timestamp: u64, body: &str) -> String {
    let mut engine = HmacEngine::<sha256::Hash>::new(secret);
    engine.input(format!("{id}.{timestamp}.{body}").as_bytes());
    format!(
        "v1,{}",
        STANDARD.encode(Hmac::from_engine(engine).to_byte_array())
    )
}

/// The key that a secret's text stands for; `None` when it is none.
pub fn parse_secret(text: &str) -> Option<Vec<u8>> {
    let key = STANDARD.decode(text.strip_prefix(PREFIX)?).ok()?;
    (LEAST_BYTES..=MOST_BYTES)
        .contains(&key.len())
        .then_some(key)
}

pub fn secret_text(key: &[u8]) -> String {
    format!("{PREFIX}{}", STANDARD.encode(key))
}

pub fn new_secret() -> Result<Vec<u8>, ApiError> {
    let mut key = vec![0; GENERATED_BYTES];
    getrandom::fill(&mut key).map_err(|cause| ApiError::internal(&cause))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vector_of_the_specification_comes_out() {
        let secret = parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = sign(
            &secret,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_are_24_to_64_bytes_behind_their_prefix() {
        for bytes in [24, 32, 64] {
            let key = vec![7; bytes];
            assert_eq!(parse_secret(&secret_text(&key)), Some(key));
        }
        for bytes in [0, 23, 65] {
            assert_eq!(parse_secret(&secret_text(&vec![7; bytes])), None, "{bytes}");
        }
        for bad in [
            "",
            "whsec_",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_not base64 at all",
        ] {
            assert_eq!(parse_secret(bad), None, "{bad}");
        }
        assert_ne!(new_secret().unwrap(), new_secret().unwrap());
    }
}
