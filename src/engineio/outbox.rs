//! The outbound queues: each session's is bounded in messages and in bytes, all together in bytes
//! ([`Queues`]); nobody waits for one.
//!
//! A mutex over a deque and one waker instead of a channel: only the session's task waits here, an
//! idle queue owns no memory, and the byte bound is exact.
//!
//! When all queues together are over their limit, the slowest readers are closed until an eighth of
//! it is free again. How slow a session is, is what waits for it times how long nothing of it has
//! moved: by the bytes alone it could be one that reads well and has just been sent much. What the
//! transports hold, one group or one polling body a session, counts too.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::budget::ByteBudget;
use super::error::CloseReason;
use super::message::Group;

/// Room in the deque that an emptied queue may keep.
const KEPT_CAPACITY: usize = 8;
/// What a group costs besides its bytes; counted in the limit of all queues.
const OVERHEAD: usize = 64;

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
    /// Taken out of the queue and not yet given to the system.
    held: usize,
    /// Groups that were ever taken out.
    taken: u64,
    /// When the session last took a group, or got the first one that waits. Looked at only when
    /// something waits.
    moved: Option<Instant>,
    closing: Option<CloseReason>,
    /// Nothing is sent any more: the client does not read.
    abandoned: bool,
    /// The session is gone.
    gone: bool,
    /// The session could write a message at once.
    idle: bool,
    /// The session waits for a group; without it a client that does not read would wake its task
    /// for nothing with each one.
    listening: bool,
    /// The layer above has something to be pulled.
    woken: bool,
    waker: Option<Waker>,
}

impl State {
    /// What the limit of all queues counts. A session that was told to go counts no more: what its
    /// transport has is freed as soon as its task runs, and until then nobody else is to pay for
    /// it.
    fn weight(&self) -> usize {
        if self.abandoned {
            return 0;
        }
        self.bytes
            .saturating_add(self.groups.len().saturating_mul(OVERHEAD))
            .saturating_add(self.held)
    }

    /// Times below this say nothing but that the machine is busy.
    const SHORT: Duration = Duration::from_millis(10);

    fn slowness(&self, now: Instant) -> u128 {
        let still = self.moved.map_or(Self::SHORT, |moved| {
            now.saturating_duration_since(moved).max(Self::SHORT)
        });
        (self.weight() as u128).saturating_mul(still.as_micros())
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    max_groups: usize,
    max_bytes: usize,
    queues: Arc<Queues>,
    /// Told when the queue is drained or closed.
    drained: Notify,
}

/// The queues of all sessions of a service.
#[derive(Debug)]
pub(super) struct Queues {
    budget: Arc<ByteBudget>,
    /// By the address of the queue.
    open: Mutex<HashMap<usize, Weak<Shared>>>,
}

impl Queues {
    pub(super) fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            budget: ByteBudget::new(max_bytes),
            open: Mutex::default(),
        })
    }

    /// Bytes that wait for all clients.
    pub(super) fn queued_bytes(&self) -> usize {
        self.budget.used()
    }

    /// A queue among these for at most `max_groups` groups and `max_bytes` bytes; a single larger
    /// group fits an empty queue.
    pub(super) fn outbox(
        self: &Arc<Self>,
        max_groups: usize,
        max_bytes: usize,
    ) -> (Outbox, OutboxReceiver) {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            max_groups,
            max_bytes,
            queues: self.clone(),
            drained: Notify::new(),
        });
        self.open().insert(key(&shared), Arc::downgrade(&shared));
        (
            Outbox {
                shared: shared.clone(),
            },
            OutboxReceiver { shared },
        )
    }

    fn open(&self) -> MutexGuard<'_, HashMap<usize, Weak<Shared>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the slowest until there will be room. No queue may be locked by the caller.
    fn relieve(&self) {
        let open = self.open();
        let enough = self.budget.max() - self.budget.max() / 8;
        let mut excess = self.budget.used().saturating_sub(enough);
        if self.budget.used() <= self.budget.max() {
            return;
        }
        let (mut slowest, now) = (Vec::new(), Instant::now());
        for shared in open.values().filter_map(Weak::upgrade) {
            let state = shared.lock();
            let (weight, slowness) = (state.weight(), state.slowness(now));
            drop(state);
            if weight > 0 {
                slowest.push((Reverse(slowness), weight, shared));
            }
        }
        slowest.sort_unstable_by_key(|(slowness, ..)| *slowness);
        let mut wakers = Vec::new();
        for (_, weight, shared) in slowest {
            if excess == 0 {
                break;
            }
            wakers.extend(shared.abandon());
            excess = excess.saturating_sub(weight);
        }
        drop(open);
        wakers.into_iter().for_each(Waker::wake);
    }
}

