//! One certificate with its key, read and checked.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::CertificateFiles;
use crate::remedy::Remedy;

/// So long before its end a certificate is called one that ends soon, or for the last quarter of
/// its time if that is shorter.
const SOON: Duration = Duration::from_secs(21 * 86_400);

/// What is wrong with the files of a pair.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {remedy}")]
pub struct CertificateProblem {
    pub what: String,
    pub remedy: Remedy,
}

impl CertificateProblem {
    pub(super) fn new(what: String, remedy: Remedy) -> Self {
        Self { what, remedy }
    }
}

/// A certificate with the key that it was made for.
#[derive(Debug, Clone)]
pub struct Pair {
    pub(super) certified: Arc<CertifiedKey>,
    /// Host names and addresses that it is for.
    pub names: Vec<String>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

impl Pair {
    /// Reads both files. `now` is this machine's time.
    pub fn read(files: &CertificateFiles, now: SystemTime) -> Result<Self, CertificateProblem> {
        let chain = read_chain(&files.cert)?;
        let key = read_key(&files.key)?;
        let (names, not_before, not_after) = chain
            .first()
            .and_then(|first| read_certificate(first))
            .ok_or_else(|| {
                let what = format!(
                    "{} holds no certificate that can be read",
                    files.cert.display()
                );
                CertificateProblem::new(what, Remedy::NamePair)
            })?;
        let key = any_supported_type(&key).map_err(|_| {
            let what = format!(
                "the key in {} is of a kind that TLS does not use here (ECDSA P-256 or P-384, Ed25519, RSA of 2048 to 8192 bits are)",
                files.key.display()
            );
            CertificateProblem::new(what, Remedy::NamePair)
        })?;
        let certified = CertifiedKey::new(chain, key);
        check_fit(&certified, files)?;
        if not_after <= now {
            let what = format!(
                "the certificate in {} ended on {}",
                files.cert.display(),
                httpdate::fmt_http_date(not_after)
            );
            return Err(CertificateProblem::new(what, Remedy::RenewCertificate));
        }
        Ok(Self {
            certified: Arc::new(certified),
            names,
            not_before,
            not_after,
        })
    }

    pub(super) fn ends_soon(&self, now: SystemTime) -> bool {
        let good_for = self.not_after.duration_since(self.not_before);
        self.not_after <= now + SOON.min(good_for.unwrap_or_default() / 4)
    }

    /// That it is not good yet, if that is so.
    pub(super) fn begins_later(&self, now: SystemTime) -> Option<CertificateProblem> {
        (self.not_before > now).then(|| {
            let begins = httpdate::fmt_http_date(self.not_before);
            let what =
                format!("the certificate begins only on {begins}, by the clock of this machine");
            CertificateProblem::new(what, Remedy::SetClock)
        })
    }
}

fn check_fit(certified: &CertifiedKey, files: &CertificateFiles) -> Result<(), CertificateProblem> {
    let cert = files.cert.display();
    let cause = match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => return Ok(()),
        Err(Error::InconsistentKeys(_)) => {
            let key = files.key.display();
            let what = format!("the certificate in {cert} was not made for the key in {key}");
            return Err(CertificateProblem::new(what, Remedy::FitPair));
        }
        Err(Error::InvalidCertificate(cause)) => cause.to_string(),
        Err(cause) => cause.to_string(),
    };
    let what = format!("{cert} holds a certificate that cannot be used by TLS here ({cause})");
    Err(CertificateProblem::new(what, Remedy::NamePair))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateProblem> {
    let text = read_file(path)?;
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&text).collect();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| {
        let what = format!("{} holds no whole certificate in PEM", path.display());
        CertificateProblem::new(what, Remedy::NamePair)
    })
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, CertificateProblem> {
    const PASSPHRASE: [&[u8]; 2] = [b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED"];
    let text = read_file(path)?;
    let has = |words: &[u8]| text.windows(words.len()).any(|part| part == words);
    if PASSPHRASE.into_iter().any(has) {
        let what = format!("the key in {} is under a passphrase", path.display());
        let path = path.to_owned();
        return Err(CertificateProblem::new(what, Remedy::OpenKey { path }));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        let what = format!("{} holds no whole private key in PEM", path.display());
        CertificateProblem::new(what, Remedy::NamePair)
    })
}

fn read_file(path: &Path) -> Result<Vec<u8>, CertificateProblem> {
    fs::read(path).map_err(|cause| {
        let remedy = match cause.kind() {
            std::io::ErrorKind::PermissionDenied => Remedy::LetRead {
                path: path.to_owned(),
            },
            _ => Remedy::NamePair,
        };
        let what = format!("{} cannot be read: {cause}", path.display());
        CertificateProblem::new(what, remedy)
    })
}

/// Its names, and from when to when it is good.
fn read_certificate(der: &[u8]) -> Option<(Vec<String>, SystemTime, SystemTime)> {
    let certificate = Certificate::from_der(der).ok()?;
    let content = certificate.tbs_certificate();
    let names = content.get_extension::<SubjectAltName>().ok()?;
    let names = names.map_or(Vec::new(), |(_, names)| names.0);
    let names = names.iter().filter_map(name).collect();
    let time = |since: Duration| SystemTime::UNIX_EPOCH.checked_add(since);
    let validity = content.validity();
    let not_before = time(validity.not_before.to_unix_duration())?;
    let not_after = time(validity.not_after.to_unix_duration())?;
    Some((names, not_before, not_after))
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(std::net::IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(bytes).map(std::net::IpAddr::from);
            v4.or_else(|_| v6()).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, KeyPair};

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_certificate_that_cannot_be_used_is_not_called_one_of_another_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = CertificateFiles {
            cert: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
        };
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::default();
        let mut unknown = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        unknown.set_criticality(true);
        parameters.custom_extensions.push(unknown);
        let certificate = parameters.self_signed(&key).expect("a certificate");
        fs::write(&files.cert, certificate.pem()).expect("ours");
        fs::write(&files.key, key.serialize_pem()).expect("ours");
        let problem = Pair::read(&files, SystemTime::now()).expect_err("nobody knows that");
        assert!(
            problem.what.contains("cannot be used by TLS here") && problem.what.contains("ritical"),
            "{problem}"
        );
        assert_eq!(problem.remedy, Remedy::NamePair);
    }

    #[test]
    fn a_short_certificate_ends_soon_in_its_last_quarter() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cert, key) = (
            folder.path().join("cert.pem"),
            folder.path().join("key.pem"),
        );
        let now = SystemTime::now();
        let files = CertificateFiles { cert, key };
        super::super::make(&files, &[], now).expect("the folder is ours");
        let mut pair = Pair::read(&files, now).expect("a good pair");
        pair.not_before = now;
        for (days, soon) in [(6, 2), (47, 12), (90, 21), (820, 21)] {
            pair.not_after = now + days * DAY;
            let left = |left| pair.not_after - left * DAY;
            assert!(!pair.ends_soon(left(soon + 1)), "{days}");
            assert!(pair.ends_soon(left(soon - 1)), "{days}");
        }
    }
}
