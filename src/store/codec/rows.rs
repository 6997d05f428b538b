//! Rows as values.

use bitcoin::{Network, Transaction};

use super::{In, Malformed, Out, StoredValue, value_of_fields, value_of_variants};
use crate::store::{ChainInfo, RowCounts};
use crate::tracker::{
    Balance, Baseline, BlockId, BlockRow, Coverage, Derivation, DescriptorId, DescriptorRow,
    DescriptorScan, EarlierOutput, Keychain, KeychainRow, Net, OutputRow, ScanId, ScanRow,
    ScanState, ScriptHash, Spend, Staged, Status, Touch, TxRow, WalletRow, WatchRow, WayBack,
    signals_replacement,
};

value_of_fields!(ScriptHash: 0);
value_of_fields!(ScanId: 0);
value_of_fields!(BlockId: height, hash);
value_of_fields!(RowCounts, 2: addresses, derived, utxos, transactions);
value_of_fields!(DescriptorId: 0);
value_of_fields!(Balance: confirmed, unconfirmed);
value_of_fields!(Staged: balance, utxo_count);
value_of_fields!(
    WatchRow, 2: spk, listed, derivations, label, added, depths, coverage, balance, utxo_count,
    outputs, tx_count, updated
);
value_of_fields!(Derivation: descriptor, keychain, index);
value_of_fields!(Net: descriptor, received, sent);
value_of_fields!(WalletRow: text, label, added, baseline);
value_of_fields!(KeychainRow: last_used, reserved, window, watched_to, derived, first);
value_of_fields!(
    DescriptorRow: keychains, is_ranged, gap_limit, depths, from_height, awaited, held, balance, utxo_count,
    tx_count, updated; left_out
);
value_of_variants!(Keychain, "keychain":
    0 => External,
    1 => Internal
);
value_of_variants!(Baseline, "baseline":
    0 => Skip,
    1 => IfMissing,
    2 => Refresh
);
value_of_fields!(OutputRow: script, value, height, coinbase, spent; earlier);
value_of_fields!(EarlierOutput: height, spender, spent_at);
value_of_fields!(Spend: txid, height);
value_of_fields!(Touch: script, received, sent);
value_of_fields!(BlockRow: hash, time, touched, found);
value_of_fields!(TxRow, 3: status, signals, inherits, first_seen, order, touches, nets; earlier);
value_of_fields!(ScanRow: created, updated, state, from, to, horizon, next, scripts, found);
value_of_fields!(DescriptorScan: descriptor, entered, late, back, from_height);
value_of_fields!(WayBack: upto, then);
value_of_variants!(ScanState, "state of a scan":
    0 => Open,
    1 => Complete,
    2 => Cancelled
);
value_of_variants!(Status, "status":
    0 => Mempool,
    1 => Confirmed { block, position },
    2 => Replaced { by },
    3 => Conflicted { by },
    4 => Evicted
);

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

const UTXOS_COMPLETE: u8 = 1;
const PENDING: u8 = 2;
/// Of formats 2 to 4: how many scans it is in follows, which is nothing that a row says any more.
const SCANS: u8 = 4;
/// Since format 5: what a baseline has brought so far follows.
const STAGED: u8 = 8;
/// Since format 8, both.
const LEFT_OUT: u8 = 16;
const IN_PORTIONS: u8 = 32;

impl StoredValue for Coverage {
    fn encode(&self, out: &mut Out) {
        let flags = [
            (self.utxos_complete, UTXOS_COMPLETE),
            (self.pending, PENDING),
            (self.staged.is_some(), STAGED),
            (self.left_out, LEFT_OUT),
            (self.in_portions, IN_PORTIONS),
        ];
        let set = flags.iter().filter(|(is_set, _)| *is_set);
        let flags = set.fold(0, |flags, (_, flag)| flags | flag);
        out.put(&self.from_height).tag(flags);
        if let Some(staged) = &self.staged {
            out.part(staged);
        }
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        let from_height = input.get()?;
        let flags = input.tag()?;
        if flags & !(UTXOS_COMPLETE | PENDING | SCANS | STAGED | LEFT_OUT | IN_PORTIONS) != 0 {
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
                _ => Some(input.part()?),
            },
            left_out: flags & LEFT_OUT != 0,
            in_portions: flags & IN_PORTIONS != 0,
        })
    }
}

