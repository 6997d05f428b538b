//! The outbound queue of one session: bounded in messages and in bytes, never waited for.
//!
//! A mutex over a deque and one waker instead of a channel: only the session's task waits here, an idle queue owns no memory, and the
//! byte bound is exact.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::handler::{CloseReason, Message};

/// Room in the deque that an emptied queue may keep.
const KEPT_CAPACITY: usize = 8;

/// Messages that must stay together: one, or a header with its attachments.
#[derive(Debug, Clone)]
pub enum Group {
    One(Message),
    Many(Arc<[Message]>),
}

impl Group {
    pub fn bytes(&self) -> usize {
        match self {
            Self::One(message) => message.len(),
            Self::Many(messages) => messages.iter().map(Message::len).sum(),
        }
    }
}

/// Why a message was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("the session's queue is full: the client reads too slowly")]
    Full,
    #[error("the session is closed")]
    Closed,
}

#[derive(Debug, Default)]
struct State {
    groups: VecDeque<Group>,
    bytes: usize,
    closing: Option<CloseReason>,
    /// The session is gone.
    gone: bool,
    /// The session could write a message at once.
    idle: bool,
    /// The session waits for a group; without it a client that does not read would wake its task for nothing with each one.
    listening: bool,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    max_groups: usize,
    max_bytes: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No call under the lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sending side; cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
}

/// The session's side.
#[derive(Debug)]
pub struct OutboxReceiver {
    shared: Arc<Shared>,
}

/// A queue for at most `max_groups` groups and `max_bytes` bytes; a single larger group fits an empty queue.
pub fn outbox(max_groups: usize, max_bytes: usize) -> (Outbox, OutboxReceiver) {
    let shared = Arc::new(Shared { state: Mutex::default(), max_groups, max_bytes });
    (Outbox { shared: shared.clone() }, OutboxReceiver { shared })
}

impl Outbox {
    /// Queues a group whole or not at all, at once.
    pub fn try_send(&self, group: Group) -> Result<(), SendError> {
        let mut state = self.shared.lock();
        if state.closing.is_some() || state.gone {
            return Err(SendError::Closed);
        }
        let bytes = state.bytes.saturating_add(group.bytes());
        if !state.groups.is_empty() && (state.groups.len() >= self.shared.max_groups || bytes > self.shared.max_bytes) {
            return Err(SendError::Full);
        }
        state.bytes = bytes;
        push(state, group);
        Ok(())
    }

    /// Queues a group only if the transport can write it now: a WebSocket whose last frame is out, or a waiting poll. `false`: dropped.
    pub fn try_send_volatile(&self, group: Group) -> Result<bool, SendError> {
        let mut state = self.shared.lock();
        if state.closing.is_some() || state.gone {
            return Err(SendError::Closed);
        }
        if !state.idle || !state.groups.is_empty() {
            return Ok(false);
        }
        state.bytes = group.bytes();
        push(state, group);
        Ok(true)
    }

    /// Asks the session to end: what is queued is still sent, then the transport is closed. The first reason counts.
    pub fn close(&self, reason: CloseReason) {
        let mut state = self.shared.lock();
        if state.closing.is_none() {
            state.closing = Some(reason);
            wake(state);
        }
    }

    pub fn is_closed(&self) -> bool {
        let state = self.shared.lock();
        state.closing.is_some() || state.gone
    }

    pub fn queued_bytes(&self) -> usize {
        self.shared.lock().bytes
    }
}

fn push(mut state: MutexGuard<'_, State>, group: Group) {
    state.groups.push_back(group);
    if state.listening {
        wake(state);
    }
}

