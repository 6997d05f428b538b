//! What is told of the stream: in `/status`, in the metrics and, when it changes, in the log.

use std::mem::discriminant;

use tokio::sync::watch;

use super::super::problem::Problem;
use crate::clock::now_ms;

/// How reading is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamState {
    /// It has not begun with the log.
    Starting,
    /// It follows the stream.
    Reading,
    /// It cannot read, and tries again.
    Waiting,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamStatus {
    pub state: StreamState,
    /// When that began, in milliseconds.
    pub since: u64,
    /// Without user and password.
    pub url: String,
    /// The key of the stream that is read, or was last.
    pub stream: Option<String>,
    /// Number of the last event that was had.
    pub head: Option<u64>,
    /// Why it waits.
    pub problem: Option<Problem>,
    /// Times that it had to wait since the start.
    pub problems: u64,
}

/// Owns the status.
pub struct Told(watch::Sender<StreamStatus>);

impl Told {
    pub fn new(url: String) -> (Self, watch::Receiver<StreamStatus>) {
        let (sender, receiver) = watch::channel(StreamStatus {
            state: StreamState::Starting,
            since: now_ms(),
            url,
            stream: None,
            head: None,
            problem: None,
            problems: 0,
        });
        (Self(sender), receiver)
    }

    /// Everything up to this number was had.
    pub fn reading(&self, stream: String, head: u64) {
        self.0.send_if_modified(|status| {
            let is_news = (status.state, status.head) != (StreamState::Reading, Some(head))
                || status.stream.as_ref() != Some(&stream);
            if status.state != StreamState::Reading {
                (status.state, status.since) = (StreamState::Reading, now_ms());
                status.problem = None;
                tracing::info!(stream, after = head, "the stream is read");
            }
            (status.stream, status.head) = (Some(stream), Some(head));
            is_news
        });
    }

    pub fn waiting(&self, problem: &Problem) {
        self.0.send_modify(|status| {
            let kind = status.problem.as_ref().map(discriminant);
            if kind != Some(discriminant(problem)) {
                let remedy = problem.remedy().map(|remedy| format!(": {remedy}"));
                let remedy = remedy.unwrap_or_default();
                tracing::warn!("the stream is not read: {problem}{remedy}");
            }
            if status.state != StreamState::Waiting {
                (status.state, status.since) = (StreamState::Waiting, now_ms());
                status.problems = status.problems.saturating_add(1);
            }
            status.problem = Some(problem.clone());
        });
    }
}