/// Version 1 of a [`WatchRow`], up to format 7: all were added by themselves. How many of its
/// outputs have a row, it does not say.
pub fn watch_of_format_7(bytes: &[u8], outputs: u64) -> Result<WatchRow, Malformed> {
    let Some(fields) = bytes.strip_prefix(&[1]) else {
        return Err(Malformed("the value has not version 1".to_owned()));
    };
    let mut input = In(fields);
    let row = WatchRow {
        spk: input.part()?,
        listed: true,
        derivations: Vec::new(),
        label: input.part()?,
        added: input.part()?,
        depths: input.part()?,
        coverage: input.part()?,
        balance: input.part()?,
        utxo_count: input.part()?,
        outputs,
        tx_count: input.part()?,
        updated: input.part()?,
    };
    input.end()?;
    Ok(row)
}

/// Version 2 of a [`TxRow`], of formats 6 and 7: without descriptors.
pub fn tx_of_format_7(bytes: &[u8]) -> Result<TxRow, Malformed> {
    let Some(fields) = bytes.strip_prefix(&[2]) else {
        return Err(Malformed("the value has not version 2".to_owned()));
    };
    let mut input = In(fields);
    let row = TxRow {
        status: input.part()?,
        signals: input.part()?,
        inherits: input.part()?,
        first_seen: input.part()?,
        order: input.part()?,
        touches: input.part()?,
        nets: Vec::new(),
        earlier: input.last()?,
    };
    input.end()?;
    Ok(row)
}

/// Version 1 of [`RowCounts`], up to format 7: without derived scripts.
pub fn counts_of_format_7(bytes: &[u8]) -> Result<RowCounts, Malformed> {
    let Some(fields) = bytes.strip_prefix(&[1]) else {
        return Err(Malformed("the value has not version 1".to_owned()));
    };
    let mut input = In(fields);
    let counts = RowCounts {
        addresses: input.part()?,
        derived: 0,
        utxos: input.part()?,
        transactions: input.part()?,
    };
    input.end()?;
    Ok(counts)
}

/// In place of the status mempool in a row of version 1: it inherits as well.
const INHERITS: u8 = 5;

