//! What there is to say about the files of the settings, for `doctor` and `--check`.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

use super::{CertificateFiles, Pair};
use crate::remedy::Remedy;

/// Bits of a file's mode with which others than its owner and its group read it, or with which
/// others than its owner write it.
const OPEN_TO_OTHERS: u32 = 0o026;

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub what: String,
    pub remedy: Option<Remedy>,
    /// With this the daemon does not start.
    pub stops_start: bool,
}

/// Looks at the files as a start would, and at what is not wise. `allowed_hosts`: the names under
/// which requests are taken.
pub fn examine(
    files: &CertificateFiles,
    now: SystemTime,
    allowed_hosts: &[String],
) -> Vec<Finding> {
    let pair = match Pair::read(files, now) {
        Ok(pair) => pair,
        Err(problem) => {
            return vec![Finding {
                what: problem.what,
                remedy: Some(problem.remedy),
                stops_start: true,
            }];
        }
    };
    let ends = httpdate::fmt_http_date(pair.not_after);
    let about = match pair.names.len() {
        0 => "for no name".to_owned(),
        _ => format!("for {}", pair.names.join(", ")),
    };
    let mut found = vec![Finding {
        what: format!("a certificate {about}, good until {ends}"),
        remedy: None,
        stops_start: false,
    }];
    if let Some(what) = refused_names(&pair.names, allowed_hosts) {
        found.push(Finding {
            what,
            remedy: None,
            stops_start: false,
        });
    }
    let mut unwise = |what: String, remedy| {
        found.push(Finding {
            what,
            remedy: Some(remedy),
            stops_start: false,
        });
    };
    if pair.ends_soon(now) {
        let what = format!("the certificate ends soon, on {ends}");
        unwise(what, Remedy::RenewCertificate);
    }
    if let Some(problem) = pair.begins_later(now) {
        unwise(problem.what, problem.remedy);
    }
    if is_open_to_others(&files.key) {
        let what = format!(
            "others on this machine may read or change the key in {}",
            files.key.display()
        );
        let path = files.key.clone();
        unwise(what, Remedy::CloseFile { path });
    }
    found
}

/// Whether others than the owner of a file with a secret, and its group, may read it, or others
/// than its owner change it. (A service manager that gives a file to one user shows that as its
/// group's right.)
pub fn is_open_to_others(path: &Path) -> bool {
    let mode = fs::metadata(path).map(|found| found.permissions().mode());
    mode.is_ok_and(|mode| mode & OPEN_TO_OTHERS != 0)
}

/// What there is to say if none of a certificate's names is let in.
pub fn refused_names(names: &[String], allowed_hosts: &[String]) -> Option<String> {
    let is_free = |name: &str| name.parse::<IpAddr>().is_ok() || name == "localhost";
    let is_listed = |name: &&str| {
        let mut hosts = allowed_hosts.iter().map(|host| host.split(':').next());
        hosts.any(|host| host.is_some_and(|host| host.eq_ignore_ascii_case(name)))
    };
    let names = names.iter().map(String::as_str);
    let names: Vec<&str> = names.filter(|name| !is_free(name)).collect();
    // With a star it may be for any name.
    let is_open = |name: &&str| is_listed(name) || name.contains('*');
    let are_refused = !names.is_empty() && !names.iter().any(is_open);
    are_refused.then(|| {
        let names = names.join(", ");
        format!(
            "requests for {names} are refused until server.allowed_hosts lists what clients use of that"
        )
    })
}
