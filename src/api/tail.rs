//! Reading on in the event log: what part of it somebody wants, and a page of that. Waiting for
//! more is in `super::news`.
//!
//! Everything that sends events but the live subscribers of the hub reads through here: `GET
//! /events`, replays, consumers, webhooks.

use std::collections::HashSet;
use std::sync::Arc;

use super::App;
use super::error::ApiError;
use crate::tracker::{Event, EventKind, ScriptHash};

/// Entries of the log that are looked at for one page: a filter that matches nothing must not read
/// the whole log at once.
const SCAN_MOST: usize = 50_000;

/// What of the log somebody wants.
#[derive(Debug, Clone)]
pub struct Filter {
    /// `None`: those of every script.
    pub scripts: Option<Arc<HashSet<ScriptHash>>>,
    /// Blocks and reorgs.
    pub blocks: bool,
}

impl Filter {
    pub fn everything() -> Self {
        Self {
            scripts: None,
            blocks: true,
        }
    }

    pub fn wants(&self, kind: &EventKind) -> bool {
        match kind.script() {
            None => self.blocks,
            Some(script) => self
                .scripts
                .as_ref()
                .is_none_or(|scripts| scripts.contains(script)),
        }
    }
}

/// Part of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// What is wanted, with its numbers.
    pub events: Vec<(u64, Event)>,
    /// The last number that was looked at: nothing that is wanted is between the last event and it.
    pub next: u64,
    /// Number of the last event when this was read.
    pub head: u64,
}

impl App {
    /// Up to `limit` events that are wanted, after number `after`. Blocks the thread. Whether
    /// retention has taken what followed `after` is for the caller to ask afterwards
    /// ([`App::expired`]).
    pub(super) fn log_page(
        &self,
        after: u64,
        filter: &Filter,
        limit: usize,
    ) -> Result<Page, ApiError> {
        let head = self.reader.snapshot().head()?;
        let mut page = Page {
            events: Vec::new(),
            next: after,
            head,
        };
        let mut looked_at = 0;
        while looked_at < SCAN_MOST {
            let events = self.reader.read_events(page.next, limit)?;
            let more = events.len() == limit;
            looked_at = events.len().saturating_add(looked_at);
            for (number, event) in events {
                if number > head || page.events.len() == limit {
                    return Ok(page);
                }
                page.next = number;
                if filter.wants(&event.kind) {
                    page.events.push((number, event));
                }
            }
            if !more {
                // Numbers may be skipped: none of those up to the head is left.
                page.next = page.next.max(head);
                return Ok(page);
            }
        }
        Ok(page)
    }

    /// Whether retention has taken an event after this number.
    pub(super) fn expired(&self, after: u64) -> Result<bool, ApiError> {
        Ok(after.saturating_add(1) < self.reader.first_seq()?)
    }
}