fn key(shared: &Arc<Shared>) -> usize {
    Arc::as_ptr(shared).addr()
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No call under the lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a step that may change the weight, and keeps the books.
    fn change<T>(&self, step: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let before = state.weight();
        let done = step(&mut state);
        let after = state.weight();
        // Under the lock: the books must not be less than what is queued.
        if after >= before {
            self.queues.budget.add(after - before);
        } else {
            self.queues.budget.sub(before - after);
        }
        done
    }

    /// Whether at most this part of either bound is used: one `nth`.
    fn is_within(&self, state: &State, nth: usize) -> bool {
        let within = |used: usize, max: usize| used.saturating_mul(nth) <= max;
        state.groups.is_empty()
            || (within(state.groups.len(), self.max_groups) && within(state.bytes, self.max_bytes))
    }

    /// The end of a session that reads too slowly: what waits is dropped here and now, what the
    /// transport has with the session. Gives its waker.
    #[must_use]
    fn abandon(&self) -> Option<Waker> {
        let (groups, waker) = self.change(|state| {
            state.closing.get_or_insert(CloseReason::SlowConsumer);
            state.abandoned = true;
            state.bytes = 0;
            (std::mem::take(&mut state.groups), state.waker.take())
        });
        drop(groups);
        self.drained.notify_waiters();
        waker
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

/// A queue of its own, for tests of the layer above.
pub fn outbox(max_groups: usize, max_bytes: usize) -> (Outbox, OutboxReceiver) {
    Queues::new(usize::MAX).outbox(max_groups, max_bytes)
}

impl Outbox {
    /// Queues a group whole or not at all, at once.
    pub fn try_send(&self, group: Group) -> Result<(), SendError> {
        let waker = self.shared.change(|state| {
            if state.closing.is_some() || state.gone {
                return Err(SendError::Closed);
            }
            let bytes = state.bytes.saturating_add(group.bytes());
            if !state.groups.is_empty()
                && (state.groups.len() >= self.shared.max_groups || bytes > self.shared.max_bytes)
            {
                return Err(SendError::Full);
            }
            Ok(push(state, group))
        })?;
        self.queued(waker);
        Ok(())
    }

    /// Queues a group only if the transport can write it now: a WebSocket whose last frame is out,
    /// or a waiting poll. `false`: dropped.
    pub fn try_send_volatile(&self, group: Group) -> Result<bool, SendError> {
        let waker = self.shared.change(|state| {
            if state.closing.is_some() || state.gone {
                return Err(SendError::Closed);
            }
            Ok((state.idle && state.groups.is_empty()).then(|| push(state, group)))
        })?;
        let Some(waker) = waker else { return Ok(false) };
        self.queued(waker);
        Ok(true)
    }

    /// Behind the lock: wakes the session's task, and sees to the limit of all queues.
    fn queued(&self, waker: Option<Waker>) {
        if let Some(waker) = waker {
            waker.wake();
        }
        let queues = &self.shared.queues;
        if queues.budget.used() > queues.budget.max() {
            queues.relieve();
        }
    }

    /// Asks the session to end: what is queued is still sent, then the transport is closed. The
    /// first reason counts. A [`CloseReason::SlowConsumer`] is sent nothing more.
    pub fn close(&self, reason: CloseReason) {
        if reason == CloseReason::SlowConsumer {
            if let Some(waker) = self.shared.abandon() {
                waker.wake();
            }
            return;
        }
        let mut state = self.shared.lock();
        if state.closing.is_none() {
            state.closing = Some(reason);
            wake(state);
            self.shared.drained.notify_waiters();
        }
    }

    /// Makes the session ask [`Handler::poll_next`](super::Handler::poll_next) once more as soon as
    /// it can, for a layer above that has no waker of it yet.
    pub fn wake(&self) {
        let mut state = self.shared.lock();
        state.woken = true;
        wake(state);
    }

    pub fn is_closed(&self) -> bool {
        let state = self.shared.lock();
        state.closing.is_some() || state.gone
    }

    pub fn queued_bytes(&self) -> usize {
        self.shared.lock().bytes
    }

    /// Whether the queue is at most half full. Who sends as fast as the client takes stops here, so
    /// that answers find room.
    pub fn has_room(&self) -> bool {
        self.shared.is_within(&self.shared.lock(), 2)
    }

    /// Waits until at most one `nth` of the queue, 4 or more, is full, or it is closed.
    pub async fn drained(&self, nth: usize) {
        loop {
            // Made before the look, so that what happens in between is not missed.
            let notified = self.shared.drained.notified();
            if self.is_drained(nth) {
                return;
            }
            notified.await;
        }
    }

    fn is_drained(&self, nth: usize) -> bool {
        let state = self.shared.lock();
        state.closing.is_some() || state.gone || self.shared.is_within(&state, nth)
    }

    /// How many groups the session has taken since it began: it moves as long as the client reads.
    pub fn taken(&self) -> u64 {
        self.shared.lock().taken
    }
}

/// Gives the waker of a session that waits for a group.
fn push(state: &mut State, group: Group) -> Option<Waker> {
    if state.groups.is_empty() && state.held == 0 {
        state.moved = Some(Instant::now());
    }
    state.bytes = state.bytes.saturating_add(group.bytes());
    state.groups.push_back(group);
    if state.listening {
        state.waker.take()
    } else {
        None
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
            None => self
                .poll(
                    cx,
                    Wanted {
                        groups: true,
                        closing: false,
                        idle: true,
                    },
                )
                .map(|_| self.try_recv()),
        })
        .await
    }

    /// The next group if one is waiting.
    pub fn try_recv(&mut self) -> Option<Group> {
        let (group, drained) = self.shared.change(|state| {
            let group = state.groups.pop_front()?;
            state.bytes = state.bytes.saturating_sub(group.bytes());
            state.taken = state.taken.wrapping_add(1);
            state.moved = Some(Instant::now());
            if state.groups.is_empty() && state.groups.capacity() > KEPT_CAPACITY {
                state.groups.shrink_to(KEPT_CAPACITY);
            }
            Some((group, self.shared.is_within(state, 4)))
        })?;
        if drained {
            self.shared.drained.notify_waiters();
        }
        Some(group)
    }

    /// Whether the layer above is to be asked for more: it has not asked for the end. It is asked
    /// behind this, so that it need not be woken for what it had before.
    pub(super) fn may_pull(&self) -> bool {
        let mut state = self.shared.lock();
        state.woken = false;
        state.closing.is_none()
    }

    /// How much of what was taken is not out yet.
    pub(super) fn hold(&self, bytes: usize) {
        self.shared.change(|state| state.held = bytes);
    }

    /// Waits until the layer above asks for the end. Cancel-safe, but not beside `recv`.
    pub async fn closing(&self) -> CloseReason {
        poll_fn(|cx| {
            match self.poll(
                cx,
                Wanted {
                    groups: false,
                    closing: true,
                    idle: false,
                },
            ) {
                Poll::Ready(Asked::Close(reason) | Asked::Abandon(reason)) => Poll::Ready(reason),
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// What the session is to do. One task may wait here.
    pub(super) fn poll(&self, cx: &Context<'_>, wanted: Wanted) -> Poll<Asked> {
        let mut state = self.shared.lock();
        state.idle = wanted.idle;
        state.listening = wanted.groups;
        match state.closing {
            Some(reason) if state.abandoned => return Poll::Ready(Asked::Abandon(reason)),
            Some(reason) if wanted.closing => return Poll::Ready(Asked::Close(reason)),
            _ => {}
        }
        if std::mem::take(&mut state.woken) || (wanted.groups && !state.groups.is_empty()) {
            return Poll::Ready(Asked::Send);
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

/// What a session is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// A group is waiting, or the layer above has something to be pulled.
    Send,
    /// Send what is queued, then end.
    Close(CloseReason),
    /// End.
    Abandon(CloseReason),
}

impl Drop for OutboxReceiver {
    fn drop(&mut self) {
        let groups = self.shared.change(|state| {
            state.gone = true;
            (state.bytes, state.held) = (0, 0);
            std::mem::take(&mut state.groups)
        });
        drop(groups);
        self.shared.drained.notify_waiters();
        self.shared.queues.open().remove(&key(&self.shared));
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Message;
    use super::*;

    fn text(text: &str) -> Group {
        Group::One(Message::text(text))
    }

    #[test]
    fn the_queue_is_bounded_in_messages_and_in_bytes() {
        let (sender, mut receiver) = outbox(2, 10);
        assert_eq!(
            sender.try_send(text("0123456789abcdef")),
            Ok(()),
            "a single larger group fits an empty queue"
        );
        assert_eq!(sender.try_send(text("x")), Err(SendError::Full));
        assert_eq!(sender.queued_bytes(), 16);
        receiver.try_recv().expect("queued above");
        assert_eq!(sender.try_send(text("0123")), Ok(()));
        assert_eq!(sender.try_send(text("0123")), Ok(()));
        assert_eq!(
            sender.try_send(text("")),
            Err(SendError::Full),
            "two groups are the limit"
        );
        assert_eq!(sender.queued_bytes(), 8);
    }

    #[test]
    fn who_waits_for_room_is_told_when_a_quarter_is_left_or_the_queue_is_closed() {
        use futures_util::FutureExt;

        let (sender, mut receiver) = outbox(4, 100);
        for (queued, room) in [(1, true), (2, true), (3, false), (4, false)] {
            sender.try_send(text("a")).expect("four fit");
            assert_eq!(sender.has_room(), room, "{queued}");
        }
        let mut drained = Box::pin(sender.drained(4));
        for (left, over) in [(3, false), (2, false), (1, true)] {
            assert!(
                drained.as_mut().now_or_never().is_none(),
                "more than {left} are left"
            );
            receiver.try_recv().expect("queued above");
            assert_eq!(
                drained.as_mut().now_or_never().is_some(),
                over,
                "{left} are left"
            );
        }
        assert_eq!(sender.taken(), 3);
        drop(drained);
        sender.try_send(text(&"a".repeat(60))).expect("it fits");
        assert!(!sender.has_room(), "by the bytes");
        let mut drained = Box::pin(sender.drained(4));
        assert!(drained.as_mut().now_or_never().is_none());
        drop(receiver);
        assert!(drained.as_mut().now_or_never().is_some());
    }

    #[test]
    fn closing_keeps_what_is_queued_and_takes_nothing_more() {
        let (sender, mut receiver) = outbox(8, 100);
        sender.try_send(text("a")).expect("the queue is empty");
        sender.close(CloseReason::ForcedClose);
        sender.close(CloseReason::ServerShuttingDown);
        assert_eq!(sender.try_send(text("b")), Err(SendError::Closed));
        assert!(receiver.try_recv().is_some() && receiver.try_recv().is_none());
        let wanted = Wanted {
            groups: true,
            closing: true,
            idle: true,
        };
        let asked = receiver.poll(&Context::from_waker(Waker::noop()), wanted);
        assert_eq!(
            asked,
            Poll::Ready(Asked::Close(CloseReason::ForcedClose)),
            "the first reason counts"
        );
    }

    #[test]
    fn a_slow_consumer_is_sent_nothing_more() {
        let (sender, mut receiver) = outbox(8, 100);
        sender.try_send(text("a")).expect("the queue is empty");
        sender.close(CloseReason::SlowConsumer);
        assert!(receiver.try_recv().is_none() && sender.queued_bytes() == 0);
        let asked = receiver.poll(
            &Context::from_waker(Waker::noop()),
            Wanted {
                groups: true,
                closing: false,
                idle: true,
            },
        );
        assert_eq!(
            asked,
            Poll::Ready(Asked::Abandon(CloseReason::SlowConsumer))
        );
    }

    #[test]
    fn when_all_queues_are_full_the_slowest_are_closed_and_the_others_go_on() {
        let queues = Queues::new(10_000);
        let sessions: Vec<_> = (0..20).map(|_| queues.outbox(100, 100_000)).collect();
        let block = || text(&"x".repeat(1000));
        // Two do not read, one has a frame on its way that it does not take.
        for _ in 0..3 {
            sessions[0].0.try_send(block()).expect("room");
            sessions[1].0.try_send(block()).expect("room");
        }
        sessions[2].0.try_send(block()).expect("room");
        sessions[2].1.hold(2500);
        assert!(sessions.iter().all(|(sender, _)| !sender.is_closed()));
        for (sender, _) in &sessions[3..] {
            let _ = sender.try_send(text("a little"));
        }
        let closed: Vec<_> = (0..20)
            .filter(|number| sessions[*number].0.is_closed())
            .collect();
        assert_eq!(
            closed,
            [2],
            "the one with the most, held bytes included, and only as many as it takes"
        );
        assert_eq!(sessions[3].0.queued_bytes(), 8);
        drop(sessions);
        assert_eq!(
            (queues.queued_bytes(), queues.open().len()),
            (0, 0),
            "nothing is left in the books"
        );
    }

    #[test]
    fn one_that_has_not_moved_for_long_is_slower_than_one_that_was_just_sent_more() {
        let queues = Queues::new(10_000);
        let sessions: Vec<_> = (0..3).map(|_| queues.outbox(100, 100_000)).collect();
        sessions[0]
            .0
            .try_send(text(&"x".repeat(3000)))
            .expect("room");
        sessions[0].1.shared.lock().moved = Instant::now().checked_sub(Duration::from_secs(2));
        sessions[1]
            .0
            .try_send(text(&"x".repeat(6000)))
            .expect("room");
        sessions[2]
            .0
            .try_send(text(&"x".repeat(1000)))
            .expect("room");
        assert_eq!(
            sessions
                .iter()
                .map(|(sender, _)| sender.is_closed())
                .collect::<Vec<_>>(),
            [true, false, false]
        );
    }

    #[test]
    fn a_session_that_was_told_to_go_is_not_taken_for_one_that_stays() {
        let queues = Queues::new(1000);
        let (slow, mut slow_end) = queues.outbox(100, 100_000);
        let (other, _other_end) = queues.outbox(100, 100_000);
        slow.try_send(text(&"x".repeat(900))).expect("room");
        slow_end.try_recv().expect("queued above");
        slow_end.hold(900);
        other.try_send(text(&"x".repeat(100))).expect("room");
        assert!(slow.is_closed(), "900 bytes are with its transport");
        other
            .try_send(text(&"x".repeat(100)))
            .expect("its bytes are as good as free");
        assert!(!other.is_closed());
        slow_end.hold(0);
    }

    #[test]
    fn a_session_that_is_gone_closes_the_queue() {
        let (sender, receiver) = outbox(8, 100);
        sender.try_send(text("a")).expect("the queue is empty");
        drop(receiver);
        assert!(sender.is_closed());
        assert_eq!(
            (sender.try_send(text("b")), sender.queued_bytes()),
            (Err(SendError::Closed), 0)
        );
    }

    #[test]
    fn volatile_messages_pass_only_an_idle_transport() {
        let (sender, mut receiver) = outbox(8, 100);
        assert_eq!(sender.try_send_volatile(text("a")), Ok(false));
        let _ = receiver.poll(
            &Context::from_waker(Waker::noop()),
            Wanted {
                groups: true,
                closing: true,
                idle: true,
            },
        );
        assert_eq!(sender.try_send_volatile(text("b")), Ok(true));
        assert_eq!(
            sender.try_send_volatile(text("c")),
            Ok(false),
            "the second of two is lost"
        );
        assert!(
            matches!(receiver.try_recv(), Some(Group::One(message)) if message == Message::text("b"))
        );
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
