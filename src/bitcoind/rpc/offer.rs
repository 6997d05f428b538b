//! What a node may offer or not.

use std::sync::atomic::{AtomicU8, Ordering};

const UNKNOWN: u8 = 0;
const OFFERED: u8 = 1;
const ABSENT: u8 = 2;

/// Whether the node offers something. Found out by asking once; a node that has offered it before
/// lacks just what was asked for now.
#[derive(Default)]
pub(super) struct Offer(AtomicU8);

impl Offer {
    pub(super) fn absent() -> Self {
        Self(AtomicU8::new(ABSENT))
    }

    pub(super) fn forget(&self) {
        self.0.store(UNKNOWN, Ordering::Relaxed);
    }

    pub(super) fn is_absent(&self) -> bool {
        self.0.load(Ordering::Relaxed) == ABSENT
    }

    pub(super) fn was_there(&self, there: bool) {
        let now = if there { OFFERED } else { ABSENT };
        let _ = self
            .0
            .compare_exchange(UNKNOWN, now, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_offered_once_is_not_forgotten_because_one_thing_is_missing() {
        let offer = Offer::default();
        offer.was_there(true);
        offer.was_there(false);
        assert!(!offer.is_absent());
        offer.forget();
        offer.was_there(false);
        assert!(offer.is_absent());
    }
}
