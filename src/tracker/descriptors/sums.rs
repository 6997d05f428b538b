//! What scripts do, summed up for their descriptors.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bitcoin::{OutPoint, Txid};

use super::DescriptorId;
use crate::tracker::change_builder::{ChangeBuilder, add, contribution, is_open};
use crate::tracker::transition::{Touches, TransitionBuilder};
use crate::tracker::{ApplyError, Net, OutputRow, ScriptHash, Status, TxRow, View};

impl<V: View> ChangeBuilder<'_, V> {
    /// The descriptors that a script is of, each once.
    fn descriptors_of(&mut self, script: &ScriptHash) -> Result<Vec<DescriptorId>, ApplyError> {
        let Some(watch) = self.watch(script)? else {
            return Ok(Vec::new());
        };
        let all = watch.derivations.iter().map(|it| it.descriptor);
        let all: BTreeSet<DescriptorId> = all.collect();
        let mut kept = Vec::with_capacity(all.len());
        for descriptor in all {
            if self.descriptor(&descriptor)?.is_some() {
                kept.push(descriptor);
            }
        }
        Ok(kept)
    }

    /// An output is about to be written: the descriptors of its script follow. One that has not
    /// counted for a descriptor, whose script joined it with a past, counts from now on.
    pub fn net_output(
        &mut self,
        outpoint: OutPoint,
        old: Option<&OutputRow>,
        new: Option<&OutputRow>,
    ) -> Result<(), ApplyError> {
        let Some(script) = new.or(old).map(|row| row.script) else {
            return Ok(());
        };
        for descriptor in self.descriptors_of(&script)? {
            let key = (descriptor, outpoint);
            let counted = self.owned_output(&key)?.is_some();
            if let Some(old) = old.filter(|_| counted) {
                self.add_to_descriptor(descriptor, old, -1)?;
            }
            if let Some(new) = new {
                self.add_to_descriptor(descriptor, new, 1)?;
            }
            let counts = is_open(new);
            if counts != counted {
                self.owned_outputs(key)?.set(counts.then_some(()));
            }
        }
        Ok(())
    }

    fn add_to_descriptor(
        &mut self,
        descriptor: DescriptorId,
        output: &OutputRow,
        sign: i64,
    ) -> Result<(), ApplyError> {
        let now = self.now();
        let Some(row) = self.descriptors(descriptor)?.edit() else {
            return Ok(());
        };
        let overflow = || ApplyError::DescriptorAmount(descriptor);
        let (confirmed, unconfirmed, count) = contribution(output);
        let signed = i128::from(sign);
        let balance = add(row.balance, signed * confirmed, signed * unconfirmed);
        row.balance = balance.ok_or_else(overflow)?;
        let count = row.utxo_count.checked_add_signed(sign * count);
        (row.utxo_count, row.updated) = (count.ok_or_else(overflow)?, now);
        Ok(())
    }

    /// What a transaction does to descriptors, ascending by their ids; it counts in the history of
    /// those that it was not known to touch. One that is no more touches no other.
    pub fn net_tx(&mut self, known: &[DescriptorId], row: &TxRow) -> Result<Vec<Net>, ApplyError> {
        let mut nets: BTreeMap<DescriptorId, Net> = BTreeMap::new();
        let is_alive = matches!(row.status, Status::Mempool | Status::Confirmed { .. });
        for touch in &row.touches {
            for descriptor in self.descriptors_of(&touch.script)? {
                if !is_alive && !known.contains(&descriptor) {
                    continue;
                }
                let net = nets.entry(descriptor).or_insert(Net {
                    descriptor,
                    received: 0,
                    sent: 0,
                });
                let sum = |a: u64, b: u64| {
                    let sum = a.checked_add(b);
                    sum.ok_or(ApplyError::DescriptorAmount(descriptor))
                };
                net.received = sum(net.received, touch.received)?;
                net.sent = sum(net.sent, touch.sent)?;
            }
        }
        let now = self.now();
        for descriptor in nets.keys() {
            let is_known = known.contains(descriptor);
            if !is_known && let Some(row) = self.descriptors(*descriptor)?.edit() {
                row.tx_count = row.tx_count.saturating_add(1);
                row.updated = now;
            }
        }
        Ok(nets.into_values().collect())
    }

    /// An output of a script that came to a descriptor with a past counts for it from now on.
    pub fn join_output(
        &mut self,
        descriptor: DescriptorId,
        outpoint: OutPoint,
    ) -> Result<(), ApplyError> {
        let key = (descriptor, outpoint);
        let row = self.output(&outpoint)?.cloned();
        if !is_open(row.as_ref()) || self.owned_output(&key)?.is_some() {
            return Ok(());
        }
        self.owned_outputs(key)?.set(Some(()));
        row.map_or(Ok(()), |row| self.add_to_descriptor(descriptor, &row, 1))
    }
}

impl<V: View> TransitionBuilder<'_, V> {
    /// These scripts own outputs of a transaction. Where their descriptors know other parts of it,
    /// these belong to what it does to the descriptors.
    pub fn complete_nets(
        &mut self,
        txid: Txid,
        scripts: &HashSet<ScriptHash>,
    ) -> Result<(), ApplyError> {
        let Some(row) = self.changes.tx(&txid)?.cloned() else {
            return Ok(());
        };
        let touched: HashSet<ScriptHash> = row.touches.iter().map(|it| it.script).collect();
        let netted: HashSet<DescriptorId> = row.nets.iter().map(|it| it.descriptor).collect();
        let mut lacking = HashSet::new();
        for script in scripts.difference(&touched) {
            let watch = self.changes.watch(script)?;
            let mut places = watch.iter().flat_map(|watch| &watch.derivations);
            if places.any(|place| netted.contains(&place.descriptor)) {
                lacking.insert(*script);
            }
        }
        if lacking.is_empty() || !matches!(row.status, Status::Confirmed { .. }) {
            return Ok(());
        }
        let tx = self.changes.transaction(&txid)?;
        let mut touches = Touches::default();
        for output in &tx.output {
            let script = ScriptHash::of(&output.script_pubkey);
            if lacking.contains(&script) {
                touches.add(script, output.value.to_sat(), 0)?;
            }
        }
        let status = row.status;
        self.move_to(txid, row, status, touches.into_list())
    }
}
