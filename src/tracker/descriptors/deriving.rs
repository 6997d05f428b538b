//! Descriptors that are added, their scripts, and indexes that are given away.

use super::{Derivation, DescriptorId, DescriptorRow, Keychain, KeychainRow, WalletRow};
use crate::tracker::event::Cause;
use crate::tracker::input::DescriptorRequest;
use crate::tracker::transition::TransitionBuilder;
use crate::tracker::{
    ApplyError, Balance, Baseline, FollowUp, ScriptHash, Staged, Tracker, Transition, View,
    all_depths,
};
use bitcoin::ScriptBuf;

impl Tracker {
    /// A descriptor that is there already only gets the new label, depths and window.
    pub(in crate::tracker) fn add_descriptor(
        &mut self,
        view: &impl View,
        descriptor: DescriptorId,
        request: DescriptorRequest,
        now: u64,
    ) -> Result<Transition, ApplyError> {
        if self.leaving.contains(&descriptor) {
            return Err(ApplyError::StillLeaving(descriptor));
        }
        let mut builder = TransitionBuilder::new(self, view, now);
        let known = builder.changes.descriptor(&descriptor)?.cloned();
        let (is_new, gap_limit) = (known.is_none(), request.gap_limit(known.as_ref()));
        let mut row = known.unwrap_or_else(|| builder.new_descriptor(&request));
        let depths = all_depths(None, &row.depths, &request.depths)?;
        row.gap_limit = gap_limit;
        let reach = row.gap_limit.max(request.range);
        for keychain in &mut row.keychains {
            let used = keychain.next_index().saturating_add(row.gap_limit);
            keychain.window = keychain.window.max(reach).max(used);
        }
        if is_new {
            let lookahead = row.lookahead(builder.tracker.lookahead);
            let first = row.end(reach.saturating_add(lookahead));
            for keychain in &mut row.keychains {
                keychain.first = first;
            }
        }
        let added = depths.iter().filter(|depth| !row.depths.contains(depth));
        let added: Vec<u8> = added.copied().collect();
        builder.tracker.count_depths(&added);
        row.depths = depths;
        let wallet = builder.changes.wallet(&descriptor)?.cloned();
        let mut wallet = wallet.unwrap_or(WalletRow {
            text: request.text,
            label: String::new(),
            added: now,
            baseline: request.baseline,
        });
        if let Some(label) = request.label {
            wallet.label = label;
        }
        builder.changes.wallets(descriptor)?.set(Some(wallet));
        builder.changes.descriptors(descriptor)?.set(Some(row));
        for keychain in [Keychain::External, Keychain::Internal] {
            builder.advance(descriptor, keychain)?;
        }
        builder.follow_ups.push(FollowUp::Derive);
        builder.finish(Vec::new(), Vec::new(), no_cause)
    }

    pub(in crate::tracker) fn derived(
        &mut self,
        view: &impl View,
        (descriptor, keychain, first): (DescriptorId, Keychain, u32),
        spks: Vec<ScriptBuf>,
        now: u64,
    ) -> Result<Transition, ApplyError> {
        let row = view.descriptor(&descriptor)?;
        let next = row.and_then(|row| Some(row.keychain(keychain)?.derived));
        if next != Some(first) {
            return Err(ApplyError::NotDerivedTo(Derivation {
                descriptor,
                keychain,
                index: first,
            }));
        }
        let scripts: Vec<ScriptHash> = spks.iter().map(|spk| ScriptHash::of(spk)).collect();
        if let Some(script) = scripts.iter().find(|it| self.forgetting.contains(*it)) {
            return Err(ApplyError::StillForgetting(*script));
        }
        let mut builder = TransitionBuilder::new(self, view, now);
        let wallet = builder.changes.wallet(&descriptor)?;
        let baseline = wallet.map_or(Baseline::Skip, |wallet| wallet.baseline);
        let mut new = Vec::new();
        for ((index, spk), script) in (first..).zip(spks).zip(scripts) {
            let place = Derivation {
                descriptor,
                keychain,
                index,
            };
            new.extend(builder.place(place, script, spk, baseline)?);
        }
        builder.advance(descriptor, keychain)?;
        builder.show_if_whole(descriptor)?;
        builder.ask_for_more(descriptor, baseline)?;
        if !builder.tracker.scans.is_empty() {
            builder.follow_ups.push(FollowUp::Scans);
        }
        let paying = builder.tracker.mempool.paying(new);
        builder.revisit.extend(&paying);
        builder.settle_revisits()?;
        let tip = builder.tracker.tip;
        builder.finish(Vec::new(), Vec::new(), |txid| match txid {
            Some(txid) => Cause::Transaction(txid),
            None => Cause::Baseline(tip.map_or_else(all_zeros, |tip| tip.hash)),
        })
    }

    /// A use is known of, of a script that may not be derived yet.
    pub(in crate::tracker) fn reach(
        &mut self,
        view: &impl View,
        place: Derivation,
        now: u64,
    ) -> Result<Transition, ApplyError> {
        let Derivation {
            descriptor,
            keychain,
            index,
        } = place;
        let mut builder = TransitionBuilder::new(self, view, now);
        let least = builder.tracker.lookahead;
        let row = builder.changes.descriptors(descriptor)?.edit();
        let row = row.ok_or(ApplyError::NoSuchDescriptor(descriptor))?;
        row.reach(keychain, index);
        let lookahead = row.lookahead(least);
        let window = row.keychain(keychain).map_or(0, |it| it.window);
        let first = row.end(window.saturating_add(lookahead));
        let is_first = row.held.is_some();
        if let Some(indexes) = row.keychain_mut(keychain)
            && is_first
            // Those beyond it are watched already, and not awaited.
            && indexes.derived <= indexes.first
        {
            indexes.first = indexes.first.max(first);
        }
        builder.advance(descriptor, keychain)?;
        builder.follow_ups.push(FollowUp::Derive);
        builder.finish(Vec::new(), Vec::new(), no_cause)
    }

