//! From what Redis or the primary answers to entries of a page.

use std::borrow::Cow;

use bitcoin::Network;
use bitcoin::hex::FromHex;
use serde::Deserialize;

use super::super::entry::Entry;
use super::super::problem::Problem;
use super::OlderPage;
use crate::events::{LogEntry, Topic};
use crate::store::Starts;
use crate::tracker::ScriptHash;
use crate::wire::request::descriptors::descriptor_id;
use crate::wire::{EncodedEvent, address, cursor};

/// What is needed of an event's data.
#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    address: Option<Cow<'a, str>>,
    #[serde(borrow)]
    descriptor_id: Option<Cow<'a, str>>,
    /// In seconds.
    timestamp: f64,
}

/// Of the stream.
pub fn of_stream(entry: &Entry<'_>, network: Network) -> Result<LogEntry, Problem> {
    let Entry {
        number,
        event,
        subject,
        data,
        ..
    } = *entry;
    let read = || {
        let time = serde_json::from_str::<Data<'_>>(data).ok()?.timestamp;
        page_entry(number, event, data, (topic(subject, network)?, time))
    };
    read().ok_or_else(|| strange(number))
}

fn strange(number: u64) -> Problem {
    Problem::OtherKeys {
        cause: format!("event {number} cannot be read"),
    }
}

fn page_entry(
    number: u64,
    event: &str,
    data: &str,
    (topic, seconds): (Topic, f64),
) -> Option<LogEntry> {
    let encoded = EncodedEvent::new(Cow::Owned(event.to_owned()), data).ok()?;
    let time = (seconds * 1000.0).round() as u64;
    Some(LogEntry::encoded_elsewhere(number, topic, time, encoded))
}

/// What [`Topic::of`] says where the event is written.
fn topic(subject: &str, network: Network) -> Option<Topic> {
    if subject.is_empty() {
        return Some(Topic::Blocks);
    }
    if let Ok(descriptor) = descriptor_id(subject) {
        return Some(Topic::Descriptor(descriptor));
    }
    if let Ok(known) = address::parse(subject, network) {
        return Some(Topic::Script(known.script));
    }
    // A script without an address is written in hex.
    let script = Vec::<u8>::from_hex(subject).ok()?;
    let script = bitcoin::ScriptBuf::from_bytes(script);
    Some(Topic::Script(ScriptHash::of(&script)))
}

/// A page of the primary after a number up to `head`, and the number to go on from, which is not
/// beyond `head` either. What is not of the log as we know it is left for later.
pub fn of_primary(
    page: &OlderPage,
    starts: &Starts,
    (after, head): (u64, u64),
    network: Network,
) -> Result<(Vec<LogEntry>, u64), Problem> {
    let (mut entries, mut last) = (Vec::with_capacity(page.events.len()), after);
    for event in &page.events {
        match cursor::read(starts, &event.cursor) {
            Ok(number) if number > last && number <= head => last = number,
            _ => return Ok((entries, last)),
        }
        let read = || {
            let data: Data<'_> = serde_json::from_str(&event.data).ok()?;
            let subject = data.address.or(data.descriptor_id).unwrap_or_default();
            let about = (topic(&subject, network)?, data.timestamp);
            page_entry(last, &event.event, &event.data, about)
        };
        entries.push(read().ok_or_else(|| strange(last))?);
    }
    let next = cursor::read(starts, &page.next).unwrap_or(last);
    Ok((entries, next.clamp(last, head.max(last))))
}
