//! A session's answers on their way to its client; bounded, and nobody waits for room.
//!
//! While half of it is taken, the session handles none of the client's packets
//! ([`OutboxReceiver::is_full`]), so the other half is for what one packet's work sends. An outbox
//! that has room takes any message, however long: the largest answer fits, and an outbox holds its
//! bound and one message at most.
//!
//! A mutex over a deque and one waker instead of a channel: only the session's task waits here, an
//! idle queue owns no memory, and the byte bound is exact.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::admission::Admission;
use super::error::CloseReason;
use super::message::MessageGroup;

/// Why a message was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("the session's outbox is full: the client reads too slowly")]
    Full,
    #[error("the session is closed")]
    Closed,
}

#[derive(Debug, Default)]
struct State {
    groups: VecDeque<MessageGroup>,
    bytes: usize,
    closing: Option<CloseReason>,
    /// The session is gone.
    gone: bool,
    /// The session waits for a group; without it a client that does not read would wake its task
    /// for nothing with each one.
    listening: bool,
    /// The layer above has something to be pulled.
    woken: bool,
    waker: Option<Waker>,
}

impl State {
    fn is_closed(&self) -> bool {
        self.closing.is_some() || self.gone
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    max_groups: usize,
    max_bytes: usize,
    admission: Arc<Admission>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No call under the lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether so many parts of either bound are taken.
    fn has(&self, state: &State, groups: usize, bytes: usize) -> bool {
        state.groups.len() >= groups || state.bytes >= bytes
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
    /// The session knows that it is to close.
    close_is_known: bool,
}

/// An outbox that is full with `max_groups` groups or `max_bytes` bytes, of no session.
pub fn outbox(max_groups: usize, max_bytes: usize) -> (Outbox, OutboxReceiver) {
    outbox_of(Admission::new(usize::MAX), max_groups, max_bytes)
}

/// That of a session.
pub(super) fn outbox_of(
    admission: Arc<Admission>,
    max_groups: usize,
    max_bytes: usize,
) -> (Outbox, OutboxReceiver) {
    let shared = Arc::new(Shared {
        state: Mutex::default(),
        max_groups,
        max_bytes,
        admission,
    });
    let queue = OutboxReceiver {
        shared: shared.clone(),
        close_is_known: false,
    };
    (Outbox { shared }, queue)
}

impl Outbox {
    /// Queues a group whole or not at all, at once.
    pub fn try_send(&self, group: MessageGroup) -> Result<(), SendError> {
        let mut state = self.shared.lock();
        if state.is_closed() {
            return Err(SendError::Closed);
        }
        if self
            .shared
            .has(&state, self.shared.max_groups, self.shared.max_bytes)
        {
            return Err(SendError::Full);
        }
        state.bytes = state.bytes.saturating_add(group.bytes());
        state.groups.push_back(group);
        if state.listening {
            wake(state);
        }
        Ok(())
    }

    /// Asks the session to end: what is queued is still sent, then the transport is closed. The
    /// first reason counts. With [`CloseReason::SlowConsumer`] nothing more is sent.
    pub fn close(&self, reason: CloseReason) {
        let mut state = self.shared.lock();
        if state.closing.is_some() {
            return;
        }
        state.closing = Some(reason);
        let unsent = match reason {
            CloseReason::SlowConsumer => std::mem::take(&mut state.groups),
            _ => VecDeque::new(),
        };
        wake(state);
        drop(unsent);
    }

    /// Makes the session ask [`Handler::poll_next`](super::Handler::poll_next) once more as soon as
    /// it can, for a layer above that has no waker of it yet.
    pub fn wake(&self) {
        let mut state = self.shared.lock();
        state.woken = true;
        wake(state);
    }

    /// The client is let in, for as long as the session lasts. Until then the session is a
    /// stranger's: at the limit of sessions the oldest of those makes room for a new one. Say it
    /// when the client has shown what you ask of it; if you ask nothing, at
    /// [`Handler::open`](super::Handler::open) or with its first message.
    pub fn let_in(&self) {
        self.shared.admission.let_in();
    }

    /// Until the client is let in, a message or body of it may have 4 KiB, with its frames, which
    /// take nothing of what all clients together may send; more is refused like what is longer
    /// than `Config::max_payload`. To be said at [`Handler::open`](super::Handler::open).
    pub fn small_until_let_in(&self) {
        self.shared.admission.small_until_let_in();
    }

    pub fn is_closed(&self) -> bool {
        self.shared.lock().is_closed()
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

/// What is to be sent next.
#[derive(Debug)]
pub enum Next {
    Group(MessageGroup),
    /// What the layer above has: nothing is queued.
    Pull,
    /// Nothing: the layer above has asked for the end, and nothing is queued.
    End,
}

/// What a session is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboxSignal {
    /// A group is waiting, or the layer above has something to be pulled.
    Send,
    /// Send what is queued, then end; with [`CloseReason::SlowConsumer`] end at once. Comes once.
    Close(CloseReason),
}

impl OutboxReceiver {
    /// Takes the next group, in order.
    pub fn take(&mut self) -> Next {
        let mut state = self.shared.lock();
        let Some(group) = state.groups.pop_front() else {
            // The layer above is asked behind this, so that it need not be woken for what it had
            // before.
            state.woken = false;
            return match state.closing {
                Some(_) => Next::End,
                None => Next::Pull,
            };
        };
        if state.groups.is_empty() {
            // Most sessions are idle.
            state.groups = VecDeque::new();
        }
        state.bytes = state.bytes.saturating_sub(group.bytes());
        Next::Group(group)
    }

    /// Whether half of it is taken.
    pub(super) fn is_full(&self) -> bool {
        let Shared {
            max_groups,
            max_bytes,
            ..
        } = *self.shared;
        let state = self.shared.lock();
        self.shared
            .has(&state, max_groups.div_ceil(2), max_bytes.div_ceil(2))
    }

    /// What the session is to do. One task may wait here. `takes_groups`: it waits for groups too.
    pub fn poll(&mut self, cx: &Context<'_>, takes_groups: bool) -> Poll<OutboxSignal> {
        let mut state = self.shared.lock();
        state.listening = takes_groups;
        if let Some(reason) = state.closing
            && !std::mem::replace(&mut self.close_is_known, true)
        {
            return Poll::Ready(OutboxSignal::Close(reason));
        }
        if std::mem::take(&mut state.woken) || (takes_groups && !state.groups.is_empty()) {
            return Poll::Ready(OutboxSignal::Send);
        }
        match &state.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => state.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

#[cfg(test)]
impl OutboxReceiver {
    pub fn is_let_in(&self) -> bool {
        self.shared.admission.is_let_in()
    }

    /// Why the layer above has asked for the end, if it has.
    pub fn closing(&self) -> Option<CloseReason> {
        self.shared.lock().closing
    }
}

impl Drop for OutboxReceiver {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.gone = true;
        let groups = std::mem::take(&mut state.groups);
        drop(state);
        drop(groups);
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Message;
    use super::*;

    fn text(text: &str) -> MessageGroup {
        MessageGroup::One(Message::text(text))
    }

    fn taken(queue: &mut OutboxReceiver) -> Option<String> {
        match queue.take() {
            Next::Group(MessageGroup::One(Message::Text(text))) => Some(text.as_str().to_owned()),
            Next::Group(other) => panic!("one text, not {other:?}"),
            Next::Pull | Next::End => None,
        }
    }

    fn signal(queue: &mut OutboxReceiver) -> Poll<OutboxSignal> {
        queue.poll(&Context::from_waker(Waker::noop()), true)
    }

    #[test]
    fn outbox_is_bounded_in_messages_and_takes_none_beyond() {
        let (outbox, mut queue) = outbox(4, 100);
        for (sent, is_full) in [(0, false), (1, false), (2, true), (3, true)] {
            assert_eq!(queue.is_full(), is_full, "{sent}");
            assert_eq!(outbox.try_send(text("a")), Ok(()));
        }
        assert_eq!(outbox.try_send(text("b")), Err(SendError::Full));
        for _ in 0..3 {
            assert_eq!(taken(&mut queue).as_deref(), Some("a"));
        }
        assert!(!queue.is_full());
        assert_eq!(outbox.try_send(text("b")), Ok(()));
    }

    #[test]
    fn outbox_is_bounded_in_bytes_and_takes_any_message_until_then() {
        let (outbox, mut queue) = outbox(10, 10);
        outbox.try_send(text("0123")).expect("there is room");
        assert!(!queue.is_full());
        outbox.try_send(text(&"x".repeat(1000))).expect("any fits");
        assert_eq!(outbox.try_send(text("")), Err(SendError::Full));
        assert!(queue.is_full());
        while taken(&mut queue).is_some() {}
        assert!(!queue.is_full());
        assert_eq!(outbox.try_send(text("")), Ok(()));
    }

    #[test]
    fn outbox_closes_behind_what_is_queued_and_the_first_reason_counts() {
        let (outbox, mut queue) = outbox(8, 100);
        outbox.try_send(text("a")).expect("there is room");
        outbox.close(CloseReason::ForcedClose);
        outbox.close(CloseReason::SlowConsumer);
        assert_eq!(outbox.try_send(text("b")), Err(SendError::Closed));
        assert_eq!(
            signal(&mut queue),
            Poll::Ready(OutboxSignal::Close(CloseReason::ForcedClose))
        );
        assert_eq!(signal(&mut queue), Poll::Ready(OutboxSignal::Send));
        assert_eq!(taken(&mut queue).as_deref(), Some("a"));
        assert!(matches!(queue.take(), Next::End));
        assert!(signal(&mut queue).is_pending(), "told once");
    }

    #[test]
    fn outbox_of_a_slow_consumer_sends_nothing_more() {
        let (outbox, mut queue) = outbox(8, 100);
        outbox.try_send(text("a")).expect("there is room");
        outbox.close(CloseReason::SlowConsumer);
        assert_eq!(
            signal(&mut queue),
            Poll::Ready(OutboxSignal::Close(CloseReason::SlowConsumer))
        );
        assert!(matches!(queue.take(), Next::End));
    }

    #[test]
    fn outbox_of_a_session_that_is_gone_is_closed() {
        let (outbox, queue) = outbox(8, 100);
        outbox.try_send(text("a")).expect("there is room");
        drop(queue);
        assert!(outbox.is_closed());
        assert_eq!(outbox.try_send(text("b")), Err(SendError::Closed));
    }

    #[test]
    fn outbox_wakes_its_session_for_groups_that_it_waits_for_and_to_pull() {
        let (outbox, mut queue) = outbox(8, 100);
        let (waker, count) = counting_waker();
        let cx = Context::from_waker(&waker);
        assert!(queue.poll(&cx, false).is_pending());
        outbox.try_send(text("a")).expect("there is room");
        assert_eq!(count(), 0, "its transport takes nothing");
        assert_eq!(queue.poll(&cx, true), Poll::Ready(OutboxSignal::Send));
        while taken(&mut queue).is_some() {}
        assert!(queue.poll(&cx, true).is_pending());
        outbox.try_send(text("b")).expect("there is room");
        assert_eq!(count(), 1);
        while taken(&mut queue).is_some() {}
        assert!(queue.poll(&cx, false).is_pending());
        outbox.wake();
        assert_eq!(count(), 2);
        assert_eq!(queue.poll(&cx, false), Poll::Ready(OutboxSignal::Send));
        assert!(queue.poll(&cx, false).is_pending());
    }

    /// A waker that counts.
    fn counting_waker() -> (Waker, impl Fn() -> usize) {
        use std::sync::atomic::{AtomicUsize, Ordering};

        struct Count(AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::new(Count(AtomicUsize::new(0)));
        (count.clone().into(), move || {
            count.0.load(Ordering::Relaxed)
        })
    }
}
