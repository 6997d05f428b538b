//! The pair in force, and its renewal while connections go on.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{CertificateFiles, CertificateProblem, Pair};

/// Between two looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// So long before its end a certificate is called one that ends soon.
pub(super) const SOON: Duration = Duration::from_secs(21 * 86_400);
/// Between two log lines about it.
const REMIND_INTERVAL: Duration = Duration::from_secs(86_400);

/// What `/status` tells.
#[derive(Debug, Clone)]
pub struct CertificateStatus {
    pub files: CertificateFiles,
    /// The one in force.
    pub pair: Pair,
    /// When it was taken over.
    pub since: SystemTime,
    /// Why the files are not: they were looked at later.
    pub problem: Option<CertificateProblem>,
}

/// The pair in force. Clones are the same one.
#[derive(Clone)]
pub struct Certificates(Arc<Mutex<State>>);

struct State {
    status: CertificateStatus,
    /// What the files were when they were read.
    seen: [Stamp; 2],
    reminded: Option<SystemTime>,
}

/// Changes when somebody writes, replaces or reopens the file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stamp {
    File([u64; 3], [i64; 4]),
    Unknown(io::ErrorKind),
}

impl Certificates {
    /// For a start: there must be a good pair.
    pub fn load(files: CertificateFiles) -> Result<Self, CertificateProblem> {
        let (seen, now) = (stamps(&files), SystemTime::now());
        let pair = Pair::read(&files, now)?;
        let status = CertificateStatus {
            files,
            pair,
            since: now,
            problem: None,
        };
        let state = State {
            status,
            seen,
            reminded: None,
        };
        Ok(Self(Arc::new(Mutex::new(state))))
    }

    pub fn status(&self) -> CertificateStatus {
        self.state().status.clone()
    }

    /// Follows the files until `stop`; each change of `asked` is a look at once. Files that have
    /// not changed are not read again.
    pub async fn follow(self, mut asked: watch::Receiver<u64>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(LOOK_INTERVAL) => {}
                Ok(()) = asked.changed() => {}
            }
            // They may lie on a disk that does not answer.
            let this = self.clone();
            let _ = spawn_blocking(move || this.look(SystemTime::now())).await;
        }
    }

    /// Takes over what the files hold if they have changed and are good.
    fn look(&self, now: SystemTime) {
        let (files, before) = {
            let state = self.state();
            (state.status.files.clone(), state.seen.clone())
        };
        // Before they are read: what is written meanwhile is another change.
        let seen = stamps(&files);
        if seen != before {
            self.taken(Pair::read(&files, now), seen, now);
        }
        self.remind(now);
    }

    fn taken(&self, read: Result<Pair, CertificateProblem>, seen: [Stamp; 2], now: SystemTime) {
        let mut state = self.state();
        state.seen = seen;
        match read {
            Ok(pair) => {
                let ends = httpdate::fmt_http_date(pair.not_after);
                tracing::info!(
                    names = pair.names.join(" "),
                    ends,
                    "TLS: the certificate was read again; new connections get it"
                );
                state.status.pair = pair;
                state.status.since = now;
                state.status.problem = None;
                state.reminded = None;
            }
            Err(problem) => {
                if state.status.problem.as_ref() != Some(&problem) {
                    tracing::warn!("TLS: the certificate of before stays in force: {problem}");
                }
                state.status.problem = Some(problem);
            }
        }
    }

    /// Says once a day that the certificate in force ends soon, or has ended.
    fn remind(&self, now: SystemTime) {
        let mut state = self.state();
        let ends = state.status.pair.not_after;
        let is_due = state.reminded.is_none_or(|last| {
            now.duration_since(last)
                .is_ok_and(|time| time >= REMIND_INTERVAL)
        });
        if ends > now + SOON || !is_due {
            return;
        }
        state.reminded = Some(now);
        let date = httpdate::fmt_http_date(ends);
        match ends <= now {
            true => tracing::error!(
                "TLS: the certificate ended on {date}: clients refuse it until it is renewed"
            ),
            false => tracing::warn!("TLS: the certificate ends on {date}"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No call under this lock can leave it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.state().status.pair.certified.clone())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificates")
            .field(&self.state().status.files)
            .finish()
    }
}

fn stamps(files: &CertificateFiles) -> [Stamp; 2] {
    [&files.cert, &files.key].map(|path| match fs::metadata(path) {
        Ok(it) => Stamp::File(
            [it.dev(), it.ino(), it.len()],
            [it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec()],
        ),
        Err(cause) => Stamp::Unknown(cause.kind()),
    })
}
