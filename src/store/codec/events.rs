//! Events as values.
//!
//! After the version byte: time u64, (height u32, hash)? tip, kind u8, then by kind:
//!
//! | kind | | fields |
//! |---|---|---|
//! | 0 | new transactions | subject, list of transactions |
//! | 1 | balance change | subject, old and new balance (i64 and i64 each), cause |
//! | 2 | transaction update | subject, previous phase u8, transaction, confirmations u32 |
//! | 3 | block | height u32, hash, time u32, transactions u32 |
//! | 4 | reorg | old tip (height u32, hash), fork point (height u32, hash), depth u32 |
//! | 5 | scan complete | subject, scan id u64, from u32, to u32, transactions u64 |
//! | 6 | unwatched | subject |
//! | 7 | label change (since format 8) | subject, previous label, label |
//!
//! A subject: spk, script hash. Since format 8 also, led by a byte 255, with which no script
//! begins: 0, spk, script hash and list of derivations (descriptor id, keychain u8, index u32); or
//! 1, descriptor id.
//! A balance: confirmed, unconfirmed. A transaction: txid, received u64, sent u64, status, u32?
//! block time, first_seen u64, replaceable bool. A cause: 0 transaction, 1 block, 2 reorg, 3
//! removed, 4 baseline, then 32 bytes of its hash. A phase has the number of its status.

use super::{In, Malformed, Out, StoredValue, value_of_fields, value_of_variants};
use crate::tracker::{Cause, Event, EventKind, Phase, Subject, TxSummary};

value_of_fields!(Event: time, tip, kind);
value_of_variants!(EventKind, "event kind":
    0 => NewTransactions { subject, transactions },
    1 => BalanceChange { subject, old, new, cause },
    2 => TransactionUpdate { subject, previous, transaction, confirmations },
    3 => Block { block, time, transactions },
    4 => Reorg { old_tip, fork_point, depth },
    5 => ScanComplete { subject, scan, from, to, transactions },
    6 => Unwatched { subject },
    7 => LabelChange { subject, old, new }
);

/// Leads a subject that is more than a script.
const MORE: u8 = 255;

impl StoredValue for Subject {
    fn encode(&self, out: &mut Out) {
        match self {
            Self::Script {
                spk,
                script,
                derivations,
            } if derivations.is_empty() => out.part(spk).part(script),
            Self::Script {
                spk,
                script,
                derivations,
            } => {
                let out = out.tag(MORE).tag(0);
                out.part(spk).part(script).part(derivations)
            }
            Self::Descriptor(descriptor) => out.tag(MORE).tag(1).part(descriptor),
        };
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        if input.next() != Some(MORE) {
            return Ok(Self::Script {
                spk: input.part()?,
                script: input.part()?,
                derivations: Vec::new(),
            });
        }
        input.tag()?;
        Ok(match input.tag()? {
            0 => Self::Script {
                spk: input.part()?,
                script: input.part()?,
                derivations: input.part()?,
            },
            1 => Self::Descriptor(input.part()?),
            tag => return Err(Malformed(format!("subject {tag} is unknown"))),
        })
    }
}

value_of_fields!(TxSummary: txid, received, sent, status, block_time, first_seen, replaceable);
value_of_variants!(Cause, "cause":
    0 => Transaction(txid),
    1 => Block(hash),
    2 => Reorg(hash),
    3 => Removed(txid),
    4 => Baseline(hash)
);
value_of_variants!(Phase, "phase":
    0 => Mempool,
    1 => Confirmed,
    2 => Replaced,
    3 => Conflicted,
    4 => Evicted
);

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::store::arbitrary::{
        balance, block_hash, block_id, derivation, descriptor_id, script, spk, status, txid,
    };
    use crate::tracker::ScanId;

    fn summary() -> impl Strategy<Value = TxSummary> {
        (
            txid(),
            any::<[u64; 3]>(),
            status(),
            option::of(any::<u32>()),
            any::<bool>(),
        )
            .prop_map(
                |(txid, [received, sent, first_seen], status, block_time, replaceable)| TxSummary {
                    txid,
                    received,
                    sent,
                    status,
                    block_time,
                    first_seen,
                    replaceable,
                },
            )
    }

    fn subject() -> impl Strategy<Value = Subject> {
        prop_oneof![
            (spk(), script(), vec(derivation(), 0..3)).prop_map(|(spk, script, derivations)| {
                Subject::Script {
                    spk,
                    script,
                    derivations,
                }
            }),
            descriptor_id().prop_map(Subject::Descriptor),
        ]
    }

    fn cause() -> impl Strategy<Value = Cause> {
        prop_oneof![
            txid().prop_map(Cause::Transaction),
            block_hash().prop_map(Cause::Block),
            block_hash().prop_map(Cause::Reorg),
            txid().prop_map(Cause::Removed),
            block_hash().prop_map(Cause::Baseline),
        ]
    }

    fn kind() -> impl Strategy<Value = EventKind> {
        prop_oneof![
            (subject(), vec(summary(), 0..3)).prop_map(|(subject, transactions)| {
                EventKind::NewTransactions {
                    subject,
                    transactions,
                }
            }),
            (subject(), balance(), balance(), cause()).prop_map(|(subject, old, new, cause)| {
                EventKind::BalanceChange {
                    subject,
                    old,
                    new,
                    cause,
                }
            }),
            (subject(), status(), summary(), any::<u32>()).prop_map(
                |(subject, previous, transaction, confirmations)| {
                    EventKind::TransactionUpdate {
                        subject,
                        previous: previous.phase(),
                        transaction,
                        confirmations,
                    }
                }
            ),
            (block_id(), any::<u32>(), any::<u32>()).prop_map(|(block, time, transactions)| {
                EventKind::Block {
                    block,
                    time,
                    transactions,
                }
            }),
            (block_id(), block_id(), any::<u32>()).prop_map(|(old_tip, fork_point, depth)| {
                EventKind::Reorg {
                    old_tip,
                    fork_point,
                    depth,
                }
            }),
            (subject(), any::<[u64; 2]>(), any::<[u32; 2]>()).prop_map(
                |(subject, [scan, transactions], [from, to])| {
                    EventKind::ScanComplete {
                        subject,
                        scan: ScanId(scan),
                        from,
                        to,
                        transactions,
                    }
                }
            ),
            subject().prop_map(|subject| EventKind::Unwatched { subject }),
            (subject(), any::<[String; 2]>())
                .prop_map(|(subject, [old, new])| EventKind::LabelChange { subject, old, new }),
        ]
    }

    proptest! {
        #[test]
        fn every_event_comes_back_as_it_was(time: u64, tip in option::of(block_id()), kind in kind()) {
            let event = Event { time, tip, kind };
            prop_assert_eq!(Event::from_bytes(&event.to_bytes()), Ok(event));
        }
    }
}
