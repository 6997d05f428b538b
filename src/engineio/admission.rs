//! Whether the layer above has let a session's client in, and how much the client may send until
//! then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::budget::UNCOUNTED;

/// Of one session: told by its `Outbox`, kept to by the registry and the transports.
#[derive(Debug)]
pub(super) struct Admission {
    /// Of one message or body, as the client was told when the session opened.
    max_payload: usize,
    is_let_in: AtomicBool,
    small_until_let_in: AtomicBool,
}

impl Admission {
    pub(super) fn new(max_payload: usize) -> Arc<Self> {
        Arc::new(Self {
            max_payload,
            is_let_in: AtomicBool::new(false),
            small_until_let_in: AtomicBool::new(false),
        })
    }

    pub(super) fn let_in(&self) {
        self.is_let_in.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_let_in(&self) -> bool {
        self.is_let_in.load(Ordering::Relaxed)
    }

    pub(super) fn small_until_let_in(&self) {
        self.small_until_let_in.store(true, Ordering::Relaxed);
    }

    /// Whether the client may send only what the budget of all clients does not count.
    pub(super) fn is_held_small(&self) -> bool {
        self.small_until_let_in.load(Ordering::Relaxed) && !self.is_let_in()
    }

    /// Bytes of one message or body, now.
    pub(super) fn max_payload(&self) -> usize {
        match self.is_held_small() {
            true => self.max_payload.min(UNCOUNTED),
            false => self.max_payload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_let_in_may_send_little_if_the_layer_above_wants_it_so() {
        let admission = Admission::new(10_000);
        assert_eq!(
            (admission.max_payload(), admission.is_let_in()),
            (10_000, false)
        );
        admission.small_until_let_in();
        assert_eq!(admission.max_payload(), UNCOUNTED);
        admission.let_in();
        assert_eq!(
            (admission.max_payload(), admission.is_let_in()),
            (10_000, true)
        );
        let short = Admission::new(100);
        short.small_until_let_in();
        assert_eq!(short.max_payload(), 100);
    }
}
