//! How requests, and the end of the service, reach a session's task.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::admission::Admission;
use super::error::Refused;
use super::packet::Revision;
use super::session::{PollAnswer, PostAnswer};
use super::websocket::WebSocket;

/// Requests that may wait for one session's task; a client has no reason for more than a GET, a
/// POST and a WebSocket.
const MAX_REQUESTS: usize = 16;

/// A request for a session. A dropped responder means that the session is gone.
pub(super) enum SessionRequest {
    Poll(oneshot::Sender<Result<PollAnswer, Refused>>),
    PostOpened {
        octets: bool,
        verdict: oneshot::Sender<Result<PostPass, Refused>>,
    },
    PostBody(Bytes, oneshot::Sender<PostAnswer>),
    PostRefused,
    Socket(Box<WebSocket>),
}

/// Resolves when the session ends while the body is still being read.
pub(super) type PostPass = oneshot::Receiver<()>;

/// What wakes a session besides its sockets, its outbox and its deadlines.
pub(super) enum SessionCommand {
    Request(SessionRequest),
    /// A request was dropped before its answer.
    RequestLost,
    Shutdown,
    /// Another one has this session's room.
    Evicted,
}

#[derive(Default)]
struct InboxState {
    requests: VecDeque<SessionRequest>,
    request_lost: bool,
    shutdown: bool,
    evicted: bool,
    gone: bool,
    waker: Option<Waker>,
}

/// How requests reach a session's task. Idle, it owns no memory.
pub(super) struct SessionInbox {
    /// What the session speaks; a request of another revision is none of its.
    pub(super) revision: Revision,
    pub(super) admission: Arc<Admission>,
    state: Mutex<InboxState>,
}

impl SessionInbox {
    pub(super) fn new(revision: Revision, admission: Arc<Admission>) -> Self {
        Self {
            revision,
            admission,
            state: Mutex::default(),
        }
    }

    /// Gives the request back when the session is gone or has too much waiting.
    pub(super) fn push(&self, request: SessionRequest) -> Result<(), SessionRequest> {
        let mut state = self.lock();
        if state.gone || state.requests.len() >= MAX_REQUESTS {
            return Err(request);
        }
        state.requests.push_back(request);
        wake(state);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, InboxState> {
        // No call under the lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn request_lost(&self) {
        let mut state = self.lock();
        state.request_lost = true;
        wake(state);
    }

    pub(super) fn shutdown(&self) {
        let mut state = self.lock();
        state.shutdown = true;
        wake(state);
    }

    pub(super) fn evict(&self) {
        let mut state = self.lock();
        state.evicted = true;
        wake(state);
    }

    /// The next command. Only the session's task may ask.
    pub(super) fn poll_command(&self, cx: &mut Context<'_>) -> Poll<SessionCommand> {
        let mut state = self.lock();
        // A lost request comes last: the request itself came before.
        if let Some(request) = state.requests.pop_front() {
            return Poll::Ready(SessionCommand::Request(request));
        }
        if std::mem::take(&mut state.request_lost) {
            return Poll::Ready(SessionCommand::RequestLost);
        }
        if std::mem::take(&mut state.shutdown) {
            return Poll::Ready(SessionCommand::Shutdown);
        }
        if std::mem::take(&mut state.evicted) {
            return Poll::Ready(SessionCommand::Evicted);
        }
        match &state.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => state.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Takes nothing more; the responders of what was waiting are dropped.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.gone = true;
        let requests = std::mem::take(&mut state.requests);
        drop(state);
        drop(requests);
    }
}

/// Wakes the task after the lock is released.
fn wake(mut state: MutexGuard<'_, InboxState>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inbox_is_bounded() {
        let inbox = SessionInbox::new(Revision::Four, Admission::new(1000));
        for _ in 0..MAX_REQUESTS {
            assert!(inbox.push(SessionRequest::PostRefused).is_ok());
        }
        assert!(inbox.push(SessionRequest::PostRefused).is_err());
    }
}
