//! Events as values.
//!
//! After the version byte: time u64, (height u32, hash)? tip, kind u8, then by kind:
//!
//! | kind | | fields |
//! |---|---|---|
//! | 0 | new transactions | spk, script hash, list of transactions |
//! | 1 | balance change | spk, script hash, old and new balance (i64 and i64 each), cause |
//! | 2 | transaction update | spk, script hash, previous phase u8, transaction, confirmations u32 |
//! | 3 | block | height u32, hash, time u32, transactions u32 |
//! | 4 | reorg | old tip (height u32, hash), fork point (height u32, hash), depth u32 |
//! | 5 | scan complete | spk, script hash, scan id u64, from u32, to u32, transactions u64 |
//! | 6 | unwatched | spk, script hash |
//!
//! A balance: confirmed, unconfirmed. A transaction: txid, received u64, sent u64, status, u32?
//! block time, first_seen u64, replaceable bool. A cause: 0 transaction, 1 block, 2 reorg, 3
//! removed, 4 baseline, then 32 bytes of its hash. A phase has the number of its status.

use super::{In, Malformed, Out, StoredValue, value_of_fields, value_of_variants};
use crate::tracker::{Cause, Event, EventKind, Phase, TxSummary};

value_of_fields!(Event: time, tip, kind);
value_of_variants!(EventKind, "event kind":
    0 => NewTransactions { spk, script, transactions },
    1 => BalanceChange { spk, script, old, new, cause },
    2 => TransactionUpdate { spk, script, previous, transaction, confirmations },
    3 => Block { block, time, transactions },
    4 => Reorg { old_tip, fork_point, depth },
    5 => ScanComplete { spk, script, scan, from, to, transactions },
    6 => Unwatched { spk, script }
);
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
    use crate::store::arbitrary::{balance, block_hash, block_id, script, spk, status, txid};
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
            (spk(), script(), vec(summary(), 0..3)).prop_map(|(spk, script, transactions)| {
                EventKind::NewTransactions {
                    spk,
                    script,
                    transactions,
                }
            }),
            (spk(), script(), balance(), balance(), cause()).prop_map(
                |(spk, script, old, new, cause)| EventKind::BalanceChange {
                    spk,
                    script,
                    old,
                    new,
                    cause
                }
            ),
            (spk(), script(), status(), summary(), any::<u32>()).prop_map(
                |(spk, script, previous, transaction, confirmations)| {
                    EventKind::TransactionUpdate {
                        spk,
                        script,
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
            (spk(), script(), any::<[u64; 2]>(), any::<[u32; 2]>()).prop_map(
                |(spk, script, [scan, transactions], [from, to])| {
                    EventKind::ScanComplete {
                        spk,
                        script,
                        scan: ScanId(scan),
                        from,
                        to,
                        transactions,
                    }
                }
            ),
            (spk(), script()).prop_map(|(spk, script)| EventKind::Unwatched { spk, script }),
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
