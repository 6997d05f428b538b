//! `GET /events`: the log, oldest first, the same bytes as the socket's; and what a client's cursor means.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;

use super::App;
use super::cursor::Cursor;
use super::error::ApiError;
use super::fields::Query;
use super::json;
use super::respond::{self, Answer};
use crate::tracker::ScriptHash;

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MOST: usize = 1000;
/// Entries of the log that one request looks at: a filter that matches nothing must not read the whole log at once.
const SCAN_MOST: usize = 50_000;
const WAIT_MOST: usize = 60;

#[derive(Serialize)]
struct Entry {
    cursor: String,
    event: &'static str,
    data: Box<RawValue>,
}

/// Part of the log.
struct Page {
    entries: Vec<Entry>,
    /// The last number that was looked at: nothing that matches is between the last entry and it.
    next: u64,
    head: u64,
}

impl App {
    /// Where in the log a client's cursor stands.
    pub(super) fn place(&self, text: &str) -> Result<u64, ApiError> {
        let malformed = || ApiError::bad_request("invalid_cursor", "This is not a cursor; send one as an event or an answer carried it.");
        let cursor = Cursor::parse(text).ok_or_else(malformed)?;
        if cursor.log != &*self.wire.log || cursor.number > self.reader.snapshot().head()? {
            let message = "This cursor is of another event log (the store was replaced). Take the balance anew (GET /balance/{address} or subscribe_address) and go on from the cursor beside it.";
            return Err(ApiError::new(StatusCode::GONE, "cursor_unknown", message));
        }
        if cursor.number.saturating_add(1) < self.reader.first_seq()? {
            let message = "Events after this cursor were deleted (events.retention_days). Take the balance anew (GET /balance/{address} or subscribe_address) and go on from the cursor beside it.";
            return Err(ApiError::new(StatusCode::GONE, "cursor_expired", message));
        }
        Ok(cursor.number)
    }

    /// `GET /events?after=&address=&limit=&wait=`; `address` may be repeated.
    pub(super) async fn events(self: &Arc<Self>, query: &Query) -> Result<Answer, ApiError> {
        let limit = query.whole("limit", LIMIT_DEFAULT, 1..=LIMIT_MOST)?;
        let wait = query.whole("wait", 0, 0..=WAIT_MOST)?;
        let mut scripts = HashSet::new();
        for address in query.all("address") {
            let address = self.address(address)?;
            if self.reader.snapshot().watch(&address.script)?.is_none() {
                return Err(ApiError::not_watched(&address.text));
            }
            scripts.insert(address.script);
        }
        let after = match query.get("after") {
            Some(text) => self.place(text)?,
            None => self.reader.first_seq()?.saturating_sub(1),
        };
        let page = self.wait_for_events(after, scripts, limit, Duration::from_secs(wait as u64)).await?;
        if let Some(text) = query.get("after") {
            // Retention may have taken some while we looked.
            self.place(text)?;
        }

        #[derive(Serialize)]
        struct Events {
            events: Vec<Entry>,
            next: String,
            head: String,
        }
        let (next, head) = (self.wire.cursor(page.next), self.wire.cursor(page.head));
        Ok(respond::json(StatusCode::OK, &Events { events: page.entries, next, head }))
    }

    /// The first page with something in it, or an empty one when `wait` is over, the daemon stops, or there is more to look at.
    async fn wait_for_events(
        self: &Arc<Self>,
        mut after: u64,
        scripts: HashSet<ScriptHash>,
        limit: usize,
        wait: Duration,
    ) -> Result<Page, ApiError> {
        let scripts = Arc::new(scripts);
        let mut head = self.indexer.head();
        let over = tokio::time::sleep(wait);
        tokio::pin!(over);
        loop {
            head.borrow_and_update();
            let wanted = scripts.clone();
            let page = self.read(move |app| app.events_after(after, &wanted, limit)).await?;
            if !page.entries.is_empty() || page.next < page.head || wait.is_zero() {
                return Ok(page);
            }
            after = page.next;
            tokio::select! {
                () = &mut over => return Ok(page),
                () = self.stop.cancelled() => return Ok(page),
                woken = head.changed() => if woken.is_err() { return Ok(page) },
            }
        }
    }

    fn events_after(&self, after: u64, scripts: &HashSet<ScriptHash>, limit: usize) -> Result<Page, ApiError> {
        let head = self.reader.snapshot().head()?;
        let mut page = Page { entries: Vec::new(), next: after, head };
        let mut looked_at = 0;
        while looked_at < SCAN_MOST {
            let events = self.reader.read_events(page.next, limit)?;
            let more = events.len() == limit;
            looked_at = events.len().saturating_add(looked_at);
            for (number, event) in events {
                if number > head || page.entries.len() == limit {
                    return Ok(page);
                }
                page.next = number;
                if scripts.is_empty() || event.kind.script().is_some_and(|script| scripts.contains(script)) {
                    let cursor = self.wire.cursor(number);
                    let (event, data) = json::event(&event, cursor.clone(), self.wire.network);
                    let data = RawValue::from_string(data).map_err(|cause| ApiError::internal(&cause))?;
                    page.entries.push(Entry { cursor, event, data });
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
}
