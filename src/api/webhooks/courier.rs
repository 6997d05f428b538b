//! One attempt to deliver one event: the request, and what its answer means.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, Url, redirect};

use super::lookup::Lookups;
use super::signature;
use super::target::{Resolver, check_literal};
use crate::config;
use crate::store::Webhook;

const CONNECT_TIME: Duration = Duration::from_secs(10);
/// For what follows the head of an answer, so that the connection can be used again.
const REST_TIME: Duration = Duration::from_secs(1);
/// Of an answer's body, for the text of an error.
const MAX_READ: usize = 4096;
const MAX_SHOWN: usize = 200;

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For a person.
    pub error: String,
    /// Milliseconds that the receiver asks us to wait.
    pub retry_after: Option<u64>,
}

impl From<String> for Failure {
    fn from(error: String) -> Self {
        Self {
            error,
            retry_after: None,
        }
    }
}

/// Posts for all webhooks.
pub struct Courier {
    /// With the system's root certificates, or why there is no such client.
    https: Result<Client, String>,
    http: Result<Client, String>,
    allow_private: bool,
}

impl Courier {
    pub fn new(settings: &config::Webhooks) -> Self {
        // The one user of rustls here is this client; an error means that a provider is there
        // already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let lookups = Lookups::default();
        let builder = || {
            Client::builder()
                .user_agent(concat!("satwatch/", env!("CARGO_PKG_VERSION")))
                .redirect(redirect::Policy::none())
                .referer(false)
                .no_proxy()
                .dns_resolver(Arc::new(Resolver {
                    allow_private: settings.allow_private,
                    lookups: lookups.clone(),
                }))
                .connect_timeout(CONNECT_TIME)
                .timeout(Duration::from_secs(settings.timeout))
        };
        let https = builder().https_only(true).build().map_err(|cause| {
            format!("https is not possible here: {}; install the package ca-certificates and restart satwatch", causes(&cause))
        });
        if let Err(problem) = &https {
            tracing::warn!("{problem}");
        }
        // Needs no certificates, and so works where there are none.
        let http = builder()
            .tls_certs_only([])
            .build()
            .map_err(|cause| causes(&cause));
        Self {
            https,
            http,
            allow_private: settings.allow_private,
        }
    }

    /// Posts a body; the receiver has it when this is Ok. `now`: seconds since the Unix epoch.
    pub async fn post(
        &self,
        webhook: &Webhook,
        id: &str,
        body: String,
        now: u64,
    ) -> Result<(), Failure> {
        let url = Url::parse(&webhook.url).map_err(|cause| format!("{}: {cause}", webhook.url))?;
        check_literal(&url, self.allow_private)?;
        let client = if url.scheme() == "https" {
            &self.https
        } else {
            &self.http
        };
        let client = client.as_ref().map_err(Clone::clone)?;
        let request = client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", now)
            .header(
                "webhook-signature",
                signature::sign(&webhook.secret, id, now, &body),
            )
            .body(body);
        let answer = request
            .send()
            .await
            .map_err(|cause| causes(&cause.without_url()))?;
        let status = answer.status();
        let retry_after = answer
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| wait_of(value.to_str().ok()?, now));
        let text = tokio::time::timeout(REST_TIME, beginning(answer))
            .await
            .unwrap_or_default();
        if status.is_success() {
            return Ok(());
        }
        let redirected = if status.is_redirection() {
            " (redirects are not followed)"
        } else {
            ""
        };
        let said = if text.is_empty() {
            String::new()
        } else {
            format!(": {text}")
        };
        Err(Failure {
            error: format!("the receiver answered {status}{redirected}{said}"),
            retry_after,
        })
    }
}

/// An error with what led to it, each said once.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}

/// The first words of an answer's body, on one line.
async fn beginning(mut answer: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < MAX_READ {
        match answer.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    bytes.truncate(MAX_READ);
    let text: String = String::from_utf8_lossy(&bytes)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_SHOWN)
        .collect();
    text.trim().to_owned()
}

/// Milliseconds of a `Retry-After`: whole seconds, or a date. `now`: seconds since the Unix epoch.
fn wait_of(text: &str, now: u64) -> Option<u64> {
    let text = text.trim();
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => seconds_of_date(text)?.saturating_sub(now),
    };
    Some(seconds.saturating_mul(1000))
}

/// Seconds since the Unix epoch of an HTTP date.
fn seconds_of_date(text: &str) -> Option<u64> {
    let date = httpdate::parse_http_date(text).ok()?;
    date.duration_since(std::time::UNIX_EPOCH)
        .ok()
        .map(|since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_seconds_or_a_date_and_the_past_is_no_wait() {
        assert_eq!(wait_of(" 120 ", 5), Some(120_000));
        assert_eq!(wait_of("Thu, 01 Jan 1970 00:01:40 GMT", 40), Some(60_000));
        assert_eq!(wait_of("Thu, 01 Jan 1970 00:01:40 GMT", 4_000), Some(0));
        assert_eq!(wait_of("18446744073709551615", 0), Some(u64::MAX));
        assert_eq!(
            (wait_of("soon", 0), wait_of("-1", 0), wait_of("1.5", 0)),
            (None, None, None)
        );
    }

    #[tokio::test]
    async fn without_root_certificates_https_fails_with_what_to_install_and_http_goes_on() {
        let settings = config::Webhooks {
            allow_private: true,
            ..config::Webhooks::default()
        };
        let courier = Courier {
            https: Err("install the package ca-certificates".to_owned()),
            ..Courier::new(&settings)
        };
        let closed = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let post = async |scheme: &str| {
            let webhook = Webhook {
                url: format!("{scheme}://{closed}/?token=hidden"),
                secret: vec![7; 32],
            };
            courier
                .post(&webhook, "shop_x-1", "{}".to_owned(), 0)
                .await
                .unwrap_err()
        };
        assert_eq!(
            post("https").await.error,
            "install the package ca-certificates"
        );
        let error = post("http").await.error;
        assert!(
            error.contains("onnection refused") && !error.contains("hidden"),
            "{error}"
        );
    }
}
