//! Telling one client from the log, at its own pace: after a cursor, or because it reads more
//! slowly than events come.
//!
//! # Laws
//!
//! 1. Such a client's queue is filled to a half at most, so that answers to what it asks still find
//!    room.
//! 2. It is given up only when it takes nothing at all for [`STALLED`]. Until then it costs its
//!    queue and a place in the log.
//! 3. Waiting is for its queue, not for a clock.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use super::hub::{Entry, PageError, Pages};
use crate::socketio::{CloseReason, Encoded, SendError, Socket};

/// A client that takes nothing for this long while something waits for it is closed.
pub const STALLED: Duration = Duration::from_secs(30);
/// As far as the log goes.
pub const END: u64 = u64::MAX;
/// How often we look whether it has taken something.
const LOOK: Duration = Duration::from_secs(5);

/// How much of a client's queue may still be used when it has room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    Quarter,
    /// For what is so large that it fits an empty queue only.
    Empty,
}

/// Waits until the client's queue has room. False when the client has left, or stalls and was
/// closed for that.
pub async fn room(socket: &Socket, room: Room) -> bool {
    let mut drained = pin!(socket.drained(match room {
        Room::Quarter => 4,
        Room::Empty => usize::MAX,
    }));
    let (mut taken, mut still) = (socket.taken(), Duration::ZERO);
    loop {
        tokio::select! {
            biased;
            () = &mut drained => return !socket.is_closed(),
            () = tokio::time::sleep(LOOK) => {}
        }
        if socket.is_closed() {
            return false;
        }
        let now = socket.taken();
        still = if now == taken {
            still.saturating_add(LOOK)
        } else {
            Duration::ZERO
        };
        taken = now;
        if still >= STALLED {
            tracing::info!(id = socket.id(), "closing a client that takes nothing");
            socket.close(CloseReason::SlowConsumer);
            return false;
        }
    }
}

/// Sends when there is room. False as above.
pub async fn send(socket: &Socket, event: &Encoded) -> bool {
    let mut wanted = Room::Quarter;
    loop {
        match socket.send(event) {
            Ok(()) => return true,
            Err(SendError::Full) => {}
            Err(_) => return false,
        }
        if !room(socket, std::mem::replace(&mut wanted, Room::Empty)).await {
            return false;
        }
    }
}

/// Offers the log after `at` to `tell`, which queues what is wanted of it or says that the queue is
/// full, until the end of the log is reached and the client has taken most of it, or up to a number
/// that is in the log, `until`. Then the number up to which that is done; `None` when the client
/// has left.
pub async fn send_log(
    pages: &Arc<Pages>,
    socket: &Socket,
    mut at: u64,
    until: u64,
    mut tell: impl FnMut(&Entry) -> Result<(), SendError>,
) -> Result<Option<u64>, PageError> {
    let mut wanted = Room::Quarter;
    loop {
        let page = pages.page(at).await?;
        let mut is_full = false;
        for entry in page
            .after(at)
            .iter()
            .take_while(|entry| entry.number <= until)
        {
            match tell(entry) {
                Ok(()) => (at, wanted) = (entry.number, Room::Quarter),
                Err(SendError::Full) => {
                    is_full = true;
                    break;
                }
                Err(_) => return Ok(None),
            }
        }
        // A kept page may have been the last one when it was read, and end before `until`.
        let is_last = page.is_last && !is_full && until == END;
        if !is_full {
            at = at.max(page.next.min(until));
        }
        drop(page);
        if at >= until {
            return Ok(Some(at));
        }
        if is_full || is_last {
            if !room(socket, wanted).await {
                return Ok(None);
            }
            wanted = Room::Empty;
        }
        if is_last {
            return Ok(Some(at));
        }
        if socket.is_closed() {
            return Ok(None);
        }
        tokio::task::yield_now().await;
    }
}

/// Queues an event if that leaves room for answers.
pub fn offer(socket: &Socket, event: &Encoded) -> Result<(), SendError> {
    if !socket.has_room() {
        return Err(SendError::Full);
    }
    socket.send(event)
}
