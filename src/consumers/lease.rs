//! Who reads a consumer: one at a time.
//!
//! A lease ends when somebody takes over or when the consumer ends, and what is done through
//! [`Lease::unless_ended`] is not done after that moment: who was taken over from is given nothing
//! more, however late it notices.

use std::sync::Arc;

use tokio::sync::watch;

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
pub struct Leases(watch::Sender<LeaseState>);

#[derive(Debug, Clone, Copy, Default)]
struct LeaseState {
    newest: LeaseId,
    /// The newest is held.
    is_held: bool,
    /// The consumer has ended.
    closed: Option<EndReason>,
}

impl LeaseState {
    /// Why what was read under this lease may not be acknowledged any more. Who left by itself may,
    /// until somebody else begins.
    fn ended(&self, id: LeaseId) -> Option<EndReason> {
        let taken = (self.newest != id).then_some(EndReason::Taken);
        self.closed.or(taken)
    }
}

/// Which lease of its consumer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaseId(u64);

/// May read, until it is dropped or ends.
#[derive(Debug)]
pub struct Lease {
    leases: Arc<Leases>,
    id: LeaseId,
}

impl Leases {
    /// Whoever reads has to go.
    pub fn take_over(self: &Arc<Self>) -> Result<Lease, EndReason> {
        self.begin(true)
    }

    /// A lease, unless somebody has one.
    pub fn acquire(self: &Arc<Self>) -> Result<Lease, EndReason> {
        self.begin(false)
    }

    fn begin(self: &Arc<Self>, takes_over: bool) -> Result<Lease, EndReason> {
        let mut begun = Err(EndReason::Busy);
        self.0.send_if_modified(|state| {
            if let Some(reason) = state.closed {
                begun = Err(reason);
            } else if takes_over || !state.is_held {
                let id = LeaseId(state.newest.0.wrapping_add(1));
                (state.newest, state.is_held, begun) = (id, true, Ok(id));
            }
            begun.is_ok()
        });
        let leases = self.clone();
        begun.map(|id| Lease { leases, id })
    }

    /// The consumer has ended: so has the reading, and none begins any more.
    pub fn close(&self, reason: EndReason) {
        self.0.send_modify(|state| {
            (state.closed, state.is_held) = (Some(reason), false);
        });
    }

    /// Why none begins any more.
    pub fn closed(&self) -> Option<EndReason> {
        self.0.borrow().closed
    }

    /// Why what was read under this lease may not be acknowledged any more.
    pub fn ended(&self, id: LeaseId) -> Option<EndReason> {
        self.0.borrow().ended(id)
    }

    pub fn count(&self) -> usize {
        usize::from(self.0.borrow().is_held)
    }
}

impl Lease {
    pub fn id(&self) -> LeaseId {
        self.id
    }

    pub fn has_ended(&self) -> Option<EndReason> {
        self.leases.ended(self.id)
    }

    /// Waits until it has ended.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let (mut state, id) = (self.leases.0.subscribe(), self.id);
        async move {
            let _ = state.wait_for(|state| state.ended(id).is_some()).await;
        }
    }

    /// Does something short, unless it has ended; it does not end meanwhile.
    pub fn unless_ended<T>(&self, act: impl FnOnce() -> T) -> Result<T, EndReason> {
        let state = self.leases.0.borrow();
        state.ended(self.id).map_or_else(|| Ok(act()), Err)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.0.send_if_modified(|state| {
            state.is_held &= state.newest != self.id;
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn is_told(lease: &Lease) -> bool {
        lease.ended().now_or_never().is_some()
    }

    #[test]
    fn lease_who_comes_later_takes_over_or_finds_it_busy() {
        let leases = Arc::new(Leases::default());
        let first = leases.take_over().unwrap();
        assert_eq!(leases.acquire().unwrap_err(), EndReason::Busy);
        assert_eq!((leases.count(), first.has_ended()), (1, None));
        let newest = leases.take_over().unwrap();
        assert_eq!(first.has_ended(), Some(EndReason::Taken));
        assert!(is_told(&first) && !is_told(&newest));
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
        assert!(is_told(&lease));
        assert_eq!(lease.unless_ended(|| 7), Err(EndReason::Deleted));
        for begun in [leases.take_over(), leases.acquire()] {
            assert_eq!(begun.unwrap_err(), EndReason::Deleted);
        }
    }
}
