//! What a consumer's definition says about its webhook.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use hyper::StatusCode;
use reqwest::Url;
use reqwest::header::HeaderName;
use schemars::{JsonSchema, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::targets::Targets;
use super::{hidden, signature};
use crate::clock::now_ms;
use crate::config;
use crate::store::{SigningSecret, Webhook};
use crate::wire::error::{ApiError, shortened};
use crate::wire::request::types::{FromText, TextOrObject};
use crate::wire::schema::inline_schema;

const MAX_URL_BYTES: usize = 2048;
const MAX_SECRETS: usize = 5;
/// In milliseconds from now: what is later was not meant in seconds.
const LATEST_EXPIRY: u64 = 100 * 366 * 24 * 3_600_000;
const MAX_HEADERS: usize = 16;
/// Of all names and values.
const MAX_HEADER_BYTES: usize = 8192;

/// Headers that are ours, or the connection's (RFC 9110, 7.6.1).
const RESERVED: &[&str] = &[
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];
const RESERVED_PREFIX: &str = "webhook-";

/// The webhook that a definition asks for; what it leaves out stays as it is.
pub struct Target {
    url: Url,
    secrets: Option<Vec<SigningSecret>>,
    headers: Option<Vec<(String, String)>>,
}

impl Target {
    /// The webhook of a consumer that had `known` before, and the secret's text when it is made
    /// now: it is shown once.
    pub fn webhook(self, known: Option<&Webhook>) -> Result<(Webhook, Option<String>), ApiError> {
        self.check(known)?;
        let (secrets, generated) = match (self.secrets, known) {
            (Some(secrets), _) => (secrets, None),
            (None, Some(known)) => (known.secrets.clone(), None),
            (None, None) => {
                let secret = signature::new_secret()?;
                let text = signature::secret_text(&secret.key);
                (vec![secret], Some(text))
            }
        };
        let headers = self
            .headers
            .or_else(|| known.map(|known| known.headers.clone()))
            .unwrap_or_default();
        let webhook = Webhook {
            url: self.url.to_string(),
            secrets,
            headers,
        };
        Ok((webhook, generated))
    }

    /// What is secret between us and one origin is not sent to another by an oversight.
    pub fn check(&self, known: Option<&Webhook>) -> Result<(), ApiError> {
        let Some(known) = known.filter(|known| !known.headers.is_empty()) else {
            return Ok(());
        };
        let origin = Url::parse(&known.url).map(|url| url.origin());
        if self.headers.is_some() || origin.as_ref() == Ok(&self.url.origin()) {
            return Ok(());
        }
        let of = origin.map_or_else(|_| "another URL".to_owned(), |it| it.ascii_serialization());
        let what = format!(
            "those of the new URL: the ones that are known were given for {of} ({{}} for none)"
        );
        Err(ApiError::missing_field("headers", &what))
    }
}

/// What `PUT` says of the webhook.
pub struct TargetRequest {
    pub url: Option<String>,
    pub secret: Option<String>,
    pub secrets: Option<SigningSecrets>,
    pub headers: Option<Headers>,
}

/// Secrets, each as text or as `{"secret", "expires"?}`.
#[derive(Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct SigningSecrets(Vec<TextOrObject<Expiring>>);

/// A secret that may come to an end.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SigningSecret")]
pub struct Expiring {
    secret: String,
    /// Seconds since the Unix epoch.
    expires: Option<f64>,
}

impl From<String> for Expiring {
    fn from(secret: String) -> Self {
        let expires = None;
        Self { secret, expires }
    }
}

impl FromText for Expiring {
    const EXPECTED: &'static str =
        "a secret as a string, or {\"secret\": \"whsec_…\", \"expires\": <seconds since 1970>}";
}

/// Names and values, in the order in which they came, also those that came twice.
pub struct Headers(Vec<(String, String)>);

inline_schema!(Headers, "Headers", |_generator| json_schema!({
    "type": "object",
    "additionalProperties": {"type": "string"},
}));

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Headers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "an object of names and values, such as {\"Authorization\": \"Bearer …\"}",
                )
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Headers, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = entries.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Headers(pairs))
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}

/// Checks what is asked for; `None` when it is no webhook.
pub fn target(
    settings: &config::Webhooks,
    request: TargetRequest,
) -> Result<Option<Target>, ApiError> {
    let TargetRequest {
        url,
        secret,
        secrets,
        headers,
    } = request;
    let Some(url) = url else {
        let other = match (secret, secrets, headers) {
            (None, None, None) => return Ok(None),
            (Some(_), ..) => "secret",
            (None, Some(_), _) => "secrets",
            (None, None, Some(_)) => "headers",
        };
        let what = format!("{{\"url\": \"https://shop.example/hook\"}} beside \"{other}\"");
        return Err(ApiError::missing_field("url", &what));
    };
    let url = parse_url(&url)?;
    let refused =
        |message| ApiError::new(StatusCode::BAD_REQUEST, "webhook_target_refused", message);
    Targets::new(settings).way(&url).map_err(refused)?;
    let secrets = match (secret, secrets) {
        (None, None) => None,
        (Some(secret), None) => Some(parse_secrets("secret", vec![secret.into()], now_ms())?),
        (None, Some(SigningSecrets(list))) => {
            let list = list.into_iter().map(|TextOrObject(it)| it).collect();
            Some(parse_secrets("secrets", list, now_ms())?)
        }
        (Some(_), Some(_)) => {
            let what = "left out beside \"secrets\", which takes all of them";
            return Err(ApiError::invalid_field("secret", what));
        }
    };
    let headers = headers.map(|Headers(pairs)| parse_headers(pairs));
    Ok(Some(Target {
        url,
        secrets,
        headers: headers.transpose()?,
    }))
}

