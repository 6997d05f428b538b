//! A page of the log: some events in a row, each encoded once, with the places of each topic.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use super::filter::{Topic, TopicFilter};
use crate::tracker::{Event, EventKind};
use crate::wire::{EncodedEvent, EventEncoder};

/// With up to this many topics a reader asks the page for the places of each.
const FEW: usize = 8;

/// One event of a page, shared by all readers.
pub struct LogEntry {
    pub number: u64,
    pub topic: Topic,
    /// In milliseconds since the Unix epoch.
    pub time: u64,
    /// `None`: it was encoded elsewhere.
    event: Option<Event>,
    encoded: OnceLock<Option<EncodedEvent>>,
    weight: usize,
}

impl fmt::Debug for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogEntry").field(&self.number).finish()
    }
}

impl LogEntry {
    /// Of the store.
    fn new(number: u64, event: Event) -> Self {
        Self {
            number,
            topic: Topic::of(&event.kind),
            time: event.time,
            weight: weight(&event),
            event: Some(event),
            encoded: OnceLock::new(),
        }
    }

    /// Of a stream, which has it as every subscriber gets it.
    pub fn encoded_elsewhere(number: u64, topic: Topic, time: u64, encoded: EncodedEvent) -> Self {
        Self {
            number,
            topic,
            time,
            event: None,
            weight: encoded.json().len(),
            encoded: OnceLock::from(Some(encoded)),
        }
    }

    /// `None`: it was encoded elsewhere.
    pub fn event(&self) -> Option<&Event> {
        self.event.as_ref()
    }

    /// What it takes, about.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// The event as every subscriber gets it. `None` cannot happen: it is our own JSON under our
    /// own names.
    pub fn encoded(&self, encoder: &EventEncoder) -> Option<&EncodedEvent> {
        let encode = || {
            encoder
                .encode(self.number, self.event.as_ref()?)
                .inspect_err(|cause| tracing::error!(self.number, %cause, "not encoded"))
                .ok()
        };
        self.encoded.get_or_init(encode).as_ref()
    }
}

/// What an event takes as it is and encoded, about. Only a list of transactions can be long: a
/// block may pay one address in each of its own.
pub(super) fn weight(event: &Event) -> usize {
    let transactions = if let EventKind::NewTransactions { transactions, .. } = &event.kind {
        transactions.len()
    } else {
        1
    };
    transactions.saturating_add(1).saturating_mul(600)
}

/// All events after one number up to another.
pub struct Page {
    pub(super) after: u64,
    /// The last number that is looked at here. Numbers may be skipped, so it need not be an
    /// event's.
    pub next: u64,
    pub(super) bytes: usize,
    entries: Vec<Arc<LogEntry>>,
    topics: HashMap<Topic, Vec<Arc<LogEntry>>>,
}

impl Page {
    pub(super) fn of_events(after: u64, next: u64, events: Vec<(u64, Event)>) -> Self {
        let entries = events.into_iter();
        Self::new(
            after,
            next,
            entries.map(|(number, event)| LogEntry::new(number, event)),
        )
    }

    pub fn new(after: u64, next: u64, all: impl IntoIterator<Item = LogEntry>) -> Self {
        let mut topics: HashMap<Topic, Vec<Arc<LogEntry>>> = HashMap::new();
        let (mut entries, mut bytes) = (Vec::new(), 0_usize);
        for entry in all {
            bytes = bytes.saturating_add(entry.weight);
            let entry = Arc::new(entry);
            topics.entry(entry.topic).or_default().push(entry.clone());
            entries.push(entry);
        }
        Self {
            after,
            next,
            bytes,
            entries,
            topics,
        }
    }

    /// The events after this number.
    pub fn entries_after(&self, number: u64) -> &[Arc<LogEntry>] {
        let start = self.entries.partition_point(|entry| entry.number <= number);
        self.entries.get(start..).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn covers(&self, number: u64) -> bool {
        (self.after..self.next).contains(&number)
    }

    /// The first event after `number` that the filter wants.
    pub(super) fn next_wanted(
        &self,
        number: u64,
        filter: &TopicFilter<'_>,
    ) -> Option<&Arc<LogEntry>> {
        let of = |topic: &Topic, from: u64| {
            let entries = self.topics.get(topic)?;
            entries.get(entries.partition_point(|it| it.number <= from.max(number)))
        };
        match filter {
            // The usual case: one payment, one address.
            TopicFilter::Topics(topics) if topics.len() <= FEW && self.entries.len() <= FEW => {
                let is_wanted = |entry: &&Arc<LogEntry>| {
                    let is_wanted = |(topic, from): (&Topic, &u64)| {
                        *topic == entry.topic && entry.number > *from.max(&number)
                    };
                    topics.iter().any(is_wanted)
                };
                self.entries.iter().find(is_wanted)
            }
            TopicFilter::Topics(topics) if topics.len() <= FEW => topics
                .iter()
                .filter_map(|(topic, from)| of(topic, *from))
                .min_by_key(|entry| entry.number),
            TopicFilter::Selection(selection) if selection.names().is_some_and(|it| it <= FEW) => {
                let first = selection.topics().filter_map(|topic| of(&topic, 0));
                first.min_by_key(|entry| entry.number)
            }
            filter => {
                let mut later = self.entries_after(number).iter();
                later.find(|entry| filter.wants(&entry.topic, entry.number))
            }
        }
    }
}
