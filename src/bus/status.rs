//! What is told of the bus: in `/status`, in the metrics and, when it changes, in the log.

use std::mem::discriminant;

use tokio::sync::watch;

use super::problem::Problem;
use crate::clock::now_ms;

/// How the bus is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusState {
    /// It has not looked at Redis yet.
    Starting,
    /// The stream is ours and follows the log.
    Writing,
    /// It cannot write, and tries again.
    Waiting,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusStatus {
    pub state: BusState,
    /// When that began, in milliseconds.
    pub since: u64,
    /// Without user and password.
    pub url: String,
    /// The key of the stream that is written, or was last.
    pub stream: Option<String>,
    /// Number of the last event in it; `None`: it is empty, or not known yet.
    pub written: Option<u64>,
    /// Why it waits.
    pub problem: Option<Problem>,
    /// Entries written since the start.
    pub entries: u64,
    /// Times that it had to wait since the start.
    pub problems: u64,
}

/// Owns the status.
pub struct Told(watch::Sender<BusStatus>);

impl Told {
    pub fn new(url: String) -> (Self, watch::Receiver<BusStatus>) {
        let (sender, receiver) = watch::channel(BusStatus {
            state: BusState::Starting,
            since: now_ms(),
            url,
            stream: None,
            written: None,
            problem: None,
            entries: 0,
            problems: 0,
        });
        (Self(sender), receiver)
    }

    /// The stream is ours up to this number, `entries` more than before.
    pub fn writing(&self, stream: &str, written: Option<u64>, entries: usize) {
        self.0.send_modify(|status| {
            if status.state != BusState::Writing {
                (status.state, status.since) = (BusState::Writing, now_ms());
                status.problem = None;
                tracing::info!(stream, after = written, "the bus writes");
            }
            if status.stream.as_deref() != Some(stream) {
                status.stream = Some(stream.to_owned());
            }
            status.written = written;
            status.entries = status.entries.saturating_add(entries as u64);
        });
    }

    pub fn waiting(&self, problem: &Problem) {
        self.0.send_modify(|status| {
            let kind = status.problem.as_ref().map(discriminant);
            if kind != Some(discriminant(problem)) {
                let remedy = problem.remedy().map(|remedy| format!(": {remedy}"));
                let remedy = remedy.unwrap_or_default();
                tracing::warn!("the bus does not write: {problem}{remedy}");
            }
            if status.state != BusState::Waiting {
                (status.state, status.since) = (BusState::Waiting, now_ms());
                status.problems = status.problems.saturating_add(1);
            }
            status.problem = Some(problem.clone());
        });
    }
}
