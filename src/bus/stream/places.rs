//! Places of the log that clients were told of by the primary; they may be beyond the stream's end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::source::Known;
use crate::store::Starts;
use crate::wire::cursor;

/// Cheap to clone; all clones know the same.
#[derive(Debug, Clone)]
pub struct PlacesTold {
    known: watch::Receiver<Known>,
    /// Number and cursor of the last one.
    newest: Arc<Mutex<Option<(u64, String)>>>,
}

impl PlacesTold {
    pub(super) fn new(known: watch::Receiver<Known>) -> Self {
        let newest = Arc::default();
        Self { known, newest }
    }

    fn newest(&self) -> MutexGuard<'_, Option<(u64, String)>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a place that a client is about to be told of, once the stream says that it is
    /// of its log; `None`: the log ends. From then on a stream that is not of a log with this place
    /// is of another log.
    pub async fn tell(&self, text: &str) -> Option<u64> {
        let mut known = self.known.clone();
        loop {
            let number = |known: &Known| cursor::read(&known.starts, text).ok();
            let found = number(&known.borrow_and_update());
            if let Some(found) = found {
                self.note(found, text);
                // Who looks at other starts meanwhile sees it, or we see these.
                if number(&known.borrow()).is_some() {
                    return Some(found);
                }
            }
            known.changed().await.ok()?;
        }
    }

    fn note(&self, number: u64, text: &str) {
        let mut newest = self.newest();
        if newest.as_ref().is_none_or(|(before, _)| *before < number) {
            *newest = Some((number, text.to_owned()));
        }
    }

    /// Whether all of them are of the log with these starts.
    pub(super) fn are_of(&self, starts: &Starts) -> bool {
        let newest = self.newest();
        let is_of = |(_, text): &(u64, String)| cursor::read(starts, text).is_ok();
        newest.as_ref().is_none_or(is_of)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn known(parts: &[(&str, u64, u64)]) -> Known {
        let parts = parts
            .iter()
            .map(|(id, first, held)| ((*id).to_owned(), *first, *held));
        let starts = Starts::from_parts(parts).expect("the starts of a log");
        Known {
            stream: 1,
            starts: Arc::new(starts),
        }
    }

    #[tokio::test]
    async fn a_place_is_told_once_its_log_is_that_of_the_stream_and_binds_it() {
        let (sender, receiver) = watch::channel(known(&[("a", 0, 0)]));
        let places = PlacesTold::new(receiver);
        assert_eq!(places.tell("a-7").await, Some(7));
        let mut later = Box::pin(places.tell("b-9"));
        assert!(later.as_mut().now_or_never().is_none());
        sender.send_replace(known(&[("a", 0, 0), ("b", 9, 8)]));
        assert_eq!(later.await, Some(9));
        assert_eq!(places.tell("a-3").await, Some(3), "binds to nothing new");
        for (parts, are) in [
            (&[("a", 0, 0), ("b", 9, 8), ("c", 12, 11)][..], true),
            (&[("a", 0, 0), ("c", 9, 8)], false),
            (&[("a", 0, 0), ("b", 9, 8), ("c", 20, 9)], true),
        ] {
            assert_eq!(places.are_of(&known(parts).starts), are, "{parts:?}");
        }
        let never = places.tell("x-1");
        drop(sender);
        assert_eq!(never.await, None);
    }
}
