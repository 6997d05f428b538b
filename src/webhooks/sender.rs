//! One attempt to deliver one body: the request, and what its answer means.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, ClientBuilder, Proxy, Response, StatusCode, Url, redirect};

use super::lookup::Lookups;
use super::partitions::Pause;
use super::targets::{Resolver, Targets, Way};
use super::{hidden, signature};
use crate::config;
use crate::store::Webhook;

const CONNECT_TIME: Duration = Duration::from_secs(10);
/// For what follows the head of an answer, so that the connection can be used again.
const REST_TIME: Duration = Duration::from_secs(1);
/// Of an answer's body, for people.
const MAX_READ: usize = 4096;
const MAX_SHOWN: usize = 200;

/// What came of an attempt. Without the webhook's secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Absent without an answer.
    pub status: Option<StatusCode>,
    /// The beginning of the answer's body, on one line.
    pub answer: String,
    pub duration: Duration,
    /// The receiver has it when this is Ok.
    pub result: Result<(), Failure>,
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For a person.
    pub error: String,
    pub pause: Pause,
    /// The receiver wants nothing any more (410).
    pub gone: bool,
}

impl From<String> for Failure {
    fn from(error: String) -> Self {
        Self {
            error,
            pause: Pause::Partition,
            gone: false,
        }
    }
}

/// Posts for all webhooks.
pub struct HttpSender {
    direct: Clients,
    /// Through `webhooks.proxy`.
    proxied: Option<Clients>,
    targets: Arc<Targets>,
}

struct Clients {
    /// With the system's root certificates, or why there is no such client.
    https: Result<Client, String>,
    http: Result<Client, String>,
}

impl Clients {
    fn new(builder: impl Fn() -> ClientBuilder) -> Self {
        let https = builder().https_only(true).build().map_err(|cause| {
            format!(
                "https is not possible here: {}; install the package ca-certificates and restart satwatch",
                causes(&cause)
            )
        });
        if let Err(problem) = &https {
            tracing::warn!("{problem}");
        }
        // Needs no certificates, and so works where there are none.
        let http = builder().tls_certs_only([]).build();
        let http = http.map_err(|cause| causes(&cause));
        Self { https, http }
    }
}

impl HttpSender {
    pub fn new(settings: &config::Webhooks) -> Self {
        // The one user of rustls here is this client; an error means that a provider is there
        // already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let targets = Arc::new(Targets::new(settings));
        let lookups = Lookups::default();
        let builder = |targets| {
            let lookups = lookups.clone();
            Client::builder()
                .user_agent(concat!("satwatch/", env!("CARGO_PKG_VERSION")))
                .redirect(redirect::Policy::none())
                .referer(false)
                .no_proxy()
                .dns_resolver(Arc::new(Resolver { targets, lookups }))
                .timeout(Duration::from_secs(settings.timeout))
        };
        let direct = || builder(Some(targets.clone())).connect_timeout(CONNECT_TIME);
        let proxied = settings.proxy.as_ref().map(|proxy| {
            let through = Proxy::all(&proxy.0).map_err(|cause| causes(&cause.without_url()));
            match through {
                Ok(through) => Clients::new(|| builder(None).proxy(through.clone())),
                Err(cause) => {
                    let problem = format!("webhooks.proxy cannot be used: {cause}");
                    Clients {
                        https: Err(problem.clone()),
                        http: Err(problem),
                    }
                }
            }
        });
        Self {
            direct: Clients::new(direct),
            proxied,
            targets,
        }
    }

    /// Posts a body. `now`: seconds since the Unix epoch.
    pub async fn post(&self, webhook: &Webhook, id: &str, body: String, now: u64) -> Outcome {
        let began = Instant::now();
        let (mut status, mut answer) = (None, String::new());
        let result = match self.request(webhook, id, body, now).await {
            Ok(response) => {
                let code = *status.insert(response.status());
                let retry_after = response.headers().get(RETRY_AFTER);
                let retry_after = retry_after.and_then(|value| wait_of(value.to_str().ok()?, now));
                let text = tokio::time::timeout(REST_TIME, beginning(response)).await;
                answer = hidden::in_text(webhook, text.unwrap_or_default());
                judge(code, retry_after, &answer)
            }
            Err(error) => Err(hidden::in_text(webhook, error).into()),
        };
        Outcome {
            status,
            answer: shortened(&answer),
            duration: began.elapsed(),
            result,
        }
    }

