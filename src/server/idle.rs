//! Whether a connection has a request in work, and when it last did something.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Limits;
use super::usage::UnfinishedPlace;

#[derive(Debug)]
pub(super) struct IdleTracker {
    accepted: Instant,
    /// Requests in work.
    working: AtomicUsize,
    /// Milliseconds from `accepted` to the last step of an answer plus one; 0 before the first
    /// request.
    answered: AtomicU64,
    /// Until the first request has come.
    unfinished: Mutex<Option<UnfinishedPlace>>,
}

/// A request in work, until it is dropped.
#[derive(Debug)]
pub(super) struct OpenRequest(Arc<IdleTracker>);

/// Its answer, which is on its way to the client.
#[derive(Debug)]
pub(super) struct Writing(Arc<IdleTracker>);

impl IdleTracker {
    pub(super) fn new(accepted: Instant, unfinished: UnfinishedPlace) -> Self {
        Self {
            accepted,
            working: AtomicUsize::new(0),
            answered: AtomicU64::new(0),
            unfinished: Mutex::new(Some(unfinished)),
        }
    }

    pub(super) fn begin(this: &Arc<Self>) -> OpenRequest {
        this.working.fetch_add(1, Ordering::AcqRel);
        let place = this.unfinished.lock();
        drop(place.unwrap_or_else(PoisonError::into_inner).take());
        OpenRequest(this.clone())
    }

    pub(super) fn had_a_request(&self) -> bool {
        self.answered.load(Ordering::Acquire) > 0 || self.working.load(Ordering::Acquire) > 0
    }

    /// When the connection is to end if nothing happens until then; at least one more idle time
    /// away while a request is in work.
    pub(super) fn deadline(&self, limits: &Limits) -> Instant {
        if self.working.load(Ordering::Acquire) > 0 {
            return Instant::now() + limits.idle_time;
        }
        match self.answered.load(Ordering::Acquire) {
            0 => self.accepted + limits.header_time,
            answered => self.accepted + Duration::from_millis(answered) + limits.idle_time,
        }
    }

    fn moved(&self) {
        let elapsed = u64::try_from(self.accepted.elapsed().as_millis()).unwrap_or(u64::MAX / 2);
        self.answered
            .fetch_max(elapsed.saturating_add(1), Ordering::AcqRel);
    }
}

impl OpenRequest {
    /// The handler is done.
    pub(super) fn write(self) -> Writing {
        Writing(self.0.clone())
    }
}

impl Writing {
    /// The connection has taken another part of the answer.
    pub(super) fn moved(&self) {
        self.0.moved();
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.moved();
        self.0.working.fetch_sub(1, Ordering::AcqRel);
    }
}
