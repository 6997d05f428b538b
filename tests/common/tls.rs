//! Pairs of certificate and key, and connections over TLS that trust one certificate.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use satwatch::certificates::{self, CertificateFiles};
use tempfile::TempDir;

pub const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
pub const DAY: Duration = Duration::from_secs(86_400);

pub type Stream = StreamOwned<ClientConnection, TcpStream>;

/// `cert.pem` and `key.pem` in a folder of their own.
pub struct Files {
    folder: TempDir,
    files: CertificateFiles,
}

impl Files {
    /// A pair that was made now.
    pub fn new() -> Self {
        Self::made_at(SystemTime::now())
    }

    pub fn made_at(time: SystemTime) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let files = CertificateFiles {
            cert: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
        };
        certificates::make(&files, &[], time).expect("the folder is ours");
        Self { folder, files }
    }

    pub fn cert(&self) -> &Path {
        &self.files.cert
    }

    pub fn key(&self) -> &Path {
        &self.files.key
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// The settings that name them.
    pub fn settings(&self) -> [(&'static str, String); 2] {
        let text = |path: &Path| path.display().to_string();
        [
            ("server.tls.cert", text(self.cert())),
            ("server.tls.key", text(self.key())),
        ]
    }
}

/// A connection to this machine on which the handshake is done.
pub fn connect(
    port: u16,
    trusted: &Path,
    versions: &[&'static SupportedProtocolVersion],
) -> io::Result<Stream> {
    connect_on(TcpStream::connect(("127.0.0.1", port))?, trusted, versions)
}

/// The same on a connection that is open.
pub fn connect_on(
    mut socket: TcpStream,
    trusted: &Path,
    versions: &[&'static SupportedProtocolVersion],
) -> io::Result<Stream> {
    let mut roots = RootCertStore::empty();
    let pem = fs::read(trusted)?;
    let certificate = CertificateDer::from_pem_slice(&pem).map_err(io::Error::other)?;
    roots.add(certificate).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    socket.set_read_timeout(Some(super::DEADLINE))?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(connection, socket))
}
