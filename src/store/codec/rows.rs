//! Rows as values.

use bitcoin::Network;

use super::{In, Malformed, Out, StoredValue};
use crate::store::{ChainInfo, RowCounts};
use crate::tracker::{
    Balance, BlockId, BlockRow, Coverage, OutputRow, ScanRow, ScanState, ScriptHash, Spend, Staged,
    Status, Touch, TxRow, WatchRow,
};

impl StoredValue for ScriptHash {
    fn encode(&self, out: &mut Out) {
        out.put(&self.0);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self(input.get()?))
    }
}

impl StoredValue for BlockId {
    fn encode(&self, out: &mut Out) {
        out.put(&self.height).put(&self.hash);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            height: input.get()?,
            hash: input.get()?,
        })
    }
}

impl StoredValue for ChainInfo {
    fn encode(&self, out: &mut Out) {
        out.put(&self.network.to_core_arg().to_owned())
            .put(&self.genesis);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        let name: String = input.get()?;
        let network = Network::from_core_arg(&name)
            .map_err(|_| Malformed(format!("chain {name} is unknown")))?;
        Ok(Self {
            network,
            genesis: input.get()?,
        })
    }
}

impl StoredValue for RowCounts {
    fn encode(&self, out: &mut Out) {
        out.put(&self.addresses)
            .put(&self.utxos)
            .put(&self.transactions);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            addresses: input.get()?,
            utxos: input.get()?,
            transactions: input.get()?,
        })
    }
}

impl StoredValue for Balance {
    fn encode(&self, out: &mut Out) {
        out.put(&self.confirmed).put(&self.unconfirmed);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            confirmed: input.get()?,
            unconfirmed: input.get()?,
        })
    }
}

const UTXOS_COMPLETE: u8 = 1;
const PENDING: u8 = 2;
/// Of formats 2 to 4: how many scans it is in follows, which is nothing that a row says any more.
const SCANS: u8 = 4;
/// Since format 5: what a baseline has brought so far follows.
const STAGED: u8 = 8;

impl StoredValue for Coverage {
    fn encode(&self, out: &mut Out) {
        let complete = if self.utxos_complete {
            UTXOS_COMPLETE
        } else {
            0
        };
        let pending = if self.pending { PENDING } else { 0 };
        let staged = if self.staged.is_some() { STAGED } else { 0 };
        out.put(&self.from_height).tag(complete | pending | staged);
        if let Some(staged) = &self.staged {
            out.part(&staged.balance).put(&staged.utxo_count);
        }
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        let from_height = input.get()?;
        let flags = input.tag()?;
        if flags & !(UTXOS_COMPLETE | PENDING | SCANS | STAGED) != 0 {
            return Err(Malformed(format!("coverage flags {flags:#x} are unknown")));
        }
        if flags & SCANS != 0 {
            input.get::<u32>()?;
        }
        Ok(Self {
            from_height,
            utxos_complete: flags & UTXOS_COMPLETE != 0,
            pending: flags & PENDING != 0,
            staged: match flags & STAGED {
                0 => None,
                _ => Some(Staged {
                    balance: input.part()?,
                    utxo_count: input.get()?,
                }),
            },
        })
    }
}

impl StoredValue for WatchRow {
    fn encode(&self, out: &mut Out) {
        out.put(&self.spk)
            .put(&self.label)
            .put(&self.added)
            .put(&self.depths);
        out.part(&self.coverage)
            .part(&self.balance)
            .put(&self.utxo_count)
            .put(&self.tx_count)
            .put(&self.updated);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            spk: input.get()?,
            label: input.get()?,
            added: input.get()?,
            depths: input.get()?,
            coverage: input.part()?,
            balance: input.part()?,
            utxo_count: input.get()?,
            tx_count: input.get()?,
            updated: input.get()?,
        })
    }
}

impl StoredValue for OutputRow {
    fn encode(&self, out: &mut Out) {
        out.part(&self.script)
            .put(&self.value)
            .option(self.height.as_ref(), |out, height| _ = out.put(height))
            .put(&self.coinbase);
        out.option(self.spent.as_ref(), |out, spend| {
            out.put(&spend.txid)
                .option(spend.height.as_ref(), |out, height| _ = out.put(height));
        });
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            script: input.part()?,
            value: input.get()?,
            height: input.option(In::get)?,
            coinbase: input.get()?,
            spent: input.option(|input| {
                Ok(Spend {
                    txid: input.get()?,
                    height: input.option(In::get)?,
                })
            })?,
        })
    }
}

impl StoredValue for Status {
    fn encode(&self, out: &mut Out) {
        match self {
            Self::Mempool => out.tag(0),
            Self::Confirmed { block, position } => out.tag(1).part(block).put(position),
            Self::Replaced { by } => out.tag(2).put(by),
            Self::Conflicted { by } => out.tag(3).put(by),
            Self::Evicted => out.tag(4),
        };
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        let tag = input.tag()?;
        status(tag, input)
    }
}

/// The status behind its byte.
fn status(tag: u8, input: &mut In<'_>) -> Result<Status, Malformed> {
    Ok(match tag {
        0 => Status::Mempool,
        1 => Status::Confirmed {
            block: input.part()?,
            position: input.get()?,
        },
        2 => Status::Replaced { by: input.get()? },
        3 => Status::Conflicted { by: input.get()? },
        4 => Status::Evicted,
        tag => return Err(Malformed(format!("status {tag} is unknown"))),
    })
}

/// In place of the status mempool in a transaction's row: it inherits as well.
const INHERITS: u8 = 5;

