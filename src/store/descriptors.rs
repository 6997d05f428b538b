//! Reading what is known of descriptors.

use bitcoin::OutPoint;

use super::StoreError;
use super::codec::Malformed;
use super::codec::keys::{owned_output_key, parse_hash_key, parse_unspent_key};
use super::families::{DERIVATIONS, DESCRIPTORS, OWNED_OUTPUTS};
use super::reader::{Snapshot, UtxoPage};
use crate::tracker::{
    BlockId, Derivation, DescriptorId, DescriptorRow, OutputRow, ScriptHash, Status, WatchRow,
};

impl Snapshot<'_> {
    /// The descriptors, ordered by id, those after `after` only.
    pub fn descriptors(
        &self,
        after: Option<&DescriptorId>,
        limit: usize,
    ) -> Result<Vec<(DescriptorId, DescriptorRow)>, StoreError> {
        let entries = self.scan_entries(DESCRIPTORS, &[], after.map(|after| &after.0[..]));
        let is_after = |key: &[u8]| after.is_none_or(|after| *key != after.0);
        let entries = entries.filter(|entry| entry.as_ref().map_or(true, |(key, _)| is_after(key)));
        let rows = entries.take(limit).map(|entry| {
            let (key, value) = entry?;
            let id = parse_hash_key(&key)
                .map_err(|Malformed(what)| self.db.corrupt(DESCRIPTORS, &key, what))?;
            Ok((DescriptorId(id), self.decode(DESCRIPTORS, &key, &value)?))
        });
        rows.collect()
    }

    /// How many descriptors there are; looks at all of them.
    pub fn descriptor_count(&self) -> Result<u64, StoreError> {
        let mut all = self.keys(DESCRIPTORS, &[], None, parse_hash_key);
        all.try_fold(0, |count, id| id.map(|_| count + 1))
    }

    /// The scripts of a keychain from an index on.
    pub fn derived(
        &self,
        from: &Derivation,
        limit: usize,
    ) -> Result<Vec<(Derivation, ScriptHash, WatchRow)>, StoreError> {
        let indexes = (from.index..).take(limit);
        let mut scripts = Vec::new();
        for index in indexes {
            let place = Derivation { index, ..*from };
            let Some(script) = self.derivation(&place)? else {
                break;
            };
            let row = self.watch(&script)?;
            let missing = || {
                let key = place.descriptor.0;
                self.db.corrupt(DERIVATIONS, &key, "a script is missing")
            };
            scripts.push((place, script, row.ok_or_else(missing)?));
        }
        Ok(scripts)
    }

    /// Outputs of a descriptor whose spend is not confirmed, as [`Self::utxos`] of a script. All
    /// that count in its row are among them.
    pub fn descriptor_utxos(
        &self,
        descriptor: &DescriptorId,
        spent_in_mempool: bool,
        after: Option<&OutPoint>,
        limit: usize,
    ) -> Result<UtxoPage, StoreError> {
        let from = after.map(|after| owned_output_key(descriptor, after));
        let from = from.as_ref().map(|key| &key[..]);
        let owned = self.keys(OWNED_OUTPUTS, &descriptor.0, from, parse_unspent_key);
        let is_shown = |row: &OutputRow| spent_in_mempool || row.spent.is_none();
        self.utxo_page(owned, after, limit, is_shown)
    }

    /// How many outputs of a descriptor have no confirmed spend. Walks over all of them.
    pub fn count_owned(&self, descriptor: &DescriptorId) -> Result<u64, StoreError> {
        let mut owned = self.keys(OWNED_OUTPUTS, &descriptor.0, None, parse_unspent_key);
        owned.try_fold(0, |count, outpoint| outpoint.map(|_| count + 1))
    }

    /// Satoshi in the coinbase outputs of a descriptor in blocks from `height` up to the tip, those
    /// that nothing spends. Looks at what these blocks are known to have: no more work for a
    /// descriptor with a million outputs.
    pub fn descriptor_coinbase_value(
        &self,
        descriptor: &DescriptorId,
        height: u32,
        tip: BlockId,
    ) -> Result<u64, StoreError> {
        let mut sum = 0_u64;
        for height in height..=tip.height {
            let Some(block) = self.block(&height)? else {
                continue;
            };
            let mut outpoints = block.found;
            // In the order of the block.
            if let Some(first) = block.touched.first()
                && let Some(row) = self.tx(first)?
                && matches!(row.status, Status::Confirmed { position: 0, .. })
                && row.nets.iter().any(|net| net.descriptor == *descriptor)
            {
                let outputs = self.transaction(first)?.output.len();
                let vouts = (0..).take(outputs);
                outpoints.extend(vouts.map(|vout| OutPoint { txid: *first, vout }));
            }
            outpoints.sort_unstable();
            outpoints.dedup();
            for outpoint in outpoints {
                if self.owned_output(&(*descriptor, outpoint))?.is_some()
                    && let Some(row) = self.output(&outpoint)?
                    && row.coinbase
                    && row.spent.is_none()
                {
                    sum = sum.saturating_add(row.value);
                }
            }
        }
        Ok(sum)
    }
}
