//! Events: what a subscriber gets, and what `GET /events` shows.

use bitcoin::Network;
use serde::Serialize;

use super::{Block, Btc, Transaction, object, phase, seconds, to_text};
use crate::tracker::{Cause, Derivation, Event, EventKind, Keychain, Subject};
use crate::wire::address::script;

/// What an event is about: an address, or a descriptor in its place. An address that is of
/// descriptors says of which, and if it is of one, by fields of its own, too.
#[derive(Serialize)]
struct SubjectShape {
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    descriptor_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keychain: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    owners: Vec<OwnerShape>,
}

#[derive(Serialize)]
struct OwnerShape {
    descriptor_id: String,
    keychain: &'static str,
    index: u32,
}

impl OwnerShape {
    fn new(place: &Derivation) -> Self {
        Self {
            descriptor_id: place.descriptor.to_string(),
            keychain: keychain(place.keychain),
            index: place.index,
        }
    }
}

impl SubjectShape {
    fn new(subject: &Subject, network: Network) -> Self {
        let (address, derivations) = match subject {
            Subject::Script {
                spk, derivations, ..
            } => (Some(script::text(spk, network)), &derivations[..]),
            Subject::Descriptor(_) => (None, &[][..]),
        };
        let descriptor_id = match (subject, derivations) {
            (Subject::Descriptor(descriptor), _) => Some(descriptor.to_string()),
            (_, [only]) => Some(only.descriptor.to_string()),
            _ => None,
        };
        let only = match derivations {
            [only] => Some(only),
            _ => None,
        };
        Self {
            address,
            descriptor_id,
            keychain: only.map(|only| keychain(only.keychain)),
            index: only.map(|only| only.index),
            owners: derivations.iter().map(OwnerShape::new).collect(),
        }
    }
}

/// The word for a keychain.
pub fn keychain(keychain: Keychain) -> &'static str {
    match keychain {
        Keychain::External => "external",
        Keychain::Internal => "internal",
    }
}

pub(super) fn cause_shape(cause: Cause) -> impl Serialize {
    let (kind, txid, block_hash) = match cause {
        Cause::Transaction(txid) => ("transaction", Some(txid), None),
        Cause::Block(hash) => ("block", None, Some(hash)),
        Cause::Reorg(hash) => ("reorg", None, Some(hash)),
        Cause::Removed(txid) => ("removed", Some(txid), None),
        Cause::Baseline(hash) => ("baseline", None, Some(hash)),
    };
    object! { kind, ?txid, ?block_hash }
}

/// The name of an event and its data as JSON text: what a subscriber gets and what `GET /events`
/// shows, byte for byte.
pub fn event(event: &Event, cursor: String, network: Network) -> (&'static str, String) {
    let of = |subject: &Subject| SubjectShape::new(subject, network);
    let (timestamp, tip) = (seconds(event.time), event.tip.map(Block::from));
    match &event.kind {
        EventKind::NewTransactions {
            subject,
            transactions,
        } => {
            let shape = |summary| Transaction::new(summary, event.tip);
            let transactions: Vec<_> = transactions.iter().map(shape).collect();
            let count = transactions.len();
            let shape = object! { #[serde(flatten)] subject: of(subject), transactions, count, timestamp, tip, cursor };
            ("new_transactions", to_text(&shape))
        }
        EventKind::BalanceChange {
            subject,
            old,
            new,
            cause,
        } => {
            let (before, now) = (old.total(), new.total());
            let shape = object! {
                #[serde(flatten)] subject: of(subject),
                old_balance: before,
                new_balance: now,
                old_balance_btc: Btc(before),
                new_balance_btc: Btc(now),
                timestamp,
                delta: now.saturating_sub(before),
                confirmed_balance: new.confirmed,
                unconfirmed_balance: new.unconfirmed,
                cause: cause_shape(*cause),
                tip,
                cursor,
            };
            ("balance_change", to_text(&shape))
        }
        EventKind::TransactionUpdate {
            subject,
            previous,
            transaction,
            confirmations,
        } => {
            let now = Transaction::new(transaction, event.tip);
            let shape = object! {
                #[serde(flatten)] subject: of(subject),
                txid: now.txid,
                status: now.status,
                previous_status: phase(*previous),
                block_height: now.block_height,
                block_hash: now.block_hash,
                block_time: now.block_time,
                confirmations,
                received: now.received,
                sent: now.sent,
                net: now.net,
                net_btc: now.net_btc,
                first_seen: now.first_seen,
                replaceable: now.replaceable,
                ?replaced_by: now.replaced_by,
                ?conflicted_by: now.conflicted_by,
                timestamp,
                tip,
                cursor,
            };
            ("transaction_update", to_text(&shape))
        }
        EventKind::ScanComplete {
            subject,
            scan,
            from,
            to,
            transactions,
        } => {
            let shape = object! {
                #[serde(flatten)] subject: of(subject),
                scan_id: scan.to_string(),
                status: "complete",
                from_height: from,
                // From above to: the node has none of the blocks any more.
                to_height: Some(to).filter(|to| *to >= from),
                transaction_count: transactions,
                timestamp,
                tip,
                cursor,
            };
            ("scan_complete", to_text(&shape))
        }
        EventKind::Unwatched { subject } => {
            let shape = object! { #[serde(flatten)] subject: of(subject), timestamp, tip, cursor };
            ("unwatched", to_text(&shape))
        }
        EventKind::LabelChange { subject, old, new } => {
            let shape = object! {
                #[serde(flatten)] subject: of(subject),
                label: new,
                previous_label: old,
                timestamp,
                tip,
                cursor,
            };
            ("label_change", to_text(&shape))
        }
        EventKind::Block {
            block,
            time,
            transactions,
        } => {
            let shape = object! {
                height: block.height,
                hash: block.hash,
                time: f64::from(*time),
                tx_count: transactions,
                timestamp,
                tip,
                cursor,
            };
            ("block", to_text(&shape))
        }
        EventKind::Reorg {
            old_tip,
            fork_point,
            depth,
        } => {
            let (old_tip, fork_point) = (Block::from(*old_tip), Block::from(*fork_point));
            let shape = object! { old_tip, fork_point, depth, timestamp, tip, cursor };
            ("reorg", to_text(&shape))
        }
    }
}
