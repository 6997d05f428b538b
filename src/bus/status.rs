//! What is told of the stream, by the daemon that writes it and by an edge that reads it: in
//! `/status`, in the metrics and, when it changes, in the log.

use std::mem::discriminant;

use tokio::sync::watch;

use super::problem::{Problem, Side};
use crate::clock::now_ms;

/// How writing, or reading, is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusState {
    /// It has not looked at Redis yet.
    Starting,
    /// Its place is in the stream, and it goes on from there.
    Working,
    /// It cannot, and tries again.
    Waiting,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusStatus {
    pub state: BusState,
    /// When that began, in milliseconds.
    pub since: u64,
    /// Without user and password.
    pub url: String,
    /// The key of the stream that is written or read, or was last.
    pub stream: Option<String>,
    /// Number of the last event that was written, or read; `None`: there is none, or it is not
    /// known yet.
    pub number: Option<u64>,
    /// Why it waits.
    pub problem: Option<Problem>,
    /// Entries written since the start.
    pub entries: u64,
    /// Times that it had to wait since the start.
    pub problems: u64,
}

/// Owns the status.
pub struct StatusReporter {
    status: watch::Sender<BusStatus>,
    side: Side,
}

impl StatusReporter {
    pub fn new(side: Side, url: String) -> (Self, watch::Receiver<BusStatus>) {
        let (status, receiver) = watch::channel(BusStatus {
            state: BusState::Starting,
            since: now_ms(),
            url,
            stream: None,
            number: None,
            problem: None,
            entries: 0,
            problems: 0,
        });
        (Self { status, side }, receiver)
    }

    /// It has come to this number, and has written `entries` more than before.
    pub fn working(&self, stream: &str, number: Option<u64>, entries: usize) {
        self.status.send_modify(|status| {
            if status.state != BusState::Working {
                (status.state, status.since) = (BusState::Working, now_ms());
                status.problem = None;
                match self.side {
                    Side::Writer => tracing::info!(stream, after = number, "the bus writes"),
                    Side::Reader => tracing::info!(stream, after = number, "the stream is read"),
                }
            }
            if status.stream.as_deref() != Some(stream) {
                status.stream = Some(stream.to_owned());
            }
            status.number = number;
            status.entries = status.entries.saturating_add(entries as u64);
        });
    }

    pub fn waiting(&self, problem: &Problem) {
        self.status.send_modify(|status| {
            let kind = status.problem.as_ref().map(discriminant);
            if kind != Some(discriminant(problem)) {
                let remedy = problem
                    .remedy(self.side)
                    .map(|remedy| format!(": {remedy}"));
                let remedy = remedy.unwrap_or_default();
                match self.side {
                    Side::Writer => tracing::warn!("the bus does not write: {problem}{remedy}"),
                    Side::Reader => tracing::warn!("the stream is not read: {problem}{remedy}"),
                }
            }
            if status.state != BusState::Waiting {
                (status.state, status.since) = (BusState::Waiting, now_ms());
                status.problems = status.problems.saturating_add(1);
            }
            status.problem = Some(problem.clone());
        });
    }
}