/// Version 1 of a [`TxRow`], up to format 5: the transaction is its last field.
pub fn tx_of_format_5(bytes: &[u8]) -> Result<(TxRow, Transaction), Malformed> {
    let Some(fields) = bytes.strip_prefix(&[1]) else {
        return Err(Malformed(
            "the value has neither version 1 nor 2".to_owned(),
        ));
    };
    let mut input = In(fields);
    let inherits = input.0.first() == Some(&INHERITS);
    let status = match inherits {
        true => input.tag().map(|_| Status::Mempool)?,
        false => input.part()?,
    };
    let (first_seen, order) = input.part()?;
    let (touches, tx) = input.part()?;
    let row = TxRow {
        status,
        signals: signals_replacement(&tx),
        inherits,
        first_seen,
        order,
        touches,
        nets: Vec::new(),
        earlier: Vec::new(),
    };
    input.end()?;
    Ok((row, tx))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::arbitrary;

    const VERSION: u8 = 1;

    proptest! {
        #[test]
        fn every_row_comes_back_as_it_was(
            watch in arbitrary::watch_row(), output in arbitrary::output_row(), tx in arbitrary::tx_row(), raw in arbitrary::tx(), block in arbitrary::block_row(),
            scan in arbitrary::scan_row(), scripts in proptest::collection::vec(arbitrary::script(), 0..4),
            descriptor in arbitrary::descriptor_row(), wallet in arbitrary::wallet_row(), of_descriptor in arbitrary::descriptor_scan(),
        ) {
            prop_assert_eq!(DescriptorScan::from_bytes(&of_descriptor.to_bytes()), Ok(of_descriptor));
            prop_assert_eq!(DescriptorRow::from_bytes(&descriptor.to_bytes()), Ok(descriptor));
            prop_assert_eq!(WalletRow::from_bytes(&wallet.to_bytes()), Ok(wallet));
            prop_assert_eq!(WatchRow::from_bytes(&watch.to_bytes()), Ok(watch));
            prop_assert_eq!(OutputRow::from_bytes(&output.to_bytes()), Ok(output));
            prop_assert_eq!(TxRow::from_bytes(&tx.to_bytes()), Ok(tx));
            prop_assert_eq!(Transaction::from_bytes(&raw.to_bytes()), Ok(raw));
            prop_assert_eq!(BlockRow::from_bytes(&block.to_bytes()), Ok(block));
            prop_assert_eq!(ScanRow::from_bytes(&scan.to_bytes()), Ok(scan));
            prop_assert_eq!(Vec::<ScriptHash>::from_bytes(&scripts.to_bytes()), Ok(scripts));
        }

        #[test]
        fn a_row_that_is_cut_or_longer_is_malformed(
            output in arbitrary::output_row(), watch in arbitrary::watch_row(), scan in arbitrary::scan_row(),
            tx in arbitrary::tx_row(), block in arbitrary::block_row(), cut in 0_usize..200,
        ) {
            fn check<V: StoredValue + std::fmt::Debug>(row: &V, cut: usize) {
                let bytes = row.to_bytes();
                assert!(V::from_bytes(&bytes[..cut % bytes.len()]).is_err());
                assert!(V::from_bytes(&[bytes, vec![0]].concat()).is_err());
            }
            // Without the list at its end it is a row, too.
            check(&OutputRow { earlier: Vec::new(), ..output.clone() }, cut);
            check(&watch, cut);
            check(&scan, cut);
            check(&vec![output.script], cut);
            check(&TxRow { earlier: Vec::new(), ..tx }, cut);
            check(&block, cut);
        }

        #[test]
        fn a_transaction_of_format_5_is_read_whole_and_says_itself_whether_it_may_be_replaced(
            row in arbitrary::tx_row(), tx in arbitrary::tx(), inherits in any::<bool>(), cut in 0_usize..200,
        ) {
            let row = TxRow { nets: Vec::new(), earlier: Vec::new(), ..row };
            let mut out = Out(vec![1]);
            match inherits {
                true => out.tag(INHERITS),
                false => out.part(&row.status),
            };
            out.part(&(row.first_seen, row.order)).part(&row.touches).part(&tx);
            let bytes = out.0;
            prop_assert!(tx_of_format_5(&bytes[..cut % bytes.len()]).is_err());
            prop_assert!(tx_of_format_5(&[&bytes[..], &[0]].concat()).is_err());
            let signals = tx.input.iter().any(|input| input.sequence.0 < 0xffff_fffe) || tx.version.0 == 3;
            let status = if inherits { Status::Mempool } else { row.status };
            prop_assert_eq!(tx_of_format_5(&bytes), Ok((TxRow { status, signals, inherits, ..row }, tx)));
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            drop(TxRow::from_bytes(&[vec![TxRow::VERSION], bytes.clone()].concat()));
            let bytes = [vec![VERSION], bytes].concat();
            drop((WatchRow::from_bytes(&bytes), OutputRow::from_bytes(&bytes), tx_of_format_5(&bytes), BlockRow::from_bytes(&bytes)));
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
            ..Coverage::default()
        };
        assert_eq!(Coverage::from_bytes(&bytes(3, &[])).as_ref(), Ok(&coverage));
        let counted = Coverage::from_bytes(&bytes(7, &[2, 0, 0, 0]));
        assert_eq!(counted.as_ref(), Ok(&coverage));
        assert_eq!(coverage.to_bytes(), bytes(3, &[]));
        assert!(Coverage::from_bytes(&bytes(7, &[])).is_err());
        assert!(Coverage::from_bytes(&bytes(8, &[])).is_err());
        assert!(Coverage::from_bytes(&bytes(64, &[])).is_err());
    }
}
