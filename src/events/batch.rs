//! Reading for a request: up to so many events, now or when there are some.

use std::sync::Arc;

use super::dispatch::Handle;
use super::filter::Selection;
use super::log::{Entry, EventLog, PageError};
use super::reader::{Given, Reader};

/// Numbers of the log that are looked at for one request: a selection that matches nothing must not
/// read the whole log at once.
const LOOK_MOST: u64 = 50_000;

/// Part of the log.
#[derive(Debug)]
pub struct Batch {
    /// What is wanted, in order.
    pub events: Vec<Arc<Entry>>,
    /// Nothing that is wanted is between the last event and this number.
    pub next: u64,
    /// Number of the last event in the log when this was read.
    pub head: u64,
}

/// What is to be read.
#[derive(Debug)]
pub struct Request {
    pub selection: Selection,
    pub after: u64,
    pub limit: usize,
}

/// Up to `limit` events after a number. When the log has none, waits for some until `enough` is
/// over, if there is one.
pub async fn read(
    log: &Arc<EventLog>,
    dispatch: &Handle,
    request: Request,
    enough: Option<impl Future<Output = ()>>,
) -> Result<Batch, PageError> {
    let Request {
        selection,
        after,
        limit,
    } = request;
    let mut reader = Reader::of_selection(log, dispatch, selection, after);
    if enough.is_some() {
        reader.follow().await.map_err(|_| PageError::Stopped)?;
    }
    let head = log.head();
    let end = reader.end_within(LOOK_MOST, head);
    let mut is_waiting = false;
    let enough = async {
        match enough {
            Some(enough) => enough.await,
            None => std::future::pending().await,
        }
    };
    let mut enough = std::pin::pin!(enough);
    let waits = |events: &[Arc<Entry>]| events.is_empty() && end >= head;
    let (mut events, can_wait) = (Vec::new(), reader.registration().is_known());
    while events.len() < limit {
        let given = tokio::select! {
            biased;
            given = reader.next() => given?,
            () = &mut enough => break,
        };
        match given {
            Given::Event(event) => {
                if std::mem::take(&mut is_waiting) {
                    // And what was written with it.
                    reader.put(log.head().max(reader.place()), ());
                }
                events.push(event);
            }
            Given::Item(()) if can_wait && waits(&events) => is_waiting = true,
            Given::Item(()) => break,
            Given::Lagged { .. } | Given::CaughtUp { .. } | Given::Notice(_) => {}
        }
    }
    Ok(Batch {
        events,
        next: reader.place(),
        // The store may be ahead of what was announced.
        head: log.head().max(reader.place()),
    })
}
