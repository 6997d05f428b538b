//! What is kept of recoverable clients, so that a lost one comes back to its subscriptions: pure
//! bookkeeping, owned by the hub.
//!
//! Missed events come from the log. A client's offset is `<cursor>.<mark>`: all events of its
//! subscriptions up to the cursor have reached it, and the mark names the subscriptions it knows
//! of. Every change of them gives a new mark, with the last packet that the change sends; until
//! then the offset has `?`. So a client that was lost in the middle of a change, or before it heard
//! of the end, is not recovered: it and we would not mean the same subscriptions. It subscribes
//! again, with the last cursor it has.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::subscriptions::Topic;

/// The mark of a client that has never subscribed to anything.
pub const NOTHING: u64 = 0;
/// No mark: the subscriptions are changing.
const CHANGING: u64 = u64::MAX;
/// Topics that are kept of all lost clients together, some 40 bytes each.
const LOST_TOPICS: usize = 1_000_000;

/// Where a client stands.
pub fn offset(cursor: &str, mark: u64) -> String {
    match mark {
        CHANGING => format!("{cursor}.?"),
        mark => format!("{cursor}.{mark}"),
    }
}

/// The offset while the subscriptions change.
pub fn changing(cursor: &str) -> String {
    offset(cursor, CHANGING)
}

/// Cursor and mark; `None` when there is nothing to recover from.
pub fn parse(offset: &str) -> Option<(&str, u64)> {
    let (cursor, mark) = offset.rsplit_once('.')?;
    let mark = mark.parse().ok().filter(|&mark| mark != CHANGING)?;
    Some((cursor, mark))
}

/// The current mark of a client, shared with the one who tells it events.
pub type Mark = Arc<AtomicU64>;

/// The recoverable clients that have ever subscribed to something, by their public id.
#[derive(Debug)]
pub struct Recoverable {
    clients: HashMap<Box<str>, Client>,
    last_mark: u64,
    /// Of the lost ones.
    topics: usize,
    max_topics: usize,
}

#[derive(Debug)]
struct Client {
    /// Its socket's key; `None` when it is lost.
    key: Option<u64>,
    mark: Mark,
    /// What it was subscribed to when it was lost.
    topics: Vec<Topic>,
}

impl Default for Recoverable {
    fn default() -> Self {
        Self {
            clients: HashMap::new(),
            last_mark: NOTHING,
            topics: 0,
            max_topics: LOST_TOPICS,
        }
    }
}

impl Recoverable {
    /// The client's subscriptions begin to change.
    pub fn begin_change(&mut self, id: &str, key: u64) {
        let fresh = || Client {
            key: Some(key),
            mark: Mark::default(),
            topics: Vec::new(),
        };
        let client = self.clients.entry(id.into()).or_insert_with(fresh);
        if client.key == Some(key) {
            client.mark.store(CHANGING, Ordering::Relaxed);
        }
    }

    /// A change is over: the new mark.
    pub fn end_change(&mut self, id: &str, key: u64) -> Option<Mark> {
        let client = self
            .clients
            .get_mut(id)
            .filter(|client| client.key == Some(key))?;
        self.last_mark = self.last_mark.saturating_add(1);
        client.mark.store(self.last_mark, Ordering::Relaxed);
        Some(client.mark.clone())
    }

    /// The key of the socket that the client was last seen with, if nobody said yet that it was
    /// lost.
    pub fn key(&self, id: &str) -> Option<u64> {
        self.clients.get(id)?.key
    }

    /// The client with this socket was lost, with these subscriptions.
    pub fn lose(&mut self, id: &str, key: u64, topics: Vec<Topic>) {
        let Some(client) = self
            .clients
            .get_mut(id)
            .filter(|client| client.key == Some(key))
        else {
            return;
        };
        client.key = None;
        match self
            .topics
            .checked_add(topics.len())
            .filter(|&sum| sum <= self.max_topics)
        {
            Some(sum) => {
                self.topics = sum;
                client.topics = topics;
            }
            None => client.mark.store(CHANGING, Ordering::Relaxed),
        }
    }

