//! Bytes that all sessions of a service may hold together. A session's own bounds are not enough:
//! ten thousand of them, each well within its own, would still fill the machine.
//!
//! On the way in, when there is no room for what just came, the slowest of the messages that are
//! not whole yet are ended, as `outbox` does it on the way out: otherwise whoever begins enough
//! messages and then sends no more would make everybody else be refused.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;

/// A count of bytes with a limit.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicUsize,
    max: usize,
    /// The messages that are counted here and not whole yet, by address.
    begun: Mutex<HashMap<usize, Weak<Begun>>>,
}

impl Budget {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            max,
            begun: Mutex::default(),
        })
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Counts what is there already.
    pub(super) fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn sub(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// `false`: no room, and nothing was counted.
    fn take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.max);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .is_ok()
    }

    fn begun(&self) -> MutexGuard<'_, HashMap<usize, Weak<Begun>>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> Arc<Begun> {
        let begun = Arc::new(Begun::default());
        self.begun()
            .insert(Arc::as_ptr(&begun).addr(), Arc::downgrade(&begun));
        begun
    }

    /// Takes this for `newcomer`, at the cost of slower ones if need be.
    fn take_for(&self, newcomer: &Arc<Begun>, bytes: usize) -> bool {
        let taken = self.take(bytes) || self.take_from_slower(newcomer, bytes);
        let counted = taken && newcomer.grow(bytes);
        if taken && !counted {
            self.sub(bytes);
        }
        counted
    }

    /// Ends the slowest until there is room. Nobody is ended if that would not be enough: the rest
    /// is held by whole messages, or by clients that are quicker than the newcomer.
    fn take_from_slower(&self, newcomer: &Arc<Begun>, bytes: usize) -> bool {
        // Held to the end: two that look for room at once would end twice as many as they need.
        let begun = self.begun();
        let now = Instant::now();
        let bar = newcomer.lock().slowness(bytes, now);
        let mut slower = Vec::new();
        for other in begun
            .values()
            .filter_map(Weak::upgrade)
            .filter(|other| !Arc::ptr_eq(other, newcomer))
        {
            let (slowness, held) = {
                let state = other.lock();
                (state.slowness(0, now), state.bytes)
            };
            if slowness > bar {
                slower.push((Reverse(slowness), held, other));
            }
        }
        let freeable = slower
            .iter()
            .fold(0usize, |sum, (_, held, _)| sum.saturating_add(*held));
        if self.used().saturating_sub(freeable).saturating_add(bytes) > self.max {
            return false;
        }
        slower.sort_unstable_by_key(|(slowness, ..)| *slowness);
        let mut wakers = Vec::new();
        let mut taken = self.take(bytes);
        for (.., other) in &slower {
            if taken {
                break;
            }
            wakers.extend(self.refuse(other));
            taken = self.take(bytes);
        }
        drop(begun);
        wakers.into_iter().for_each(Waker::wake);
        taken
    }

    /// Ends a message. Its bytes are freed as soon as its task runs; until then nobody else is to
    /// pay for them.
    #[must_use]
    fn refuse(&self, begun: &Begun) -> Option<Waker> {
        let mut state = begun.lock();
        state.refused = true;
        self.sub(std::mem::take(&mut state.bytes));
        state.waker.take()
    }
}

/// Bytes that a client may send without being counted: about what a connection costs anyway.
const UNCOUNTED: usize = 4096;
/// Less than this is no movement: a byte now and then would keep a message from ever being the
/// slowest.
const MOVEMENT: usize = 4096;
/// Times below this say nothing but that the machine is busy.
const SHORT: Duration = Duration::from_millis(10);

/// A counted message that is not whole yet.
#[derive(Debug, Default)]
struct Begun {
    state: Mutex<BegunState>,
}