    /// The head of the answer, or why there is none.
    async fn request(
        &self,
        webhook: &Webhook,
        id: &str,
        body: String,
        now: u64,
    ) -> Result<Response, String> {
        let url = Url::parse(&webhook.url).map_err(|cause| format!("its URL is wrong: {cause}"))?;
        let (clients, through) = match (self.targets.way(&url)?, &self.proxied) {
            (Way::Proxy, Some(proxied)) => (proxied, "through webhooks.proxy: "),
            (Way::Proxy | Way::Direct, _) => (&self.direct, ""),
        };
        let client = if url.scheme() == "https" {
            &clients.https
        } else {
            &clients.http
        };
        let client = client.as_ref().map_err(Clone::clone)?;
        let signatures = signature::header(&webhook.secrets, id, now, &body);
        let request = client
            .post(url)
            .headers(extra_headers(webhook)?)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", signatures)
            .body(body);
        let response = request.send().await;
        response.map_err(|cause| explained(format!("{through}{}", causes(&cause.without_url()))))
    }
}

fn extra_headers(webhook: &Webhook) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &webhook.headers {
        let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
        let Some((parsed, mut value)) = parsed.zip(HeaderValue::from_str(value).ok()) else {
            return Err(format!("its header {name} cannot be sent; PUT it again"));
        };
        value.set_sensitive(true);
        headers.append(parsed, value);
    }
    Ok(headers)
}

/// What an answer means. `retry_after`: milliseconds.
fn judge(status: StatusCode, retry_after: Option<u64>, answer: &str) -> Result<(), Failure> {
    if status.is_success() {
        return Ok(());
    }
    let redirected = if status.is_redirection() {
        " (redirects are not followed)"
    } else {
        ""
    };
    let said = if answer.is_empty() {
        String::new()
    } else {
        format!(": {}", shortened(answer))
    };
    let overloaded = matches!(status.as_u16(), 429 | 502 | 503 | 504);
    let pause = match (retry_after, overloaded) {
        (Some(wait), _) => Pause::For(wait),
        (None, true) => Pause::Receiver,
        (None, false) => Pause::Partition,
    };
    Err(Failure {
        error: format!("the receiver answered {status}{redirected}{said}"),
        pause,
        gone: status == StatusCode::GONE,
    })
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

/// With what to do, where the cause is one that people meet.
fn explained(error: String) -> String {
    if !error.contains("UnknownIssuer") {
        return error;
    }
    format!(
        "{error}; no authority that this machine trusts has signed the receiver's certificate: add yours with update-ca-certificates, or name a file of authorities in SSL_CERT_FILE, and restart satwatch"
    )
}

/// The first bytes of an answer's body, on one line.
async fn beginning(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < MAX_READ {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    bytes.truncate(MAX_READ);
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = String::from_utf8_lossy(&bytes).chars().map(plain).collect();
    text.trim().to_owned()
}

fn shortened(text: &str) -> String {
    let text: String = text.chars().take(MAX_SHOWN).collect();
    text.trim_end().to_owned()
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
    use crate::store::SigningSecret;

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

    #[test]
    fn statuses_mean_what_standard_webhooks_says() {
        for status in [200, 204, 299] {
            assert_eq!(
                judge(StatusCode::from_u16(status).unwrap(), Some(7), "x"),
                Ok(())
            );
        }
        for (status, retry_after, pause, gone) in [
            (500, None, Pause::Partition, false),
            (404, None, Pause::Partition, false),
            (302, None, Pause::Partition, false),
            (410, None, Pause::Partition, true),
            (429, None, Pause::Receiver, false),
            (502, None, Pause::Receiver, false),
            (503, None, Pause::Receiver, false),
            (504, None, Pause::Receiver, false),
            (503, Some(9), Pause::For(9), false),
            (400, Some(9), Pause::For(9), false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let failure = judge(status, retry_after, "why").unwrap_err();
            assert_eq!((failure.pause, failure.gone), (pause, gone), "{status}");
            let said = format!("the receiver answered {status}");
            assert!(failure.error.starts_with(&said), "{}", failure.error);
            assert!(failure.error.ends_with(": why"), "{}", failure.error);
        }
    }

    #[tokio::test]
    async fn without_root_certificates_https_fails_with_what_to_install_and_http_goes_on() {
        let settings = config::Webhooks {
            allow_private: true,
            ..config::Webhooks::default()
        };
        let mut sender = HttpSender::new(&settings);
        sender.direct.https = Err("install the package ca-certificates".to_owned());
        let closed = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let post = async |scheme: &str| {
            let webhook = Webhook {
                url: format!("{scheme}://{closed}/?token=hidden"),
                secrets: vec![SigningSecret {
                    key: vec![7; 32],
                    expires: None,
                }],
                headers: Vec::new(),
            };
            let outcome = sender.post(&webhook, "shop_x-1", "{}".to_owned(), 0).await;
            assert_eq!(outcome.status, None);
            outcome.result.unwrap_err().error
        };
        assert_eq!(post("https").await, "install the package ca-certificates");
        let error = post("http").await;
        assert!(
            error.contains("onnection refused") && !error.contains("hidden"),
            "{error}"
        );
    }
}