    /// What a lost client was subscribed to, if `mark` says that it knows.
    pub fn topics(&self, id: &str, mark: u64) -> Option<Vec<Topic>> {
        match self.clients.get(id) {
            None => (mark == NOTHING).then(Vec::new),
            Some(client) => (client.key.is_none() && client.mark.load(Ordering::Relaxed) == mark)
                .then(|| client.topics.clone()),
        }
    }

    /// The client is back with a new socket: its subscriptions, and the mark it still has.
    pub fn come_back(&mut self, id: &str, key: u64) -> Option<(Vec<Topic>, Mark)> {
        let client = self
            .clients
            .get_mut(id)
            .filter(|client| client.key.is_none())?;
        client.key = Some(key);
        self.topics = self.topics.saturating_sub(client.topics.len());
        Some((std::mem::take(&mut client.topics), client.mark.clone()))
    }

    /// The client cannot come back.
    pub fn forget(&mut self, id: &str) {
        if let Some(client) = self.clients.remove(id) {
            self.topics = self.topics.saturating_sub(client.topics.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_read_back_unless_the_subscriptions_were_changing() {
        assert_eq!(parse(&offset("5fa3-17", 4)), Some(("5fa3-17", 4)));
        assert_eq!(parse(&offset("5fa3-17", NOTHING)), Some(("5fa3-17", 0)));
        for text in [
            &offset("5fa3-17", CHANGING),
            "5fa3-17.18446744073709551615",
            "",
            ".",
            "5fa3-17",
            "5fa3-17.",
            "5fa3-17.x",
            "5fa3-17.-1",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_client_comes_back_to_the_subscriptions_that_it_knows_of() {
        let mut clients = Recoverable::default();
        assert_eq!(
            clients.topics("a", NOTHING),
            Some(Vec::new()),
            "one that never subscribed"
        );
        assert_eq!(clients.topics("a", 1), None);
        clients.begin_change("a", 7);
        let first = clients.end_change("a", 7).unwrap().load(Ordering::Relaxed);
        clients.begin_change("a", 7);
        let second = clients.end_change("a", 7).unwrap().load(Ordering::Relaxed);
        assert_eq!(clients.topics("a", second), None, "it is not lost yet");
        clients.lose("a", 6, Vec::new());
        assert_eq!(
            clients.key("a"),
            Some(7),
            "another socket is none of its business"
        );
        clients.lose("a", 7, vec![Topic::Blocks]);
        assert_eq!(
            (clients.topics("a", NOTHING), clients.topics("a", first)),
            (None, None)
        );
        assert_eq!(clients.topics("a", second), Some(vec![Topic::Blocks]));
        assert_eq!(clients.come_back("a", 8).unwrap().0, [Topic::Blocks]);
        assert_eq!((clients.key("a"), clients.topics), (Some(8), 0));
        clients.begin_change("a", 8);
        clients.lose("a", 8, vec![Topic::Blocks]);
        assert_eq!(
            clients.topics("a", second),
            None,
            "its subscriptions were changing"
        );
        clients.forget("a");
        assert_eq!((clients.clients.len(), clients.topics), (0, 0));
    }

    #[test]
    fn beyond_the_bound_a_client_is_not_kept() {
        let mut clients = Recoverable {
            max_topics: 3,
            ..Recoverable::default()
        };
        let mut lose = |id: &str, count: usize| {
            clients.begin_change(id, 1);
            let mark = clients.end_change(id, 1).unwrap().load(Ordering::Relaxed);
            clients.lose(id, 1, vec![Topic::Blocks; count]);
            clients.topics(id, mark).is_some()
        };
        assert_eq!(
            (lose("a", 2), lose("b", 2), lose("c", 1), lose("d", 0)),
            (true, false, true, true)
        );
        clients.forget("a");
        assert_eq!(clients.topics, 1);
    }
}
