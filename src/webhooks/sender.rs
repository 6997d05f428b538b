//! One attempt to deliver one body: the request, and what its answer means.

use std::error::Error;
use std::iter::successors;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, ClientBuilder, Proxy, Response, StatusCode, Url, redirect};
use schemars::JsonSchema;
use serde::Serialize;

use super::lookup::Lookups;
use super::partitions::Pause;
use super::targets::{Resolver, Targets, Way};
use super::{hidden, signature};
use crate::clock::now_ms;
use crate::config;
use crate::store::Webhook;
use crate::wire::json;

const CONNECT_TIME: Duration = Duration::from_secs(10);
/// For what follows the head of an answer, so that the connection can be used again.
const REST_TIME: Duration = Duration::from_secs(1);
/// Of an answer's body, for people.
const MAX_READ: usize = 4096;
const MAX_SHOWN: usize = 200;

/// One attempt and its answer, without the webhook's secrets. Times in seconds.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "DeliveryAttempt")]
pub struct Record {
    pub webhook_id: String,
    /// When it began.
    time: f64,
    duration: f64,
    /// Null without an answer.
    status: Option<u16>,
    /// The beginning of the answer's body, on one line.
    answer: String,
    /// Null when the receiver took it.
    pub error: Option<String>,
}

/// What an answer means, or that there was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Taken,
    /// The receiver wants nothing any more (410).
    Gone,
    Failed(Pause),
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
    fn new(builder: impl Fn() -> reqwest::Result<ClientBuilder>) -> Self {
        let https = builder().and_then(|it| it.https_only(true).build());
        let https = https.map_err(|cause| {
            format!(
                "https is not possible here: {}; install the package ca-certificates and restart satwatch",
                causes(&cause.without_url())
            )
        });
        if let Err(problem) = &https {
            tracing::warn!("{problem}");
        }
        // Needs no certificates, and so works where there are none.
        let http = builder().and_then(|it| it.tls_certs_only([]).build());
        let http = http.map_err(|cause| causes(&cause.without_url()));
        Self { https, http }
    }
}

impl HttpSender {
    pub fn new(settings: &config::Webhooks) -> Self {
        // This client takes the default; an error means that it is set already.
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
        let direct = || Ok(builder(Some(targets.clone())).connect_timeout(CONNECT_TIME));
        let proxied = settings.proxy.as_ref();
        Self {
            direct: Clients::new(direct),
            proxied: proxied
                .map(|proxy| Clients::new(|| Ok(builder(None).proxy(Proxy::all(&proxy.0)?)))),
            targets,
        }
    }

    pub async fn post(
        &self,
        webhook: &Webhook,
        webhook_id: String,
        body: String,
    ) -> (Record, Verdict) {
        let (began, now) = (Instant::now(), now_ms());
        let request = self.request(webhook, &webhook_id, body, now / 1000);
        let (status, answer, failed) = match request.await {
            Ok(response) => {
                let (status, wait) = (response.status(), retry_after(&response, now / 1000));
                let text = tokio::time::timeout(REST_TIME, beginning(response)).await;
                let answer = hidden::in_text(webhook, text.unwrap_or_default());
                let answer = shortened(&answer);
                let failed = failure(status, wait, &answer);
                (Some(status.as_u16()), answer, failed)
            }
            Err(error) => {
                let error = hidden::in_text(webhook, error);
                let failed = (error, Verdict::Failed(Pause::Partition));
                (None, String::new(), Some(failed))
            }
        };
        let (error, verdict) = failed.unzip();
        let record = Record {
            webhook_id,
            time: json::seconds(now),
            duration: began.elapsed().as_millis() as f64 / 1000.0,
            status,
            answer,
            error,
        };
        (record, verdict.unwrap_or(Verdict::Taken))
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
        let client = match url.scheme() {
            "https" => &clients.https,
            _ => &clients.http,
        };
        let request = client
            .as_ref()?
            .post(url)
            .headers(extra_headers(webhook)?)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", now)
            .header(
                "webhook-signature",
                signature::header(&webhook.secrets, id, now, &body),
            )
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

/// Why an answer is no yes, for a person, and what it means. `retry_after`: milliseconds.
fn failure(
    status: StatusCode,
    retry_after: Option<u64>,
    answer: &str,
) -> Option<(String, Verdict)> {
    let pause = match (retry_after, status.as_u16()) {
        (Some(wait), _) => Pause::For(wait),
        (None, 429 | 502 | 503 | 504) => Pause::Receiver,
        (None, _) => Pause::Partition,
    };
    let verdict = match status {
        status if status.is_success() => return None,
        StatusCode::GONE => Verdict::Gone,
        _ => Verdict::Failed(pause),
    };
    let redirected = match status.is_redirection() {
        true => " (redirects are not followed)",
        false => "",
    };
    let before = if answer.is_empty() { "" } else { ": " };
    let error = format!("the receiver answered {status}{redirected}{before}{answer}");
    Some((error, verdict))
}

/// An error with what led to it, each said once.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for cause in successors(error.source(), |&cause| cause.source()) {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
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

/// Milliseconds of a `Retry-After`. `now`: seconds since the Unix epoch.
fn retry_after(response: &Response, now: u64) -> Option<u64> {
    wait_of(response.headers().get(RETRY_AFTER)?.to_str().ok()?, now)
}

/// Whole seconds, or a date.
fn wait_of(text: &str, now: u64) -> Option<u64> {
    let text = text.trim();
    let seconds = text.parse::<u64>().ok().or_else(|| {
        let date = httpdate::parse_http_date(text).ok()?;
        let at = date.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(at.as_secs().saturating_sub(now))
    })?;
    Some(seconds.saturating_mul(1000))
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
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(failure(status, Some(7), "x"), None);
        }
        for (status, retry_after, expected) in [
            (500, None, Verdict::Failed(Pause::Partition)),
            (404, None, Verdict::Failed(Pause::Partition)),
            (302, None, Verdict::Failed(Pause::Partition)),
            (410, None, Verdict::Gone),
            (429, None, Verdict::Failed(Pause::Receiver)),
            (502, None, Verdict::Failed(Pause::Receiver)),
            (503, None, Verdict::Failed(Pause::Receiver)),
            (504, None, Verdict::Failed(Pause::Receiver)),
            (503, Some(9), Verdict::Failed(Pause::For(9))),
            (400, Some(9), Verdict::Failed(Pause::For(9))),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let (error, verdict) = failure(status, retry_after, "why").unwrap();
            assert_eq!(verdict, expected, "{status}");
            let said = format!("the receiver answered {status}");
            assert!(error.starts_with(&said), "{error}");
            assert!(error.ends_with(": why"), "{error}");
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
            let id = "shop_x-1".to_owned();
            let (record, verdict) = sender.post(&webhook, id, "{}".to_owned()).await;
            assert_eq!(
                (record.status, verdict),
                (None, Verdict::Failed(Pause::Partition))
            );
            record.error.unwrap()
        };
        assert_eq!(post("https").await, "install the package ca-certificates");
        let error = post("http").await;
        assert!(
            error.contains("onnection refused") && !error.contains("hidden"),
            "{error}"
        );
    }
}
