//! Connections over TLS, as far as they differ.

use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::certificates::{CertificateFiles, Certificates, make};

/// A server over TLS, and what connects to it.
async fn start_tls(limits: Limits) -> (Running, TlsConnector) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let files = CertificateFiles {
        cert: folder.path().join("cert.pem"),
        key: folder.path().join("key.pem"),
    };
    make(&files, &[], SystemTime::now()).expect("the folder is ours");
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(&files.cert).expect("it is there");
    roots.add(certificate).expect("it may vouch for itself");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has suites for them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let certificates = Certificates::load(files).expect("a good pair");
    let config = tls_config(Arc::new(certificates));
    let running = start_with(limits, |server| {
        server.with_tls(config, Arc::new(|_, _| {}))
    })
    .await;
    (running, Arc::new(client).into())
}

async fn handshake(running: &Running, connector: &TlsConnector) -> TlsStream<TcpStream> {
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = connector.connect(name, connect(running).await);
    stream.await.expect("a handshake")
}

#[tokio::test]
async fn a_handshake_takes_part_in_the_time_for_the_first_head() {
    let (running, connector) = start_tls(Limits {
        header_time: Duration::from_millis(300),
        ..Limits::default()
    })
    .await;
    // Nothing, the beginning of a handshake, and nothing behind a handshake.
    for words in [&b""[..], &[22, 3, 1, 2]] {
        let mut stream = connect(&running).await;
        stream.write_all(words).await.expect("written");
        assert_eq!(read_to_end(&mut stream).await, "");
    }
    let mut stream = handshake(&running, &connector).await;
    assert_eq!(read_to_end(&mut stream).await, "");
    let mut stream = handshake(&running, &connector).await;
    stream.write_all(GET).await.expect("written");
    let mut text = vec![0; 15];
    stream.read_exact(&mut text).await.expect("an answer");
    assert_eq!(text, b"HTTP/1.1 200 OK");
}

#[tokio::test]
async fn who_speaks_plain_http_is_told_the_address_unless_it_is_long() {
    let (running, _) = start_tls(Limits::default()).await;
    for (path, is_told) in [
        ("/short".to_owned(), true),
        (format!("/{}", "x".repeat(9000)), false),
    ] {
        let mut stream = connect(&running).await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: shop.example\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let text = read_to_end(&mut stream).await;
        assert!(
            text.contains("https_required") && !text.contains("keep-alive"),
            "{text}"
        );
        assert_eq!(
            text.contains(&format!("https://shop.example{path}")),
            is_told,
            "{text}"
        );
    }
}

#[tokio::test]
async fn shutdown_does_not_wait_for_handshakes() {
    let (running, _) = start_tls(Limits {
        drain_time: PATIENCE * 2,
        ..Limits::default()
    })
    .await;
    let mut stream = connect(&running).await;
    stream.write_all(&[22, 3, 1]).await.expect("written");
    // Its connection is accepted before this one is answered.
    let mut plain = connect(&running).await;
    plain.write_all(GET).await.expect("written");
    read_until(&mut plain, "https_required").await;
    running.shutdown.cancel();
    timeout(PATIENCE, running.task)
        .await
        .expect("serve returns")
        .expect("without a panic");
}

#[tokio::test]
async fn a_long_answer_comes_whole_over_tls_to_a_client_that_reads_late() {
    let (running, connector) = start_tls(Limits::default()).await;
    let mut stream = handshake(&running, &connector).await;
    let (path, count) = ("/".repeat(9000), 200);
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    let (mut reading, mut writing) = tokio::io::split(&mut stream);
    let write = async {
        for _ in 0..count {
            writing
                .write_all(request.as_bytes())
                .await
                .expect("written");
        }
        writing.flush().await.expect("written");
    };
    let read = async {
        let (mut part, mut slashes) = (vec![0; 32 << 10], 0);
        while slashes < count * path.len() {
            let read = reading.read(&mut part).await.expect("readable");
            assert!(read > 0, "ended after {slashes}");
            slashes += part[..read].iter().filter(|it| **it == b'/').count();
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, async { tokio::join!(write, read) })
        .await
        .expect("in time");
}