    /// An index is given to somebody, and never again.
    pub(in crate::tracker) fn reserve(
        &mut self,
        view: &impl View,
        place: Derivation,
        label: Option<String>,
        now: u64,
    ) -> Result<Transition, ApplyError> {
        let Derivation {
            descriptor,
            keychain,
            index,
        } = place;
        let mut builder = TransitionBuilder::new(self, view, now);
        let row = builder.changes.descriptors(descriptor)?.edit();
        let row = row.ok_or(ApplyError::NoSuchDescriptor(descriptor))?;
        let of_row = row.keychain_mut(keychain);
        let indexes = of_row.ok_or(ApplyError::NotDerivedTo(place))?;
        if index >= indexes.derived {
            return Err(ApplyError::NotDerivedTo(place));
        }
        if index < indexes.next_index() {
            return Err(ApplyError::AlreadyGiven(place));
        }
        indexes.reserved = index.saturating_add(1);
        row.reach(keychain, index);
        let script = builder.changes.derivation(&place)?.copied();
        if let Some((label, script)) = label.zip(script)
            && let Some(watch) = builder.changes.watches(script)?.edit()
        {
            watch.label = label;
        }
        builder.advance(descriptor, keychain)?;
        builder.follow_ups.push(FollowUp::Derive);
        builder.finish(Vec::new(), Vec::new(), no_cause)
    }
}

/// Of an input that moves no balance.
fn no_cause(_: Option<bitcoin::Txid>) -> Cause {
    Cause::Baseline(all_zeros())
}

fn all_zeros() -> bitcoin::BlockHash {
    bitcoin::hashes::Hash::all_zeros()
}

impl<V: View> TransitionBuilder<'_, V> {
    fn new_descriptor(&self, request: &DescriptorRequest) -> DescriptorRow {
        DescriptorRow {
            keychains: vec![KeychainRow::default(); request.keychains],
            is_ranged: request.is_ranged,
            gap_limit: request.gap_limit(None),
            depths: vec![1],
            from_height: 0,
            awaited: 0,
            held: Some(Balance::default()),
            balance: Balance::default(),
            utxo_count: 0,
            tx_count: 0,
            updated: self.changes.now(),
            left_out: Vec::new(),
        }
    }

    /// Watches a script for a descriptor. Answers its fingerprint if it was not watched.
    fn place(
        &mut self,
        place: Derivation,
        script: ScriptHash,
        spk: ScriptBuf,
        baseline: Baseline,
    ) -> Result<Option<u64>, ApplyError> {
        let known = self.changes.watch(&script)?.cloned();
        let is_new = known.is_none();
        let mut watch = known.unwrap_or_else(|| self.new_watch(spk));
        watch.derivations.push(place);
        watch.derivations.sort_unstable();
        let has_past = (watch.outputs, watch.tx_count) != (0, 0);
        let is_wanted = match baseline {
            Baseline::Skip => false,
            Baseline::IfMissing => !watch.coverage.utxos_complete,
            Baseline::Refresh => true,
        };
        if is_wanted {
            if !watch.coverage.pending && !watch.coverage.utxos_complete {
                watch.coverage.staged = Some(Staged::default());
            }
            watch.coverage.pending = true;
        }
        let (is_used, coverage) = (watch.outputs > 0, watch.coverage.clone());
        let fingerprint = self.tracker.fingerprints.script(&watch.spk);
        if is_new {
            let newest = &mut self.tracker.newest_coverage;
            *newest = (*newest).max(watch.coverage.from_height);
            self.tracker.scripts.insert(fingerprint);
        }
        self.changes.watches(script)?.set(Some(watch));
        self.changes.derivations(place)?.set(Some(script));
        let waits = self.awaits_baseline(&place)? && !coverage.utxos_complete;
        if let Some(row) = self.changes.descriptors(place.descriptor)?.edit()
            && let Some(keychain) = row.keychain_mut(place.keychain)
        {
            keychain.derived = place.index.saturating_add(1);
            // Of scripts that come later only the join is awaited: their baseline is not.
            let is_first = place.index < keychain.first;
            if waits && coverage.left_out {
                row.leave_out(place);
            } else if waits && is_first || coverage.in_portions {
                row.awaited = row.awaited.saturating_add(1);
            }
            row.awaited = row.awaited.saturating_add(u64::from(has_past));
            if has_past || coverage.in_portions {
                // What it brings is told as a whole.
                row.held.get_or_insert(row.balance);
            }
        }
        if has_past {
            self.changes.joining(place)?.set(Some(()));
            self.tracker.joining.insert(place);
        }
        if is_used {
            self.use_begins(&place)?;
        }
        Ok(is_new.then_some(fingerprint))
    }

    /// For more scripts, or for the baseline of those that have come, once all have.
    fn ask_for_more(
        &mut self,
        descriptor: DescriptorId,
        baseline: Baseline,
    ) -> Result<(), ApplyError> {
        let lookahead = self.tracker.lookahead;
        let Some(row) = self.changes.descriptor(&descriptor)? else {
            return Ok(());
        };
        let follow_up = match (row.is_derived_beyond(lookahead), baseline) {
            (false, _) => FollowUp::Derive,
            (true, Baseline::Skip) => return Ok(()),
            (true, Baseline::IfMissing | Baseline::Refresh) => FollowUp::Baseline,
        };
        if !self.follow_ups.contains(&follow_up) {
            self.follow_ups.push(follow_up);
        }
        Ok(())
    }
}
