//! Who reads a consumer: one at a time. Who comes later takes over, if it may.
//!
//! A reading is over for good once somebody said so, and what is done through [`Seat::unless_over`]
//! is not done after that moment: who was taken over from gets nothing more, however late it
//! notices.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Why a reading is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// A newer reader took over.
    Taken,
    /// The consumer is defined differently now.
    Changed,
    /// The consumer was deleted.
    Gone,
    /// The reader itself wanted so, or has left.
    Left,
}

/// Whether somebody who comes takes over from those who read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Whoever reads has to go.
    TakeOver,
    /// Not at all when somebody reads.
    WhenFree,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    Busy,
    /// The consumer has ended.
    Over(Over),
}

/// The reader of one consumer.
#[derive(Debug, Default)]
pub struct Readers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    seat: Option<Arc<Seat>>,
    closed: Option<Over>,
}

/// One reader.
#[derive(Debug)]
pub struct Seat {
    id: u64,
    over: Mutex<Option<Over>>,
    sign: CancellationToken,
}

/// Dropped: the reading is over.
#[derive(Debug)]
pub struct Reading {
    readers: Arc<Readers>,
    pub seat: Arc<Seat>,
}

impl Readers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn begin(self: &Arc<Self>, wish: Wish) -> Result<Reading, Refused> {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let mut state = self.lock();
        if let Some(over) = state.closed {
            return Err(Refused::Over(over));
        }
        if let Some(seat) = &state.seat {
            match wish {
                Wish::WhenFree => return Err(Refused::Busy),
                Wish::TakeOver => seat.end(Over::Taken),
            }
        }
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        let seat = Arc::new(Seat {
            id,
            over: Mutex::default(),
            sign: CancellationToken::new(),
        });
        state.seat = Some(seat.clone());
        Ok(Reading {
            readers: self.clone(),
            seat,
        })
    }

    /// The consumer has ended: so has the reading, and none begins any more.
    pub fn close(&self, over: Over) {
        let mut state = self.lock();
        state.closed = Some(over);
        if let Some(seat) = state.seat.take() {
            seat.end(over);
        }
    }

    pub fn count(&self) -> usize {
        usize::from(self.lock().seat.is_some())
    }
}

impl Seat {
    fn over(&self) -> MutexGuard<'_, Option<Over>> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first reason stays.
    pub fn end(&self, why: Over) {
        self.over().get_or_insert(why);
        self.sign.cancel();
    }

    pub fn is_over(&self) -> Option<Over> {
        *self.over()
    }

    /// Waits until it is over.
    pub async fn ended(&self) {
        self.sign.cancelled().await;
    }

    /// Does something short, unless the reading is over; it does not become so meanwhile.
    pub fn unless_over<T>(&self, act: impl FnOnce() -> T) -> Result<T, Over> {
        let over = self.over();
        match *over {
            None => Ok(act()),
            Some(why) => Err(why),
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut state = self.readers.lock();
        state.seat.take_if(|seat| seat.id == self.seat.id);
        self.seat.end(Over::Left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_later_takes_over_or_waits_as_it_wishes() {
        let readers = Arc::new(Readers::default());
        let first = readers.begin(Wish::TakeOver).unwrap();
        assert_eq!(readers.begin(Wish::WhenFree).unwrap_err(), Refused::Busy);
        assert_eq!((readers.count(), first.seat.is_over()), (1, None));
        let newest = readers.begin(Wish::TakeOver).unwrap();
        assert_eq!(first.seat.is_over(), Some(Over::Taken));
        drop(first);
        assert_eq!(
            (readers.count(), newest.seat.is_over()),
            (1, None),
            "who was taken over from takes nobody along"
        );
        drop(newest);
        assert_eq!(readers.count(), 0);
        drop(readers.begin(Wish::WhenFree).unwrap());
    }

    #[test]
    fn nothing_is_done_for_a_reading_that_is_over_and_the_first_reason_stays() {
        let readers = Arc::new(Readers::default());
        let reading = readers.begin(Wish::TakeOver).unwrap();
        assert_eq!(reading.seat.unless_over(|| 7), Ok(7));
        readers.close(Over::Gone);
        reading.seat.end(Over::Left);
        assert_eq!(reading.seat.unless_over(|| 7), Err(Over::Gone));
        for wish in [Wish::TakeOver, Wish::WhenFree] {
            assert_eq!(readers.begin(wish).unwrap_err(), Refused::Over(Over::Gone));
        }
    }
}