#[derive(Debug, Default)]
struct BegunState {
    bytes: usize,
    /// When it last moved, and how much of it there was then.
    moved: Option<(Instant, usize)>,
    /// It has to make room.
    refused: bool,
    waker: Option<Waker>,
}

impl BegunState {
    fn slowness(&self, more: usize, now: Instant) -> u128 {
        let still = self.moved.map_or(SHORT, |(moved, _)| {
            now.saturating_duration_since(moved).max(SHORT)
        });
        (self.bytes.saturating_add(more) as u128).saturating_mul(still.as_micros())
    }
}

impl Begun {
    fn lock(&self) -> MutexGuard<'_, BegunState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `false`: it had to make room meanwhile.
    fn grow(&self, bytes: usize) -> bool {
        let mut state = self.lock();
        if state.refused {
            return false;
        }
        state.bytes += bytes;
        if state
            .moved
            .is_none_or(|(_, then)| state.bytes.saturating_sub(then) >= MOVEMENT)
        {
            state.moved = Some((Instant::now(), state.bytes));
        }
        true
    }
}

/// What one client has sent of a message that is not whole yet; given back when dropped.
#[derive(Debug)]
pub(super) struct Incoming {
    budget: Arc<Budget>,
    seen: usize,
    /// From the first counted byte on.
    begun: Option<Arc<Begun>>,
}

impl Incoming {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self {
            budget,
            seen: 0,
            begun: None,
        }
    }

    /// Bytes that came since the message began.
    pub(super) fn seen(&self) -> usize {
        self.seen
    }

    /// Counts more of it. `false`: there is no room.
    #[must_use]
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        self.seen = self.seen.saturating_add(bytes);
        if self.seen <= UNCOUNTED {
            return true;
        }
        let begun = self.begun.get_or_insert_with(|| self.budget.begin());
        let (charged, refused) = {
            let state = begun.lock();
            (state.bytes, state.refused)
        };
        // Who has made room is not to take it from the next one.
        !refused
            && self
                .budget
                .take_for(begun, self.seen.saturating_sub(charged))
    }

    /// Whether the message has to make room for others; wakes the task when that happens.
    pub(super) fn poll_refused(&self, cx: &Context<'_>) -> bool {
        let Some(begun) = &self.begun else {
            return false;
        };
        let mut state = begun.lock();
        if !state.refused
            && !state
                .waker
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            state.waker = Some(cx.waker().clone());
        }
        state.refused
    }

    /// Takes back what turned out not to be a part of a message.
    pub(super) fn forget(&mut self, bytes: usize) {
        self.seen = self.seen.saturating_sub(bytes);
        let due = if self.seen > UNCOUNTED { self.seen } else { 0 };
        let Some(begun) = &self.begun else { return };
        let mut state = begun.lock();
        let less = state.bytes.saturating_sub(due);
        self.budget.sub(less);
        state.bytes -= less;
        state.moved = state
            .moved
            .map(|(moved, then)| (moved, then.saturating_sub(less)));
    }

    /// The whole message takes its share of the budget along: it is given back when the last slice
    /// of these bytes is gone, wherever the layer above keeps them. The next message begins at
    /// zero.
    pub(super) fn carry(&mut self, message: Bytes) -> Bytes {
        let charged = self.end();
        if charged == 0 {
            return message;
        }
        Bytes::from_owner(Carried {
            message,
            budget: self.budget.clone(),
            charged,
        })
    }

    /// Gives what is charged, which is now the caller's to give back.
    fn end(&mut self) -> usize {
        self.seen = 0;
        let Some(begun) = self.begun.take() else {
            return 0;
        };
        self.budget.begun().remove(&Arc::as_ptr(&begun).addr());
        std::mem::take(&mut begun.lock().bytes)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let charged = self.end();
        self.budget.sub(charged);
    }
}

struct Carried {
    message: Bytes,
    budget: Arc<Budget>,
    charged: usize,
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.budget.sub(self.charged);
    }
}

