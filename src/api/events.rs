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
use super::hub::Wire;
use super::json;
use super::respond::{self, Answer};
use super::tail::Filter;
use crate::tracker::Event;

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MOST: usize = 1000;
const WAIT_MOST: usize = 60;

#[derive(Serialize)]
struct Entry {
    cursor: String,
    event: &'static str,
    data: Box<RawValue>,
}

/// Events as entries of an answer.
fn entries(wire: &Wire, events: &[(u64, Event)]) -> Result<Vec<Entry>, ApiError> {
    let entry = |(number, event): &(u64, Event)| {
        let cursor = wire.cursor(*number);
        let (event, data) = json::event(event, cursor.clone(), wire.network);
        let data = RawValue::from_string(data).map_err(|cause| ApiError::internal(&cause))?;
        Ok(Entry { cursor, event, data })
    };
    events.iter().map(entry).collect()
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
        if self.expired(cursor.number)? {
            let message = "Events after this cursor were deleted (events.retention_days). Take the balance anew (GET /balance/{address} or subscribe_address) and go on from the cursor beside it.";
            return Err(ApiError::new(StatusCode::GONE, "cursor_expired", message));
        }
        Ok(cursor.number)
    }

    /// `GET /events?after=&address=&limit=&wait=`; `address` may be repeated.
    pub(super) async fn events(self: &Arc<Self>, query: &Query) -> Result<Answer, ApiError> {
        if let Some(name) = query.get("consumer") {
            return self.consumer_events(name, query).await;
        }
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
        let filter = match scripts.is_empty() {
            true => Filter::everything(),
            false => Filter { scripts: Some(Arc::new(scripts)), blocks: false },
        };
        let enough = tokio::time::sleep(Duration::from_secs(wait as u64));
        let page = self.next_log_page(after, &filter, limit, enough).await?;
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
        Ok(respond::json(StatusCode::OK, &Events { events: entries(&self.wire, &page.events)?, next, head }))
    }
}
