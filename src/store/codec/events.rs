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

use super::{In, Malformed, Out, StoredValue};
use crate::tracker::{Cause, Event, EventKind, Phase, ScanId, TxSummary};

impl StoredValue for TxSummary {
    fn encode(&self, out: &mut Out) {
        out.put(&self.txid)
            .put(&self.received)
            .put(&self.sent)
            .part(&self.status);
        out.option(self.block_time.as_ref(), |out, time| _ = out.put(time))
            .put(&self.first_seen)
            .put(&self.replaceable);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            txid: input.get()?,
            received: input.get()?,
            sent: input.get()?,
            status: input.part()?,
            block_time: input.option(In::get)?,
            first_seen: input.get()?,
            replaceable: input.get()?,
        })
    }
}

impl StoredValue for Cause {
    fn encode(&self, out: &mut Out) {
        match self {
            Self::Transaction(txid) => out.tag(0).put(txid),
            Self::Block(hash) => out.tag(1).put(hash),
            Self::Reorg(hash) => out.tag(2).put(hash),
            Self::Removed(txid) => out.tag(3).put(txid),
            Self::Baseline(hash) => out.tag(4).put(hash),
        };
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(match input.tag()? {
            0 => Self::Transaction(input.get()?),
            1 => Self::Block(input.get()?),
            2 => Self::Reorg(input.get()?),
            3 => Self::Removed(input.get()?),
            4 => Self::Baseline(input.get()?),
            tag => return Err(Malformed(format!("cause {tag} is unknown"))),
        })
    }
}

impl StoredValue for Phase {
    fn encode(&self, out: &mut Out) {
        out.tag(match self {
            Self::Mempool => 0,
            Self::Confirmed => 1,
            Self::Replaced => 2,
            Self::Conflicted => 3,
            Self::Evicted => 4,
        });
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(match input.tag()? {
            0 => Self::Mempool,
            1 => Self::Confirmed,
            2 => Self::Replaced,
            3 => Self::Conflicted,
            4 => Self::Evicted,
            tag => return Err(Malformed(format!("phase {tag} is unknown"))),
        })
    }
}

impl StoredValue for Event {
    fn encode(&self, out: &mut Out) {
        out.put(&self.time)
            .option(self.tip.as_ref(), |out, tip| _ = out.part(tip))
            .part(&self.kind);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            time: input.get()?,
            tip: input.option(In::part)?,
            kind: input.part()?,
        })
    }
}

impl StoredValue for EventKind {
    fn encode(&self, out: &mut Out) {
        match self {
            Self::NewTransactions {
                spk,
                script,
                transactions,
            } => out
                .tag(0)
                .put(spk)
                .part(script)
                .list(transactions, |out, transaction| _ = out.part(transaction)),
            Self::BalanceChange {
                spk,
                script,
                old,
                new,
                cause,
            } => out
                .tag(1)
                .put(spk)
                .part(script)
                .part(old)
                .part(new)
                .part(cause),
            Self::TransactionUpdate {
                spk,
                script,
                previous,
                transaction,
                confirmations,
            } => out
                .tag(2)
                .put(spk)
                .part(script)
                .part(previous)
                .part(transaction)
                .put(confirmations),
            Self::Block {
                block,
                time,
                transactions,
            } => out.tag(3).part(block).put(time).put(transactions),
            Self::Reorg {
                old_tip,
                fork_point,
                depth,
            } => out.tag(4).part(old_tip).part(fork_point).put(depth),
            Self::ScanComplete {
                spk,
                script,
                scan,
                from,
                to,
                transactions,
            } => out
                .tag(5)
                .put(spk)
                .part(script)
                .put(&scan.0)
                .put(from)
                .put(to)
                .put(transactions),
            Self::Unwatched { spk, script } => out.tag(6).put(spk).part(script),
        };
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(match input.tag()? {
            0 => Self::NewTransactions {
                spk: input.get()?,
                script: input.part()?,
                transactions: input.list(In::part)?,
            },
            1 => Self::BalanceChange {
                spk: input.get()?,
                script: input.part()?,
                old: input.part()?,
                new: input.part()?,
                cause: input.part()?,
            },
            2 => Self::TransactionUpdate {
                spk: input.get()?,
                script: input.part()?,
                previous: input.part()?,
                transaction: input.part()?,
                confirmations: input.get()?,
            },
            3 => Self::Block {
                block: input.part()?,
                time: input.get()?,
                transactions: input.get()?,
            },
            4 => Self::Reorg {
                old_tip: input.part()?,
                fork_point: input.part()?,
                depth: input.get()?,
            },
            5 => Self::ScanComplete {
                spk: input.get()?,
                script: input.part()?,
                scan: ScanId(input.get()?),
                from: input.get()?,
                to: input.get()?,
                transactions: input.get()?,
            },
            6 => Self::Unwatched {
                spk: input.get()?,
                script: input.part()?,
            },
            tag => return Err(Malformed(format!("event kind {tag} is unknown"))),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::store::arbitrary::{balance, block_hash, block_id, script, spk, status, txid};

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
