//! Certificates of TLS: read from the files that the settings name, read again when these change,
//! looked at for `doctor`, and made for a home network (`satwatch cert new`).
//!
//! # Laws
//!
//! 1. A pair is taken whole or not at all: the certificate has not ended, its key is the one that
//!    it was made for, and both parse. Whatever else the files hold (one of them renewed and the
//!    other not yet, half a file, none) is a [`CertificateProblem`] that names one cause and its
//!    remedy. One that has not begun is taken only if there is none that is good now: the clock of
//!    a machine that starts may be behind.
//! 2. Who has a good pair keeps it: files that are no good leave the last good pair in force, which
//!    the log and [`CertificateStatus`] say. Only at a start is there nothing to keep; then the
//!    daemon does not start.
//! 3. The pair in force is asked for at each handshake. Connections keep what they began with.
//! 4. Nothing of a key is ever shown, and a key that is made here is readable by its owner alone.
//!
//! ```text
//! files --changed, SIGHUP, no good before--> pair (read, checked) --good--> in force --> server: each handshake
//! (looked at every second)                                  --bad---> problem: log, /status
//! ```

mod examine;
mod make;
mod pair;
mod renewal;

use std::path::PathBuf;

pub use examine::{Finding, examine, is_open_to_others, refused_names};
pub use make::{Made, make};
pub use pair::{CertificateProblem, Pair};
pub use renewal::{CertificateStatus, Certificates};

use crate::config::Tls;

/// Where a pair is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM: the certificate, and its chain behind it.
    pub cert: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
}

impl CertificateFiles {
    /// `None`: the settings name none, so there is no TLS.
    pub fn of(settings: &Tls) -> Option<Self> {
        Some(Self {
            cert: settings.cert.clone()?,
            key: settings.key.clone()?,
        })
    }
}
