//! Who reads a consumer: one at a time.
//!
//! A lease ends when somebody takes over or when the consumer ends, and what is done through
//! [`Lease::unless_ended`] is not done after that moment: who was taken over from is given nothing
//! more, however late it notices.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::wire::error::ApiError;

/// Why a reading has ended, or does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// Somebody reads it, and is not to be disturbed.
    Busy,
    /// A newer reader took over.
    Taken,
    /// The consumer is defined differently now.
    Changed,
    /// The consumer was deleted.
    Deleted,
}

impl EndReason {
    /// As the reader of the consumer `name` is told.
    pub fn error(self, name: &str) -> ApiError {
        match self {
            Self::Busy => ApiError::conflict(
                "consumer_busy",
                format!(
                    "Somebody reads {name} already; wait until that ends, or make a second consumer with PUT /consumers/<another name>, which gets the same events."
                ),
            ),
            Self::Taken => ApiError::conflict(
                "consumer_taken",
                format!("A newer reader of {name} took over; no more events of it come here."),
            ),
            Self::Changed => ApiError::conflict(
                "consumer_changed",
                format!("{name} is defined differently now, or begins elsewhere; read it anew."),
            ),
            Self::Deleted => ApiError::gone("consumer_gone", format!("{name} was deleted.")),
        }
    }
}

/// The leases of one consumer, of which the newest is good.
#[derive(Debug, Default)]
pub struct Leases(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Leases that there were.
    count: u64,
    holder: Option<(u64, CancellationToken)>,
    /// The consumer has ended.
    closed: Option<EndReason>,
}

/// Which lease of its consumer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseId(u64);

/// May read, until it is dropped or ends.
#[derive(Debug)]
pub struct Lease {
    leases: Arc<Leases>,
    id: u64,
    ended: CancellationToken,
}

impl Leases {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No call under the lock can leave the state half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever reads has to go.
    pub fn take_over(self: &Arc<Self>) -> Result<Lease, EndReason> {
        self.begin(true)
    }

    /// A lease, unless somebody has one.
    pub fn acquire(self: &Arc<Self>) -> Result<Lease, EndReason> {
        self.begin(false)
    }

    fn begin(self: &Arc<Self>, takes_over: bool) -> Result<Lease, EndReason> {
        let mut state = self.lock();
        if let Some(reason) = state.closed {
            return Err(reason);
        }
        if state.holder.is_some() && !takes_over {
            return Err(EndReason::Busy);
        }
        state.count = state.count.wrapping_add(1);
        let (id, ended) = (state.count, CancellationToken::new());
        if let Some((_, before)) = state.holder.replace((id, ended.clone())) {
            before.cancel();
        }
        Ok(Lease {
            leases: self.clone(),
            id,
            ended,
        })
    }

    /// The consumer has ended: so has the reading, and none begins any more.
    pub fn close(&self, reason: EndReason) {
        let mut state = self.lock();
        state.closed = Some(reason);
        if let Some((_, before)) = state.holder.take() {
            before.cancel();
        }
    }

    /// Why none begins any more.
    pub fn closed(&self) -> Option<EndReason> {
        self.lock().closed
    }

    /// Why what was read under this lease may not be acknowledged any more. Who left by itself may,
    /// until somebody else begins.
    pub fn ended(&self, LeaseId(id): LeaseId) -> Option<EndReason> {
        let state = self.lock();
        let is_newest = state.count == id;
        state
            .closed
            .or_else(|| (!is_newest).then_some(EndReason::Taken))
    }

    pub fn count(&self) -> usize {
        usize::from(self.lock().holder.is_some())
    }
}

impl Lease {
    fn reason(&self, state: &State) -> Option<EndReason> {
        let is_held = matches!(&state.holder, Some((holder, _)) if *holder == self.id);
        state
            .closed
            .or_else(|| (!is_held).then_some(EndReason::Taken))
    }

    pub fn id(&self) -> LeaseId {
        LeaseId(self.id)
    }

    pub fn has_ended(&self) -> Option<EndReason> {
        self.reason(&self.leases.lock())
    }

    /// Waits until it has ended.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        self.ended.clone().cancelled_owned()
    }

    /// Does something short, unless it has ended; it does not end meanwhile.
    pub fn unless_ended<T>(&self, act: impl FnOnce() -> T) -> Result<T, EndReason> {
        let state = self.leases.lock();
        self.reason(&state).map_or_else(|| Ok(act()), Err)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases
            .lock()
            .holder
            .take_if(|(holder, _)| *holder == self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_who_comes_later_takes_over_or_finds_it_busy() {
        let leases = Arc::new(Leases::default());
        let first = leases.take_over().unwrap();
        assert_eq!(leases.acquire().unwrap_err(), EndReason::Busy);
        assert_eq!((leases.count(), first.has_ended()), (1, None));
        let newest = leases.take_over().unwrap();
        assert_eq!(first.has_ended(), Some(EndReason::Taken));
        assert!(first.ended.is_cancelled() && !newest.ended.is_cancelled());
        drop(first);
        assert_eq!(
            (leases.count(), newest.has_ended()),
            (1, None),
            "who was taken over from takes nobody along"
        );
        drop(newest);
        assert_eq!(leases.count(), 0);
        drop(leases.acquire().unwrap());
    }

    #[test]
    fn lease_of_a_consumer_that_has_ended_does_nothing_and_none_begins() {
        let leases = Arc::new(Leases::default());
        let lease = leases.take_over().unwrap();
        assert_eq!(lease.unless_ended(|| 7), Ok(7));
        leases.close(EndReason::Deleted);
        assert!(lease.ended.is_cancelled());
        assert_eq!(lease.unless_ended(|| 7), Err(EndReason::Deleted));
        for begun in [leases.take_over(), leases.acquire()] {
            assert_eq!(begun.unwrap_err(), EndReason::Deleted);
        }
    }
}