/// Wakes the session's task after the lock is released.
fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl OutboxReceiver {
    /// The next group, in order; waits for one. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Group> {
        poll_fn(|cx| match self.try_recv() {
            Some(group) => Poll::Ready(Some(group)),
            None => self.poll(cx, Wanted { groups: true, closing: false, idle: true }).map(|_| self.try_recv()),
        })
        .await
    }

    /// The next group if one is waiting.
    pub fn try_recv(&mut self) -> Option<Group> {
        let mut state = self.shared.lock();
        let group = state.groups.pop_front()?;
        state.bytes = state.bytes.saturating_sub(group.bytes());
        if state.groups.is_empty() && state.groups.capacity() > KEPT_CAPACITY {
            state.groups.shrink_to(KEPT_CAPACITY);
        }
        Some(group)
    }

    /// Waits until the layer above asks for the end. Cancel-safe, but not beside `recv`.
    pub async fn closing(&self) -> CloseReason {
        poll_fn(|cx| match self.poll(cx, Wanted { groups: false, closing: true, idle: false }) {
            Poll::Ready(Some(reason)) => Poll::Ready(reason),
            _ => Poll::Pending,
        })
        .await
    }

    /// Ready with a reason when the end was asked for, with nothing when a group is waiting. One task may wait here.
    pub(super) fn poll(&self, cx: &Context<'_>, wanted: Wanted) -> Poll<Option<CloseReason>> {
        let mut state = self.shared.lock();
        state.idle = wanted.idle;
        state.listening = wanted.groups;
        if wanted.closing
            && let Some(reason) = state.closing
        {
            return Poll::Ready(Some(reason));
        }
        if wanted.groups && !state.groups.is_empty() {
            return Poll::Ready(None);
        }
        match &state.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => state.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

/// What a session waits for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) groups: bool,
    pub(super) closing: bool,
    /// A message could be written at once; what volatile messages go by.
    pub(super) idle: bool,
}

impl Drop for OutboxReceiver {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.gone = true;
        state.bytes = 0;
        let groups = std::mem::take(&mut state.groups);
        drop(state);
        drop(groups);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Group {
        Group::One(Message::text(text))
    }

    #[test]
    fn the_queue_is_bounded_in_messages_and_in_bytes() {
        let (sender, mut receiver) = outbox(2, 10);
        assert_eq!(sender.try_send(text("0123456789abcdef")), Ok(()), "a single larger group fits an empty queue");
        assert_eq!(sender.try_send(text("x")), Err(SendError::Full));
        assert_eq!(sender.queued_bytes(), 16);
        receiver.try_recv().expect("queued above");
        assert_eq!(sender.try_send(text("0123")), Ok(()));
        assert_eq!(sender.try_send(text("0123")), Ok(()));
        assert_eq!(sender.try_send(text("")), Err(SendError::Full), "two groups are the limit");
        assert_eq!(sender.queued_bytes(), 8);
    }

    #[test]
    fn closing_keeps_what_is_queued_and_takes_nothing_more() {
        let (sender, mut receiver) = outbox(8, 100);
        sender.try_send(text("a")).expect("the queue is empty");
        sender.close(CloseReason::ForcedClose);
        sender.close(CloseReason::ServerShuttingDown);
        assert_eq!(sender.try_send(text("b")), Err(SendError::Closed));
        assert!(receiver.try_recv().is_some() && receiver.try_recv().is_none());
        let wanted = Wanted { groups: true, closing: true, idle: true };
        let asked = receiver.poll(&Context::from_waker(Waker::noop()), wanted);
        assert_eq!(asked, Poll::Ready(Some(CloseReason::ForcedClose)), "the first reason counts");
    }

    #[test]
    fn a_session_that_is_gone_closes_the_queue() {
        let (sender, receiver) = outbox(8, 100);
        sender.try_send(text("a")).expect("the queue is empty");
        drop(receiver);
        assert!(sender.is_closed());
        assert_eq!((sender.try_send(text("b")), sender.queued_bytes()), (Err(SendError::Closed), 0));
    }

    #[test]
    fn volatile_messages_pass_only_an_idle_transport() {
        let (sender, mut receiver) = outbox(8, 100);
        assert_eq!(sender.try_send_volatile(text("a")), Ok(false));
        let _ = receiver.poll(&Context::from_waker(Waker::noop()), Wanted { groups: true, closing: true, idle: true });
        assert_eq!(sender.try_send_volatile(text("b")), Ok(true));
        assert_eq!(sender.try_send_volatile(text("c")), Ok(false), "the second of two is lost");
        assert!(matches!(receiver.try_recv(), Some(Group::One(message)) if message == Message::text("b")));
    }

    #[tokio::test]
    async fn a_waiting_receiver_is_woken() {
        let (sender, mut receiver) = outbox(8, 100);
        let waiting = tokio::spawn(async move { receiver.recv().await });
        tokio::task::yield_now().await;
        sender.try_send(text("a")).expect("the queue is empty");
        assert!(matches!(waiting.await, Ok(Some(Group::One(_)))));
    }
}