fn parse_url(text: &str) -> Result<Url, ApiError> {
    let is_target = |url: &Url| {
        text.len() <= MAX_URL_BYTES
            && matches!(url.scheme(), "http" | "https")
            && url.host().is_some()
            && url.port() != Some(0)
            && url.fragment().is_none()
    };
    let what = match Url::parse(text).ok().filter(is_target) {
        None => "an http or https URL, such as \"https://shop.example/hook\"",
        Some(url) if !url.username().is_empty() || url.password().is_some() => {
            "a URL without user and password; send them as \"headers\": {\"Authorization\": \"Basic <user:password in base64>\"}"
        }
        Some(_) if text.contains(hidden::HIDDEN) => {
            "the whole URL, not the one that answers show, in which secret parts are \"(hidden)\""
        }
        Some(url) => return Ok(url),
    };
    Err(ApiError::invalid_field("url", what))
}

/// `now`: milliseconds since the Unix epoch.
fn parse_secrets(
    field: &str,
    texts: Vec<Expiring>,
    now: u64,
) -> Result<Vec<SigningSecret>, ApiError> {
    let parse = |Expiring { secret, expires }| {
        let key = signature::parse_secret(&secret).ok_or_else(|| {
            let what = "\"whsec_\" and 24 to 64 bytes as base64; leave it out to get one made";
            ApiError::invalid_field(field, what)
        })?;
        // Saturates at both ends.
        let expires = expires.map(|seconds: f64| (seconds * 1000.0) as u64);
        if expires > Some(now.saturating_add(LATEST_EXPIRY)) {
            return Err(ApiError::invalid_field(
                &format!("{field}.expires"),
                "in seconds since 1970 (not milliseconds), at most a hundred years from now",
            ));
        }
        Ok(SigningSecret { key, expires })
    };
    let secrets = texts
        .into_iter()
        .map(parse)
        .collect::<Result<Vec<_>, _>>()?;
    let keys: BTreeSet<_> = secrets.iter().map(|secret| &secret.key).collect();
    if (1..=MAX_SECRETS).contains(&secrets.len())
        && secrets.iter().any(|secret| secret.expires.is_none())
        && keys.len() == secrets.len()
    {
        return Ok(secrets);
    }
    let what = format!(
        "an array of 1 to {MAX_SECRETS} different secrets, of which at least one does not expire"
    );
    Err(ApiError::invalid_field(field, &what))
}

