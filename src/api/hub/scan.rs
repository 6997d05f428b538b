//! What is told beside the log: how history scans are doing.

use super::{Hub, ScanNews};
use crate::api::replay;
use crate::api::subscriptions::Topic;
use crate::store::StoreError;
use crate::tracker::ScanState;

impl Hub {
    /// Tells those who are live. Whoever is being told from the log is left out, and so is a queue
    /// that is half full: nobody lags because of this.
    pub(super) fn tell_scan(&self, news: &ScanNews) -> Result<(), StoreError> {
        if self.subscriptions.is_empty() || !(news.is_last || self.is_still_so(news)?) {
            return Ok(());
        }
        let topics = news.scripts.iter().map(|script| Topic::Script(*script));
        for socket in self.subscriptions.members_of(topics) {
            // One that cannot be told hears the next one.
            let _ = replay::offer(socket, &news.event);
        }
        Ok(())
    }

    /// Nobody has heard `scan_complete` or `unwatched`, which the log brings, and is then told of a
    /// scan that goes on.
    fn is_still_so(&self, news: &ScanNews) -> Result<bool, StoreError> {
        let row = self.reader.snapshot().scan(&news.scan)?;
        Ok(row.is_some_and(|row| {
            row.state == ScanState::Open && row.scripts as usize == news.scripts.len()
        }))
    }
}
