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

    /// Follows the files until `stop`; with each change of `reloads` they are read at once. Files
    /// that have not changed are else not read again, unless they were no good: what was in the way
    /// (the clock, a disk, too many open files) may have passed.
    pub async fn follow(self, mut reloads: watch::Receiver<u64>, stop: CancellationToken) {
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(LOOK_INTERVAL) => false,
                Ok(()) = reloads.changed() => true,
            };
            // They may lie on a disk that does not answer.
            let this = self.clone();
            let _ = spawn_blocking(move || this.look(SystemTime::now(), asked)).await;
        }
    }

    /// Takes over what the files hold if they are good and have changed, or if somebody `asked`.
    fn look(&self, now: SystemTime, asked: bool) {
        let (
            CertificateStatus {
                files,
                pair,
                problem,
                ..
            },
            before,
        ) = {
            let state = self.state();
            (state.status.clone(), state.seen.clone())
        };
        // Before they are read: what is written meanwhile is another change.
        let seen = stamps(&files);
        if asked || problem.is_some() || seen != before {
            let is_good = pair.not_before <= now && now < pair.not_after;
            let read = Pair::read(&files, now).and_then(|next| {
                let too_early = next.begins_later(now).filter(|_| is_good);
                too_early.map_or(Ok(next), Err)
            });
            self.taken(read, seen, now);
        }
        self.remind(now);
    }

    fn taken(&self, read: Result<Pair, CertificateProblem>, seen: [Stamp; 2], now: SystemTime) {
        let mut state = self.state();
        state.seen = seen;
        // Logged without the lock: handshakes take it.
        match read {
            Ok(pair) => {
                let names = pair.names.join(" ");
                let ends = httpdate::fmt_http_date(pair.not_after);
                state.status.pair = pair;
                state.status.since = now;
                state.status.problem = None;
                state.reminded = None;
                drop(state);
                tracing::info!(
                    names,
                    ends,
                    "TLS: the certificate was read again; new connections get it"
                );
            }
            Err(problem) => {
                let before = state.status.problem.replace(problem.clone());
                drop(state);
                if before.as_ref() != Some(&problem) {
                    tracing::warn!("TLS: the certificate of before stays in force: {problem}");
                }
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
        if !state.status.pair.ends_soon(now) || !is_due {
            return;
        }
        state.reminded = Some(now);
        drop(state);
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::super::make;
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn files_in(folder: &Path) -> CertificateFiles {
        CertificateFiles {
            cert: folder.join("cert.pem"),
            key: folder.join("key.pem"),
        }
    }

    fn made(folder: &Path, name: &str, hosts: &[String], now: SystemTime) {
        let folder = folder.join(name);
        fs::create_dir(&folder).expect("the folder is ours");
        make(&files_in(&folder), hosts, now).expect("the folder is ours");
    }

    #[test]
    fn a_link_that_leads_to_another_pair_is_followed() {
        let (folder, now) = (tempfile::tempdir().expect("a folder"), SystemTime::now());
        let (at, live) = (folder.path(), folder.path().join("live"));
        made(at, "first", &[], now);
        made(at, "second", &["shop.example".to_owned()], now);
        symlink(at.join("first"), &live).expect("ours");
        let certificates = Certificates::load(files_in(&live)).expect("a good pair");
        fs::remove_file(&live).expect("ours");
        certificates.look(now, false);
        let status = certificates.status();
        assert!(status.problem.is_some() && !status.pair.names.contains(&"shop.example".into()));
        symlink(at.join("second"), &live).expect("ours");
        certificates.look(now, false);
        let status = certificates.status();
        assert_eq!(status.problem, None);
        assert_eq!(status.pair.names[0], "shop.example");
    }

    #[test]
    fn a_pair_that_seems_to_have_ended_is_taken_when_the_clock_is_right_again() {
        let (folder, now) = (tempfile::tempdir().expect("a folder"), SystemTime::now());
        let at = folder.path();
        made(at, "pair", &[], now);
        let files = files_in(&at.join("pair"));
        let certificates = Certificates::load(files.clone()).expect("a good pair");
        made(at, "next", &["shop.example".to_owned()], now);
        let next = files_in(&at.join("next"));
        fs::rename(next.cert, files.cert).expect("ours");
        fs::rename(next.key, files.key).expect("ours");
        certificates.look(now + 900 * DAY, false);
        let problem = certificates.status().problem.expect("it has ended by then");
        assert_eq!(problem.remedy, crate::remedy::Remedy::RenewCertificate);
        certificates.look(now, false);
        let status = certificates.status();
        assert_eq!(
            (status.problem, &*status.pair.names[0]),
            (None, "shop.example")
        );
    }

    #[test]
    fn a_pair_that_begins_later_waits_while_the_one_in_force_is_good() {
        let (folder, now) = (tempfile::tempdir().expect("a folder"), SystemTime::now());
        let at = folder.path();
        made(at, "pair", &[], now);
        let files = files_in(&at.join("pair"));
        let certificates = Certificates::load(files.clone()).expect("a good pair");
        made(at, "next", &["shop.example".to_owned()], now + 3 * DAY);
        let next = files_in(&at.join("next"));
        fs::rename(next.cert, files.cert).expect("ours");
        fs::rename(next.key, files.key).expect("ours");
        let name = |now| {
            certificates.look(now, false);
            certificates.status().pair.names[0].clone()
        };
        assert_ne!(name(now), "shop.example");
        let problem = certificates.status().problem.expect("it has not begun");
        assert_eq!(problem.remedy, crate::remedy::Remedy::SetClock);
        assert_eq!(name(now + 4 * DAY), "shop.example");
        assert_eq!(certificates.status().problem, None);
    }

    #[test]
    fn who_asks_has_files_read_that_have_not_changed() {
        let (folder, now) = (tempfile::tempdir().expect("a folder"), SystemTime::now());
        made(folder.path(), "pair", &[], now);
        let files = files_in(&folder.path().join("pair"));
        let certificates = Certificates::load(files).expect("a good pair");
        let since = |now, asked| {
            certificates.look(now, asked);
            certificates.status().since
        };
        assert_ne!(since(now + DAY, false), now + DAY);
        assert_eq!(since(now + DAY, true), now + DAY);
    }

    #[test]
    fn the_end_of_the_one_in_force_is_said_once_a_day() {
        let (folder, now) = (tempfile::tempdir().expect("a folder"), SystemTime::now());
        made(folder.path(), "pair", &[], now - 815 * DAY);
        let files = files_in(&folder.path().join("pair"));
        let certificates = Certificates::load(files).expect("it is good for five days");
        let reminded = |now| {
            certificates.look(now, false);
            certificates.state().reminded
        };
        assert_eq!(reminded(now), Some(now));
        assert_eq!(reminded(now + DAY / 2), Some(now));
        assert_eq!(reminded(now + DAY), Some(now + DAY));
        let after = now + 10 * DAY;
        assert_eq!(
            reminded(after),
            Some(after),
            "it has ended, and stays in force"
        );
        assert_eq!(certificates.status().problem, None);
    }
}