/// Extra headers of each request. No error repeats a value.
fn parse_headers(headers: Vec<(String, String)>) -> Result<Vec<(String, String)>, ApiError> {
    let is_plain = |value: &str| {
        let is_plain = |byte: u8| (b' '..=b'~').contains(&byte);
        !value.is_empty() && value.bytes().all(is_plain)
    };
    let mut parsed = BTreeMap::new();
    let mut bytes = 0_usize;
    for (name, value) in headers {
        let lower = HeaderName::from_bytes(name.as_bytes());
        let what = match lower.as_ref().map(HeaderName::as_str) {
            Err(_) => "the name of an HTTP header, such as \"Authorization\"",
            Ok(lower) if RESERVED.contains(&lower) || lower.starts_with(RESERVED_PREFIX) => {
                "left out: satwatch or the connection says what it is"
            }
            Ok(_) if value == hidden::HIDDEN => {
                "the value itself; leave \"headers\" out to keep those that are known"
            }
            Ok(_) if !is_plain(&value) => "a text of visible ASCII characters and spaces",
            Ok(lower) if parsed.contains_key(lower) => {
                "there once: names of headers are the same in every case"
            }
            Ok(lower) => {
                bytes = bytes.saturating_add(lower.len() + value.len());
                parsed.insert(lower.to_owned(), value);
                continue;
            }
        };
        let field = format!("headers.{}", shortened(&name));
        return Err(ApiError::invalid_field(&field, what));
    }
    if parsed.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        let what = format!("at most {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes together");
        return Err(ApiError::invalid_field("headers", &what));
    }
    Ok(parsed.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_are_no_targets_are_refused_with_what_they_must_be() {
        for bad in [
            "",
            "shop.example",
            "/hook",
            "ftp://shop.example/",
            "file:///etc/passwd",
            "https://",
            "https://shop.example/#part",
            "https://shop.example:0/",
            "https://shop.example:99999/",
            "http://[::1",
            "http://a b/",
            "https://shop.example/?token=(hidden)",
        ] {
            let error = parse_url(bad).unwrap_err();
            assert_eq!(
                (error.code, error.message.contains("\"url\"")),
                ("invalid_field", true),
                "{bad}"
            );
        }
        let long = format!("https://shop.example/{}", "x".repeat(MAX_URL_BYTES));
        assert!(parse_url(&long).is_err());
        assert_eq!(
            parse_url("HTTPS://Shop.Example:443/Hook?a=b")
                .unwrap()
                .as_str(),
            "https://shop.example/Hook?a=b"
        );
    }

    #[test]
    fn case_14_a_url_with_user_and_password_is_refused_with_what_to_send_and_not_repeated() {
        for url in [
            "https://user:hunter2@shop.example/",
            "http://user@shop.example/",
        ] {
            let error = parse_url(url).unwrap_err();
            assert!(
                error
                    .message
                    .contains("\"headers\": {\"Authorization\": \"Basic ")
            );
            assert!(!error.message.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn case_14_headers_are_checked_and_no_error_repeats_a_value() {
        let parse = |pairs: &[(&str, &str)]| {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            parse_headers(pairs.iter().map(owned).collect())
        };
        assert_eq!(
            parse(&[("X-Api-Key", "k"), ("Authorization", "Bearer t")]).unwrap(),
            [
                ("authorization".to_owned(), "Bearer t".to_owned()),
                ("x-api-key".to_owned(), "k".to_owned())
            ]
        );
        assert_eq!(parse(&[]).unwrap(), []);
        let long = "x".repeat(MAX_HEADER_BYTES);
        for pairs in [
            &[("", "hunter2")][..],
            &[("a b", "hunter2")],
            &[("a:", "hunter2")],
            &[("Host", "hunter2")],
            &[("connection", "hunter2")],
            &[("Transfer-Encoding", "hunter2")],
            &[("Content-Length", "2")],
            &[("Webhook-Signature", "hunter2")],
            &[("webhook-anything", "hunter2")],
            &[("User-Agent", "hunter2")],
            &[("x", "hunter2\r\ny: z")],
            &[("x", "hunter2\0")],
            &[("x", "hünter2")],
            &[("x", "")],
            &[("x", "(hidden)")],
            &[("X", "hunter2"), ("x", "hunter2")],
            &[("x", &long)],
        ] {
            let error = parse(pairs).unwrap_err();
            assert_eq!(error.code, "invalid_field", "{pairs:?}");
            assert!(error.message.contains("\"headers"), "{error}");
            assert!(!error.message.contains("nter2"), "{error}");
        }
        let many: Vec<_> = (0..=MAX_HEADERS).map(|n| format!("x-{n}")).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), "1")).collect();
        assert!(parse(&many).is_err());
        assert!(parse(&many[1..]).is_ok());
    }

    #[test]
    fn secrets_are_some_and_one_of_them_stays() {
        let text = |byte: u8| signature::secret_text(&[byte; 24]);
        let parse = |texts: &[(String, Option<f64>)]| {
            let expiring = |(secret, expires): &(String, Option<f64>)| Expiring {
                secret: secret.clone(),
                expires: *expires,
            };
            let texts: Vec<_> = texts.iter().map(expiring).collect();
            parse_secrets("secrets", texts, 1_700_000_000_000)
        };
        let parsed = parse(&[(text(1), None), (text(2), Some(1.5))]).unwrap();
        assert_eq!(
            parsed.iter().map(|it| it.expires).collect::<Vec<_>>(),
            [None, Some(1_500)]
        );
        let many: Vec<_> = (0..6).map(|n| (text(n), None)).collect();
        for bad in [
            &[][..],
            &[(text(1), Some(1.5))],
            &[(text(1), None), (text(1), None)],
            &[("whsec_".to_owned(), None)],
            &[(text(1), None), (text(2), Some(1_700_000_000_000.0))],
            &many,
        ] {
            assert_eq!(parse(bad).err().map(|it| it.code), Some("invalid_field"));
        }
        assert!(parse(&many[1..]).is_ok());
    }

    #[test]
    fn what_is_known_of_one_host_is_not_sent_to_another() {
        let known = Webhook {
            url: "https://shop.example/a".to_owned(),
            secrets: vec![signature::new_secret().unwrap()],
            headers: vec![("x".to_owned(), "1".to_owned())],
        };
        let target = |url: &str, headers| Target {
            url: Url::parse(url).unwrap(),
            secrets: None,
            headers,
        };
        let (kept, made) = target("https://shop.example:443/b", None)
            .webhook(Some(&known))
            .unwrap();
        assert_eq!((kept.headers.len(), made), (1, None));
        assert!(kept.secrets == known.secrets);
        for url in [
            "https://other.example/",
            "http://shop.example/",
            "https://shop.example:1/",
        ] {
            let error = target(url, None).webhook(Some(&known)).unwrap_err();
            assert_eq!(error.code, "missing_field", "{url}");
            let named = "were given for https://shop.example (";
            assert!(error.message.contains(named), "{error}");
            let (moved, _) = target(url, Some(Vec::new())).webhook(Some(&known)).unwrap();
            assert_eq!(moved.headers, []);
        }
    }
}