impl AsRef<[u8]> for Carried {
    fn as_ref(&self) -> &[u8] {
        &self.message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_messages_are_not_counted_and_large_ones_until_their_last_slice_is_gone() {
        let budget = Budget::new(10_000);
        let mut first = Incoming::new(budget.clone());
        assert!(first.grow(UNCOUNTED));
        assert_eq!(
            (budget.used(), first.carry(Bytes::from_static(b"small"))),
            (0, Bytes::from_static(b"small"))
        );
        assert!(first.grow(UNCOUNTED) && first.grow(1));
        assert_eq!(budget.used(), UNCOUNTED + 1);
        let slice = first.carry(Bytes::from_static(b"large")).slice(1..3);
        assert_eq!((&slice[..], budget.used()), (&b"ar"[..], UNCOUNTED + 1));
        drop(slice);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_is_not_a_message_is_forgotten() {
        let budget = Budget::new(10_000);
        let mut incoming = Incoming::new(budget.clone());
        for _ in 0..10_000 {
            assert!(incoming.grow(8));
            incoming.forget(8);
        }
        assert!(incoming.grow(5000) && incoming.grow(8));
        incoming.forget(8);
        assert_eq!(budget.used(), 5000);
        incoming.forget(5000);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn who_is_the_slowest_itself_is_refused_and_gives_back_what_it_had() {
        let budget = Budget::new(10_000);
        let (mut first, mut second) =
            (Incoming::new(budget.clone()), Incoming::new(budget.clone()));
        assert!(first.grow(6000));
        assert!(
            !first.grow(usize::MAX) && budget.used() == 6000,
            "no overflow"
        );
        let whole = first.carry(Bytes::from_static(b"whole"));
        assert!(!second.grow(5000), "a whole message stays");
        assert_eq!(budget.used(), 6000);
        assert!(first.grow(4000) && second.seen() == 5000);
        drop((first, second, whole));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn when_there_is_no_room_the_slowest_messages_that_are_not_whole_are_ended() {
        let budget = Budget::new(100_000);
        let [mut large, mut small, mut newcomer] =
            std::array::from_fn(|_| Incoming::new(budget.clone()));
        assert!(large.grow(70_000) && small.grow(20_000));
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let cx = Context::from_waker(&waker);
        // A long time ago, for a clock that is as coarse as the machine likes.
        for begun in [&large.begun, &small.begun].into_iter().flatten() {
            let moved = Instant::now()
                .checked_sub(Duration::from_secs(5))
                .expect("the machine runs longer");
            begun.lock().moved = Some((moved, 0));
        }
        assert!(
            !large.poll_refused(&cx) && !small.poll_refused(&cx) && !newcomer.poll_refused(&cx)
        );
        assert!(newcomer.grow(15_000), "the slowest pays");
        assert!(
            woken.0.load(Ordering::Relaxed) && large.poll_refused(&cx) && !small.poll_refused(&cx)
        );
        assert_eq!(budget.used(), 35_000);
        assert!(!large.grow(1), "it is over for this one");
        assert_eq!(budget.used(), 35_000);
        drop((large, small, newcomer));
        assert_eq!((budget.used(), budget.begun().len()), (0, 0));
    }

    #[test]
    fn a_byte_now_and_then_is_no_movement() {
        let budget = Budget::new(100_000);
        let mut incoming = Incoming::new(budget);
        assert!(incoming.grow(UNCOUNTED + 1));
        let moved = |incoming: &Incoming| {
            incoming
                .begun
                .as_ref()
                .and_then(|begun| begun.lock().moved)
                .map(|(_, then)| then)
        };
        assert!(incoming.grow(1) && incoming.grow(MOVEMENT - 2));
        assert_eq!(moved(&incoming), Some(UNCOUNTED + 1));
        assert!(incoming.grow(1));
        assert_eq!(moved(&incoming), Some(UNCOUNTED + 1 + MOVEMENT));
    }

    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}
