//! TLS: 1.2 and 1.3, without certificates of clients. Which certificate is shown is the resolver's
//! to say, anew at each handshake.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Response, StatusCode};
use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;
use rustls::version::{TLS12, TLS13};
use tokio::net::TcpStream;

/// The first byte of a TLS connection: its record type.
const HANDSHAKE: u8 = 22;

/// What connections begin with when each is to be over TLS.
pub fn tls_config(certificates: Arc<dyn ResolvesServerCert>) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("ring has suites for both")
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

pub(super) fn is_handshake(first: Option<u8>) -> bool {
    first == Some(HANDSHAKE)
}

/// The first byte, left where it is. `None`: the client has gone.
pub(super) async fn first_byte(stream: &TcpStream) -> io::Result<Option<u8>> {
    let mut first = [0];
    let read = stream.peek(&mut first).await?;
    Ok(first.first().copied().filter(|_| read > 0))
}

/// Bytes of host and path up to which the address to ask instead is named.
const SHORT: usize = 200;

/// To a request that came without TLS where TLS is spoken.
pub(super) fn https_required<B>(request: &Request<B>) -> Response<Full<Bytes>> {
    let host = request.headers().get(HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    let path = request.uri().path_and_query().map_or("/", |it| it.as_str());
    let place = match host.len() + path.len() <= SHORT && !host.is_empty() {
        true => format!(": https://{host}{path}"),
        false => String::new(),
    };
    let error = format!("This port speaks HTTPS only, and the request came as plain HTTP{place}");
    let body = serde_json::json!({ "error": error, "code": "https_required" }).to_string();
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = StatusCode::BAD_REQUEST;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}
