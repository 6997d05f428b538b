//! A certificate that vouches for itself, for a home network.

use std::fs::{File, OpenOptions, remove_file};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};

use super::CertificateFiles;

/// With the time before: Apple's systems refuse one that is good for more than 825 days in all.
const GOOD_FOR: Duration = Duration::from_secs(820 * 86_400);
/// So long before now it begins, for clocks that are behind.
const BEFORE: Duration = Duration::from_secs(86_400);

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    pub names: Vec<String>,
    pub not_after: SystemTime,
}

/// Makes a pair for `hosts`, this machine's names and loopback. Files that are there stay as they
/// are.
pub fn make(files: &CertificateFiles, hosts: &[String], now: SystemTime) -> io::Result<Made> {
    if files.cert == files.key {
        let path = files.cert.display();
        let what = format!(
            "{path} is named for the certificate and for its key, and each is made in a file of its own"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let (names, not_after) = (names(hosts), now + GOOD_FOR);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(io::Error::other)?;
    let certificate = parameters(&names, now - BEFORE, not_after)?.self_signed(&key);
    let certificate = certificate.map_err(io::Error::other)?.pem();
    write_new(&files.key, 0o600, &key.serialize_pem())?;
    if let Err(error) = write_new(&files.cert, 0o644, &certificate) {
        let _ = remove_file(&files.key);
        return Err(error);
    }
    Ok(Made { names, not_after })
}

/// Without repetitions, in this order: what was asked for, this machine, loopback.
fn names(hosts: &[String]) -> Vec<String> {
    let mut names: Vec<String> = hosts.to_vec();
    let system = rustix::system::uname();
    let machine = system.nodename().to_string_lossy().to_ascii_lowercase();
    if crate::config::is_host_name(&machine) {
        // As it is found without a name server.
        let local = (!machine.contains('.')).then(|| format!("{machine}.local"));
        names.extend([machine].into_iter().chain(local));
    }
    names.push("localhost".to_owned());
    names.push(Ipv4Addr::LOCALHOST.to_string());
    names.push(Ipv6Addr::LOCALHOST.to_string());
    let mut kept = Vec::with_capacity(names.len());
    for name in names {
        if !kept.contains(&name) {
            kept.push(name);
        }
    }
    kept
}

fn parameters(
    names: &[String],
    not_before: SystemTime,
    not_after: SystemTime,
) -> io::Result<CertificateParams> {
    let mut parameters = CertificateParams::default();
    for name in names {
        parameters
            .subject_alt_names
            .push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => {
                    let name = name.as_str().try_into();
                    SanType::DnsName(name.map_err(io::Error::other)?)
                }
            });
    }
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let mut subject = DistinguishedName::new();
    // Of its own, or two of them would be taken for one authority with two keys.
    subject.push(
        DnType::CommonName,
        format!("satwatch {:08x}", u32::from_be_bytes(random)),
    );
    parameters.distinguished_name = subject;
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let epoch = date_time_ymd(1970, 1, 1);
    let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH);
    parameters.not_before = epoch + since(not_before).map_err(io::Error::other)?;
    parameters.not_after = epoch + since(not_after).map_err(io::Error::other)?;
    Ok(parameters)
}

/// Never over a file that is there; when it fails there is none. A kill may leave a part of it.
fn write_new(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let named = |cause: io::Error| {
        let path = path.display();
        let what = match cause.kind() {
            io::ErrorKind::AlreadyExists => {
                format!(
                    "{path} is there already, and nothing is written over it: move it away first"
                )
            }
            _ => format!("{path}: {cause}"),
        };
        io::Error::new(cause.kind(), what)
    };
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(mode).open(path);
    let written = |mut file: File| {
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
    };
    opened.map_err(named).and_then(|file| {
        written(file).map_err(|cause| {
            let _ = remove_file(path);
            named(cause)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::Pair;
    use super::*;

    #[test]
    fn one_file_is_not_made_for_both() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("both.pem");
        let files = CertificateFiles {
            cert: path.clone(),
            key: path.clone(),
        };
        let refused = make(&files, &[], SystemTime::now()).expect_err("it is refused");
        assert!(refused.to_string().contains("of its own"), "{refused}");
        assert!(!path.exists());
    }

    #[test]
    fn what_is_made_is_good_for_less_than_825_days() {
        let (folder, now) = (tempfile::tempdir().expect("a folder"), SystemTime::now());
        let files = CertificateFiles {
            cert: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
        };
        make(&files, &[], now).expect("the folder is ours");
        let pair = Pair::read(&files, now).expect("a good pair");
        let good_for = pair.not_after.duration_since(pair.not_before);
        let days = good_for.expect("it ends after it begins").as_secs() / 86_400;
        assert!((800..825).contains(&days), "{days} days");
    }
}
