//! Requests to the daemon, and why one has no answer.

use std::error::Error;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, anyhow, bail};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;

use super::Request;
use crate::config::{Config, Listen};
use crate::http_client::{self, chain, root};
use crate::remedy::Remedy;

/// What people and service managers put a token into; not an argument, which others see in the list
/// of processes.
const TOKEN: &str = "SATWATCH_TOKEN";
const CONNECT_TIME: Duration = Duration::from_secs(10);
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// A stream says something every 15 seconds.
const SILENCE: Duration = Duration::from_secs(60);
/// Of an answer other than a stream; the daemon's have some kilobytes.
const MOST_BYTES: usize = 4 << 20;
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Why there is no answer.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    /// Nobody answers.
    #[error("{why}: {}", Remedy::StartDaemon)]
    Away { why: String },
    /// It passes by itself, as the daemon says.
    #[error("{why}")]
    Later {
        why: String,
        again_in: Option<Duration>,
    },
    /// In the daemon's words.
    #[error("{error}")]
    Refused { code: String, error: String },
    #[error("{}: {remedy}", what.trim_end_matches('.'))]
    Problem { what: String, remedy: Remedy },
}

/// Who asks a daemon.
pub struct Client {
    http: reqwest::Client,
    /// Without a slash at its end.
    url: String,
    token: Option<HeaderValue>,
}

impl Client {
    pub fn new(config: &Config, request: &Request) -> Result<Self> {
        let url = match &request.url {
            Some(url) => url.clone(),
            None => url_of(config)?,
        };
        let mut trusted = Vec::new();
        for file in request.cacert.iter().chain(&config.tls.cert) {
            let pem = fs::read(file).with_context(|| file.display().to_string())?;
            trusted.extend(Certificate::from_pem_bundle(&pem)?);
        }
        let agent = concat!("satwatch/", env!("CARGO_PKG_VERSION"));
        let http = http_client::builder(agent, &url, trusted)
            .connect_timeout(CONNECT_TIME)
            .read_timeout(SILENCE);
        Ok(Self {
            http: http.build()?,
            url,
            token: token(request)?,
        })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.ask(self.http.get(self.at(path))).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let request = self.http.post(self.at(path)).body(body.to_string());
        self.ask(request.header(CONTENT_TYPE, "application/json"))
            .await
    }

    /// The stream behind a place.
    pub async fn stream(&self, path: &str, place: &str) -> Result<Response, Failure> {
        self.send(self.http.get(self.at(path)).header(LAST_EVENT_ID, place))
            .await
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    async fn ask(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let answer = self.send(request.timeout(ANSWER_TIME)).await?;
        let text = self.text(answer).await?;
        serde_json::from_slice(&text).map_err(|_| self.no_satwatch())
    }

    /// The answer, if it is none of a refusal.
    async fn send(&self, mut request: RequestBuilder) -> Result<Response, Failure> {
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        let answer = request.send().await.map_err(|error| self.away(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let again_in = answer.headers().get(RETRY_AFTER).and_then(seconds);
        let text = self.text(answer).await?;
        let said: Value = serde_json::from_slice(&text).unwrap_or_default();
        let (Some(error), Some(code)) = (said["error"].as_str(), said["code"].as_str()) else {
            return Err(match status.is_server_error() {
                // A proxy, before which the daemon is away.
                true => Failure::Later {
                    why: format!("{} answers {status}", self.url),
                    again_in,
                },
                false => self.no_satwatch(),
            });
        };
        Err(refusal(status, error.to_owned(), code.to_owned(), again_in))
    }

    /// The whole body.
    async fn text(&self, mut answer: Response) -> Result<Vec<u8>, Failure> {
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.away(&error))? {
            if text.len().saturating_add(chunk.len()) > MOST_BYTES {
                return Err(self.too_much());
            }
            text.extend_from_slice(&chunk);
        }
        Ok(text)
    }

    /// Of an answer that has no end.
    pub fn too_much(&self) -> Failure {
        Failure::Problem {
            what: format!("what answers at {} sends more than satwatch does", self.url),
            remedy: Remedy::NameDaemon,
        }
    }

    fn no_satwatch(&self) -> Failure {
        Failure::Problem {
            what: format!("what answers at {} is no satwatch", self.url),
            remedy: Remedy::NameDaemon,
        }
    }

    /// Why nobody answers.
    fn away(&self, error: &reqwest::Error) -> Failure {
        let why = format!("cannot reach satwatch at {}: {}", self.url, root(error));
        match tls_error(error) {
            Some(rustls::Error::InvalidCertificate(_)) => Failure::Problem {
                what: why,
                remedy: Remedy::TrustDaemon,
            },
            Some(_) => Failure::Problem {
                what: why,
                remedy: Remedy::NameDaemon,
            },
            None => Failure::Away { why },
        }
    }
}

/// What the daemon says of a request that it does not carry out.
fn refusal(status: StatusCode, error: String, code: String, again_in: Option<Duration>) -> Failure {
    match status {
        StatusCode::UNAUTHORIZED => Failure::Problem {
            what: error,
            remedy: Remedy::GiveToken,
        },
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            Failure::Later {
                why: error,
                again_in,
            }
        }
        _ => Failure::Refused { code, error },
    }
}

fn seconds(value: &HeaderValue) -> Option<Duration> {
    let seconds: u16 = value.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(u64::from(seconds)))
}

