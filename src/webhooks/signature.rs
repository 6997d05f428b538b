//! Signatures of Standard Webhooks (standardwebhooks.com), which users verify with its stock
//! libraries.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};

use crate::store::SigningSecret;
use crate::wire::error::ApiError;

const PREFIX: &str = "whsec_";
const LEAST_BYTES: usize = 24;
const MOST_BYTES: usize = 64;
const GENERATED_BYTES: usize = 32;

/// The header `webhook-signature`: one of each secret that has not expired, so that a receiver may
/// know the old or the new one. `timestamp`: seconds since the Unix epoch.
pub fn header(secrets: &[SigningSecret], id: &str, timestamp: u64, body: &str) -> String {
    let signs = |secret: &&SigningSecret| {
        let expires = secret.expires.unwrap_or(u64::MAX);
        expires > timestamp.saturating_mul(1000)
    };
    let signatures = secrets.iter().filter(signs);
    let signatures: Vec<_> = signatures
        .map(|secret| sign(&secret.key, id, timestamp, body))
        .collect();
    signatures.join(" ")
}

fn sign(key: &[u8], id: &str, timestamp: u64, body: &str) -> String {
    let mut engine = HmacEngine::<sha256::Hash>::new(key);
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

pub fn new_secret() -> Result<SigningSecret, ApiError> {
    let mut key = vec![0; GENERATED_BYTES];
    getrandom::fill(&mut key).map_err(|cause| ApiError::internal(&cause))?;
    Ok(SigningSecret { key, expires: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(byte: u8, expires: Option<u64>) -> SigningSecret {
        let key = vec![byte; 24];
        SigningSecret { key, expires }
    }

    #[test]
    fn the_vector_of_the_specification_comes_out() {
        let key = parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = sign(
            &key,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_secret_signs_until_it_expires() {
        let secrets = [secret(1, None), secret(2, Some(5_000))];
        let alone = |n: usize| sign(&secrets[n].key, "id", 4, "{}");
        assert_eq!(
            header(&secrets, "id", 4, "{}"),
            format!("{} {}", alone(0), alone(1))
        );
        assert_eq!(
            header(&secrets, "id", 5, "{}"),
            sign(&secrets[0].key, "id", 5, "{}")
        );
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
        assert!(new_secret().unwrap() != new_secret().unwrap());
    }
}
