//! What of a webhook is secret and shown to nobody: in its URL the values of the query, and parts
//! of the path that are as long as services write their tokens; the values of its headers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;

use crate::store::Webhook;

pub const HIDDEN: &str = "(hidden)";
/// Parts of a path from this length on are taken for tokens.
const TOKEN_BYTES: usize = 20;
/// Shorter texts are no secrets, and may stand in any answer.
const LEAST_BYTES: usize = 4;

/// A URL as it is shown.
pub fn url(text: &str) -> String {
    let Ok(url) = Url::parse(text) else {
        return HIDDEN.to_owned();
    };
    let path: Vec<_> = url.path().split('/').map(shown_part).collect();
    let shown_pair = |pair: &str| match pair.split_once('=') {
        Some((name, _)) => format!("{}={HIDDEN}", shown_part(name)),
        None => HIDDEN.to_owned(),
    };
    let query = url.query().map(|query| {
        let pairs: Vec<_> = query.split('&').map(shown_pair).collect();
        format!("?{}", pairs.join("&"))
    });
    let origin = url.origin().ascii_serialization();
    format!("{origin}{}{}", path.join("/"), query.unwrap_or_default())
}

fn shown_part(part: &str) -> &str {
    if is_token(part) { HIDDEN } else { part }
}

fn is_token(part: &str) -> bool {
    part.len() >= TOKEN_BYTES
}

/// A text of others, such as a receiver's answer, without what is secret here.
pub fn in_text(webhook: &Webhook, text: String) -> String {
    let mut secrets = Vec::new();
    if let Ok(url) = Url::parse(&webhook.url) {
        let query = url.query().unwrap_or_default();
        let values = query.split('&').map(|pair| {
            let value = pair.split_once('=').map(|(_, value)| value);
            value.unwrap_or(pair)
        });
        let tokens = url.path().split('/').filter(|part| is_token(part));
        secrets.extend(values.chain(tokens).chain([query]).map(str::to_owned));
        secrets.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
    }
    for (_, value) in &webhook.headers {
        // "Bearer <token>" as a whole, and the token.
        secrets.push(value.clone());
        secrets.extend(value.rsplit(' ').next().map(str::to_owned));
        secrets.extend(password(value));
    }
    secrets.retain(|secret| secret.len() >= LEAST_BYTES);
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
        .iter()
        .fold(text, |text, secret| text.replace(secret, HIDDEN))
}

/// The password of "Basic <user:password in base64>". With the user before it, it is hidden, too.
fn password(value: &str) -> Option<String> {
    let (scheme, encoded) = value.split_once(' ')?;
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (_, password) = decoded.split_once(':')?;
    let is_basic = scheme.eq_ignore_ascii_case("basic");
    is_basic.then(|| password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_what_may_be_a_token() {
        for (text, shown) in [
            ("https://shop.example/hook", "https://shop.example/hook"),
            ("http://[fd00::1]:8080/", "http://[fd00::1]:8080/"),
            (
                "https://shop.example/hook?token=abc&x=1",
                "https://shop.example/hook?token=(hidden)&x=(hidden)",
            ),
            (
                "https://shop.example/?abc",
                "https://shop.example/?(hidden)",
            ),
            (
                "https://chat.example/services/T0/B0/0123456789abcdef0123",
                "https://chat.example/services/T0/B0/(hidden)",
            ),
            (
                "https://user:password@shop.example/",
                "https://shop.example/",
            ),
            ("no url", "(hidden)"),
        ] {
            assert_eq!(url(text), shown, "{text}");
        }
    }

    #[test]
    fn an_answer_that_repeats_a_secret_is_shown_without_it() {
        let webhook = Webhook {
            url: "https://shop.example/0123456789abcdef0123?token=a%20secret&n=1".to_owned(),
            secrets: Vec::new(),
            headers: vec![
                ("authorization".to_owned(), "Bearer opensesame".to_owned()),
                ("x".to_owned(), "basic dXNlcjpodW50ZXIy".to_owned()),
            ],
        };
        let shown = |text: &str| in_text(&webhook, text.to_owned());
        for text in [
            "no such path /0123456789abcdef0123?token=a%20secret&n=1",
            "bad token a secret",
            "token=a%20secret",
            "Bearer opensesame is wrong",
            "opensesame is wrong",
            "wrong password user:hunter2",
            "hunter2?",
        ] {
            let shown = shown(text);
            assert!(
                !["0123456789", "secret", "sesame", "hunter"]
                    .iter()
                    .any(|secret| shown.contains(secret)),
                "{shown}"
            );
        }
        assert_eq!(shown("attempt 1 of 11"), "attempt 1 of 11");
    }
}