/// Where the daemon of these settings is reached from this machine.
fn url_of(config: &Config) -> Result<String> {
    let Listen { host, port } = &config.server.listen;
    if *port == 0 {
        bail!(
            "server.listen leaves the port to the system: {}",
            Remedy::NameDaemon
        );
    }
    let host = match &**host {
        "0.0.0.0" => "127.0.0.1",
        "::" => "::1",
        host => host,
    };
    let scheme = match config.tls.cert {
        Some(_) => "https",
        None => "http",
    };
    let at = Listen {
        host: host.to_owned(),
        port: *port,
    };
    Ok(format!("{scheme}://{at}"))
}

/// A URL as `--url` takes it: without a slash at its end.
pub fn parse_url(text: &str) -> Result<String, String> {
    let expected = || "expected a URL such as http://127.0.0.1:5005, without a user".to_owned();
    let url: Url = text.parse().map_err(|_| expected())?;
    let is_open = url.username().is_empty() && url.password().is_none();
    let is_plain = url.query().is_none() && url.fragment().is_none() && is_open;
    let is_good = ["http", "https"].contains(&url.scheme()) && url.has_host() && is_plain;
    match is_good {
        true => Ok(url.as_str().trim_end_matches('/').to_owned()),
        false => Err(expected()),
    }
}

/// The header of the token, if there is one.
fn token(request: &Request) -> Result<Option<HeaderValue>> {
    let text = match &request.token_file {
        // The token itself may have been written in place of the file.
        Some(file) => fs::read_to_string(file).context("--token-file")?,
        None => match env::var(TOKEN) {
            Ok(text) => text,
            Err(_) => return Ok(None),
        },
    };
    let text = text.trim();
    if text.is_empty() && request.token_file.is_none() {
        return Ok(None);
    }
    let header = HeaderValue::from_str(&format!("Bearer {text}"));
    let is_token = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    let mut header = header
        .ok()
        .filter(|_| is_token)
        .ok_or_else(|| anyhow!("what was given as a token is none: {}", Remedy::GiveToken))?;
    header.set_sensitive(true);
    Ok(Some(header))
}

/// The cause, if it lies in TLS.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    chain(error).find_map(|cause| cause.downcast_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_is_where_the_settings_say() {
        let mut config = Config::default();
        for (listen, url) in [
            ("127.0.0.1:5005", Some("http://127.0.0.1:5005")),
            ("0.0.0.0:80", Some("http://127.0.0.1:80")),
            ("[::]:80", Some("http://[::1]:80")),
            ("localhost:80", Some("http://localhost:80")),
            ("127.0.0.1:0", None),
        ] {
            config.server.listen = listen.parse().expect("an address");
            assert_eq!(url_of(&config).ok().as_deref(), url, "{listen}");
        }
        config.server.listen = "127.0.0.1:443".parse().expect("an address");
        config.tls.cert = Some("cert.pem".into());
        assert_eq!(url_of(&config).expect("a port"), "https://127.0.0.1:443");
    }

    #[test]
    fn a_url_has_a_scheme_and_a_host() {
        for (text, url) in [
            ("http://127.0.0.1:5005/", Some("http://127.0.0.1:5005")),
            (
                "https://Node.example/watch/",
                Some("https://node.example/watch"),
            ),
            ("127.0.0.1:5005", None),
            ("localhost:5005", None),
            ("ftp://node.example", None),
            ("http://me:sw_x@node.example", None),
            ("http://:sw_x@node.example", None),
            ("http://node.example/?a=b", None),
            ("", None),
        ] {
            assert_eq!(parse_url(text).ok().as_deref(), url, "{text}");
        }
    }

    #[test]
    fn refusals_that_pass_are_told_apart() {
        let of = |status: u16| {
            let status = StatusCode::from_u16(status).expect("a status");
            refusal(status, "No.".to_owned(), "no".to_owned(), None)
        };
        for status in [429, 500, 503] {
            assert!(matches!(of(status), Failure::Later { .. }), "{status}");
        }
        for status in [400, 403, 404] {
            assert!(matches!(of(status), Failure::Refused { .. }), "{status}");
        }
        let said = of(401).to_string();
        assert_eq!(said, format!("No: {}", Remedy::GiveToken));
    }
}
