//! Waiting at the end of the log: what is new there is read once for all who wait, who then look in
//! memory whether it concerns them. Without that each commit would send thousands of waiting
//! requests to the disk, most of them for nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::App;
use super::error::ApiError;
use super::tail::{Filter, Page};
use crate::store::{Reader, StoreError};
use crate::tracker::{Event, ScriptHash};

/// Events that are remembered.
const KEPT: usize = 4096;
/// Events that are read at a time.
const PAGE: usize = 1000;

/// Whom the newest events concern.
#[derive(Debug)]
pub struct News(Arc<Mutex<Newest>>);

#[derive(Debug)]
struct Newest {
    /// All events after this number up to the other one are in the list.
    after: u64,
    to: u64,
    /// The script of each; `None`: blocks and reorgs.
    events: VecDeque<(u64, Option<ScriptHash>)>,
}

impl News {
    pub fn new(head: u64) -> Self {
        Self(Arc::new(Mutex::new(Newest {
            after: head,
            to: head,
            events: VecDeque::new(),
        })))
    }
}

impl Newest {
    /// Where a waiter is who has everything up to `after`, if nothing that it wants came since;
    /// `None`: it should look.
    fn place(&self, after: u64, filter: &Filter) -> Option<u64> {
        let from = self.events.partition_point(|(number, _)| *number <= after);
        let is_wanted = |(_, script): &(u64, Option<ScriptHash>)| match (script, &filter.scripts) {
            (None, _) => filter.blocks,
            (Some(_), None) => true,
            (Some(script), Some(scripts)) => scripts.contains(script),
        };
        (self.after <= after && !self.events.iter().skip(from).any(is_wanted))
            .then_some(self.to.max(after))
    }

    /// Reads on; true when that was to the end of the log.
    fn read(&mut self, reader: &Reader) -> Result<bool, StoreError> {
        let head = reader.snapshot().head()?;
        if self.to >= head {
            return Ok(true);
        }
        let events = reader.read_events(self.to, PAGE)?;
        let is_end = events.len() < PAGE;
        self.to = events.last().map_or(self.to, |(number, _)| *number);
        if is_end {
            // Numbers may be skipped: none of those up to the head is left.
            self.to = self.to.max(head);
        }
        let script = |(number, event): (u64, Event)| (number, event.kind.script().copied());
        self.events.extend(events.into_iter().map(script));
        while self.events.len() > KEPT {
            self.after = self
                .events
                .pop_front()
                .map_or(self.after, |(number, _)| number);
        }
        Ok(is_end)
    }
}

impl App {
    /// The next page with something in it, or an empty one when `enough` is over, the daemon stops,
    /// or there is more to look at.
    pub(super) async fn next_news(
        self: &Arc<Self>,
        mut after: u64,
        filter: &Filter,
        limit: usize,
        enough: impl Future<Output = ()>,
    ) -> Result<Page, ApiError> {
        let mut head = self.indexer.head();
        tokio::pin!(enough);
        loop {
            head.borrow_and_update();
            let wanted = filter.clone();
            let page = self
                .read(move |app| app.log_page(after, &wanted, limit))
                .await?;
            if !page.events.is_empty() || page.next < page.head {
                return Ok(page);
            }
            after = page.next;
            loop {
                let nothing = || Page {
                    events: Vec::new(),
                    next: after,
                    head: after,
                };
                tokio::select! {
                    biased;
                    () = &mut enough => return Ok(nothing()),
                    () = self.stop.cancelled() => return Ok(nothing()),
                    woken = head.changed() => if woken.is_err() { return Ok(nothing()) },
                }
                match self.nothing_new(after, filter).await? {
                    Some(place) => after = place,
                    None => break,
                }
            }
        }
    }

    /// Where a waiter is now who has everything up to `after`, if nothing new concerns it.
    async fn nothing_new(
        self: &Arc<Self>,
        after: u64,
        filter: &Filter,
    ) -> Result<Option<u64>, ApiError> {
        let mut newest = self.news.0.clone().lock_owned().await;
        if newest.to < after {
            // Nobody has waited for a while.
            *newest = Newest {
                after,
                to: after,
                events: VecDeque::new(),
            };
        }
        if newest.to >= *self.indexer.head().borrow() {
            return Ok(newest.place(after, filter));
        }
        let filter = filter.clone();
        self.read(move |app| {
            Ok(if newest.read(&app.reader)? {
                newest.place(after, &filter)
            } else {
                None
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_waiter_looks_only_at_what_concerns_it_or_is_not_remembered() {
        let script = |n: u8| ScriptHash([n; 32]);
        let wants = |n: u8, blocks| Filter {
            scripts: Some(Arc::new(HashSet::from([script(n)]))),
            blocks,
        };
        let newest = Newest {
            after: 10,
            to: 30,
            events: VecDeque::from([(12, Some(script(1))), (15, None), (20, Some(script(2)))]),
        };
        for (after, filter, place) in [
            (10, wants(3, false), Some(30)),
            (9, wants(3, false), None),
            (10, wants(1, false), None),
            (11, wants(1, false), None),
            (12, wants(1, false), Some(30)),
            (14, wants(1, true), None),
            (15, wants(1, true), Some(30)),
            (19, wants(2, false), None),
            (20, Filter::everything(), Some(30)),
            (19, Filter::everything(), None),
            (30, Filter::everything(), Some(30)),
            (31, Filter::everything(), Some(31)),
        ] {
            assert_eq!(newest.place(after, &filter), place, "{after} {filter:?}");
        }
    }
}