impl StoredValue for TxRow {
    fn encode(&self, out: &mut Out) {
        match self.inherits {
            true => out.tag(INHERITS),
            false => out.part(&self.status),
        };
        out.put(&self.first_seen).put(&self.order);
        out.list(&self.touches, |out, touch| {
            _ = out
                .part(&touch.script)
                .put(&touch.received)
                .put(&touch.sent)
        });
        out.put(&self.tx);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        let (status, inherits) = match input.tag()? {
            INHERITS => (Status::Mempool, true),
            tag => (status(tag, input)?, false),
        };
        Ok(Self {
            status,
            inherits,
            first_seen: input.get()?,
            order: input.get()?,
            touches: input.list(|input| {
                Ok(Touch {
                    script: input.part()?,
                    received: input.get()?,
                    sent: input.get()?,
                })
            })?,
            tx: input.get()?,
        })
    }
}

impl StoredValue for BlockRow {
    fn encode(&self, out: &mut Out) {
        out.put(&self.hash)
            .put(&self.time)
            .list(&self.touched, |out, txid| _ = out.put(txid));
        out.list(&self.found, |out, outpoint| _ = out.put(outpoint));
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            hash: input.get()?,
            time: input.get()?,
            touched: input.list(In::get)?,
            found: input.list(In::get)?,
        })
    }
}

impl StoredValue for ScanRow {
    fn encode(&self, out: &mut Out) {
        let state = match self.state {
            ScanState::Open => 0,
            ScanState::Complete => 1,
            ScanState::Cancelled => 2,
        };
        out.put(&self.created)
            .put(&self.updated)
            .tag(state)
            .put(&self.from)
            .option(self.to.as_ref(), |out, to| _ = out.put(to));
        out.option(self.horizon.as_ref(), |out, horizon| _ = out.put(horizon))
            .put(&self.next)
            .put(&self.scripts)
            .put(&self.found);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        let (created, updated) = (input.get()?, input.get()?);
        let state = match input.tag()? {
            0 => ScanState::Open,
            1 => ScanState::Complete,
            2 => ScanState::Cancelled,
            tag => return Err(Malformed(format!("state {tag} of a scan is unknown"))),
        };
        Ok(Self {
            created,
            updated,
            state,
            from: input.get()?,
            to: input.option(In::get)?,
            horizon: input.option(In::get)?,
            next: input.get()?,
            scripts: input.get()?,
            found: input.get()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::VERSION;
    use super::*;
    use crate::store::arbitrary;

    proptest! {
        #[test]
        fn every_row_comes_back_as_it_was(
            watch in arbitrary::watch_row(), output in arbitrary::output_row(), tx in arbitrary::tx_row(), block in arbitrary::block_row(),
            scan in arbitrary::scan_row(), scripts in proptest::collection::vec(arbitrary::script(), 0..4),
        ) {
            prop_assert_eq!(WatchRow::from_bytes(&watch.to_bytes()), Ok(watch));
            prop_assert_eq!(OutputRow::from_bytes(&output.to_bytes()), Ok(output));
            prop_assert_eq!(TxRow::from_bytes(&tx.to_bytes()), Ok(tx));
            prop_assert_eq!(BlockRow::from_bytes(&block.to_bytes()), Ok(block));
            prop_assert_eq!(ScanRow::from_bytes(&scan.to_bytes()), Ok(scan));
            prop_assert_eq!(Vec::<ScriptHash>::from_bytes(&scripts.to_bytes()), Ok(scripts));
        }

        #[test]
        fn a_row_that_is_cut_or_longer_is_malformed(
            output in arbitrary::output_row(), watch in arbitrary::watch_row(), scan in arbitrary::scan_row(), cut in 0_usize..200,
        ) {
            fn check<V: StoredValue + std::fmt::Debug>(row: &V, cut: usize) {
                let bytes = row.to_bytes();
                assert!(V::from_bytes(&bytes[..cut % bytes.len()]).is_err());
                assert!(V::from_bytes(&[bytes, vec![0]].concat()).is_err());
            }
            check(&output, cut);
            check(&watch, cut);
            check(&scan, cut);
            check(&vec![output.script], cut);
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let bytes = [vec![VERSION], bytes].concat();
            drop((WatchRow::from_bytes(&bytes), OutputRow::from_bytes(&bytes), TxRow::from_bytes(&bytes), BlockRow::from_bytes(&bytes)));
            drop((ScanRow::from_bytes(&bytes), Vec::<ScriptHash>::from_bytes(&bytes), crate::tracker::Event::from_bytes(&bytes)));
        }
    }

    #[test]
    fn a_coverage_that_counts_its_scans_is_read_without_them() {
        let bytes = |flags: u8, scans: &[u8]| [&[VERSION, 7, 0, 0, 0, flags], scans].concat();
        let coverage = Coverage {
            from_height: 7,
            utxos_complete: true,
            pending: true,
            staged: None,
        };
        assert_eq!(Coverage::from_bytes(&bytes(3, &[])).as_ref(), Ok(&coverage));
        let counted = Coverage::from_bytes(&bytes(7, &[2, 0, 0, 0]));
        assert_eq!(counted.as_ref(), Ok(&coverage));
        assert_eq!(coverage.to_bytes(), bytes(3, &[]));
        assert!(Coverage::from_bytes(&bytes(7, &[])).is_err());
        assert!(Coverage::from_bytes(&bytes(8, &[])).is_err());
        assert!(Coverage::from_bytes(&bytes(16, &[])).is_err());
    }
}
