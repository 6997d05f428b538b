//! Which indexes are used, and how far a descriptor looks.

use super::{Derivation, DescriptorId, DescriptorRow, Keychain, LOOKAHEAD};
use crate::tracker::event::Cause;
use crate::tracker::state::{MergeStage, Merging};
use crate::tracker::transition::TransitionBuilder;
use crate::tracker::{
    ApplyError, Baseline, Coverage, FollowUp, ScriptHash, Tracker, Transition, View,
};

impl DescriptorRow {
    /// An index is used or reserved: the window reaches the gap limit beyond it.
    pub(super) fn reach(&mut self, keychain: Keychain, index: u32) {
        let gap_limit = self.gap_limit;
        if let Some(row) = self.keychain_mut(keychain) {
            let window = index.saturating_add(1).saturating_add(gap_limit);
            row.window = row.window.max(window);
        }
    }

    /// The node cannot tell what a script owned, because it is so much: it is used, though no
    /// output of it is known, and its index is given to nobody.
    pub(super) fn leave_out(&mut self, place: Derivation) {
        self.left_out.push(place);
        self.left_out.sort_unstable();
        self.reach(place.keychain, place.index);
        if let Some(indexes) = self.keychain_mut(place.keychain) {
            indexes.reserved = indexes.reserved.max(place.index.saturating_add(1));
        }
    }

    /// How far its scripts are to be derived, if they are not.
    pub fn wants(&self, keychain: Keychain) -> Option<u32> {
        self.wants_beyond(keychain, LOOKAHEAD)
    }

    /// The same, when at least so many scripts are watched beyond the window.
    pub fn wants_beyond(&self, keychain: Keychain, lookahead: u32) -> Option<u32> {
        let row = self.keychain(keychain)?;
        let lookahead = self.lookahead(lookahead);
        let enough = self.end(row.window.saturating_add(lookahead));
        // Some more, so that not each use asks for a script. The first time it is exact.
        let more = match row.derived < row.first {
            true => 0,
            false => lookahead / 10,
        };
        (row.derived < enough).then(|| self.end(enough.saturating_add(more)))
    }

    /// Not beyond the last script that there is.
    pub fn end(&self, index: u32) -> u32 {
        index.min(if self.is_ranged { END } else { 1 })
    }

    /// Whether all scripts of the first baseline are watched.
    pub(super) fn has_first(&self) -> bool {
        self.keychains.iter().all(|row| row.derived >= row.first)
    }

    /// Whether it waits for the past of this script before it counts as whole.
    fn counts(&self, place: &Derivation) -> bool {
        let row = self.keychain(place.keychain);
        row.is_some_and(|row| place.index < row.first.max(row.watched_to))
    }

    /// Whether it does so while this much of that is known; if not by itself (`waits`), then while
    /// it comes in portions.
    fn awaits(&self, place: &Derivation, known: &Coverage, waits: bool) -> bool {
        known.in_portions || waits && !known.left_out && self.counts(place)
    }
}

/// Indexes end here: those above are hardened (BIP 32).
const END: u32 = 1 << 31;

impl Tracker {
    /// What a script owned is not awaited any more. If some of it has come already, a portion of
    /// that goes, and with the last one nothing of it is awaited.
    pub(in crate::tracker) fn leave_out(
        &mut self,
        view: &impl View,
        script: ScriptHash,
        now: u64,
    ) -> Result<Transition, ApplyError> {
        let mut builder = TransitionBuilder::new(self, view, now);
        let coverage = builder
            .changes
            .watch(&script)?
            .map(|it| it.coverage.clone());
        let leaves_out = |it: &Coverage| it.is_awaited() && !it.utxos_complete;
        let Some(coverage) = coverage.filter(leaves_out) else {
            return Ok(Transition::default());
        };
        if !coverage.in_portions || builder.drop_found(script)? {
            builder.go_on_without_past(script, &coverage)?;
            builder.follow_ups.push(FollowUp::Scans);
            builder.follow_ups.push(FollowUp::Derive);
        }
        let tip = builder.tracker.tip;
        let hash = tip.map_or_else(bitcoin::hashes::Hash::all_zeros, |tip| tip.hash);
        builder.finish(Vec::new(), Vec::new(), |_| Cause::Baseline(hash))
    }
}

impl<V: View> TransitionBuilder<'_, V> {
    /// Follows the uses that have begun or ended in this transition.
    pub fn settle_uses(&mut self) -> Result<(), ApplyError> {
        for script in std::mem::take(&mut self.changes.used) {
            let Some(watch) = self.changes.watch(&script)? else {
                continue;
            };
            let (is_used, places) = (watch.outputs > 0, watch.derivations.clone());
            for place in places {
                match is_used {
                    true => self.use_begins(&place)?,
                    false => self.use_ends(&place)?,
                }
            }
        }
        Ok(())
    }

    pub(super) fn use_begins(&mut self, place: &Derivation) -> Result<(), ApplyError> {
        let (descriptor, lookahead) = (place.descriptor, self.tracker.lookahead);
        let Some(row) = self.changes.descriptors(descriptor)?.edit() else {
            return Ok(());
        };
        row.reach(place.keychain, place.index);
        if let Some(keychain) = row.keychain_mut(place.keychain) {
            keychain.last_used = keychain.last_used.max(Some(place.index));
        }
        let wants = row.wants_beyond(place.keychain, lookahead).is_some();
        if wants && !self.follow_ups.contains(&FollowUp::Derive) {
            self.follow_ups.push(FollowUp::Derive);
        }
        self.advance(descriptor, place.keychain)
    }

    /// If it was the last one, the one before it is looked for. It is not given to anybody again:
    /// somebody may have it.
    fn use_ends(&mut self, place: &Derivation) -> Result<(), ApplyError> {
        let row = self.changes.descriptors(place.descriptor)?.edit();
        let Some(indexes) = row.and_then(|row| row.keychain_mut(place.keychain)) else {
            return Ok(());
        };
        if indexes.last_used != Some(place.index) {
            return Ok(());
        }
        indexes.reserved = indexes.next_index();
        self.find_last_used(place.descriptor, place.keychain)
    }

    /// Looks from the last used index down to one that is, a portion of them; the rest is left for
    /// [`Self::advance_portion`].
    fn find_last_used(
        &mut self,
        descriptor: DescriptorId,
        keychain: Keychain,
    ) -> Result<(), ApplyError> {
        let row = self.changes.descriptor(&descriptor)?;
        let Some(last_used) = row.and_then(|row| row.keychain(keychain)?.last_used) else {
            return Ok(());
        };
        let (mut index, mut room) = (Some(last_used), self.tracker.portion);
        while let Some(at) = index {
            if room == 0 {
                self.tracker.advancing.insert((descriptor, keychain));
                break;
            }
            let place = Derivation {
                descriptor,
                keychain,
                index: at,
            };
            let script = self.changes.derivation(&place)?.copied();
            let watch = match script {
                Some(script) => self.changes.watch(&script)?,
                None => None,
            };
            if watch.is_some_and(|watch| watch.outputs > 0) {
                break;
            }
            (index, room) = (at.checked_sub(1), room - 1);
        }
        if index != Some(last_used)
            && let Some(row) = self.changes.descriptors(descriptor)?.edit()
            && let Some(indexes) = row.keychain_mut(keychain)
        {
            indexes.last_used = index;
        }
        Ok(())
    }

    /// What is known of the scripts up to the window is what the descriptor speaks for: further,
    /// when more is known. A portion of them; the rest is left for [`Self::advance_portion`].
    pub(super) fn advance(
        &mut self,
        descriptor: DescriptorId,
        keychain: Keychain,
    ) -> Result<(), ApplyError> {
        let Some(mut row) = self.changes.descriptor(&descriptor)?.cloned() else {
            return Ok(());
        };
        let Some(mut indexes) = row.keychain(keychain).copied() else {
            return Ok(());
        };
        let from = indexes.watched_to;
        let to = indexes.window.min(indexes.derived);
        if from >= to {
            return Ok(());
        }
        let portion = u32::try_from(self.tracker.portion).unwrap_or(u32::MAX);
        let until = to.min(from.saturating_add(portion));
        let is_wanted = self.awaits_baseline(&Derivation {
            descriptor,
            keychain,
            index: from,
        })?;
        while indexes.watched_to < until {
            let place = Derivation {
                descriptor,
                keychain,
                index: indexes.watched_to,
            };
            let script = self.changes.derivation(&place)?.copied();
            let watch = match script {
                Some(script) => self.changes.watch(&script)?,
                None => None,
            };
            let coverage = watch.map(|watch| &watch.coverage);
            let is_enough =
                |it: &&Coverage| it.utxos_complete || !is_wanted || row.left_out.contains(&place);
            let Some(coverage) = coverage.filter(is_enough) else {
                break;
            };
            row.from_height = row.from_height.max(coverage.from_height);
            indexes.watched_to += 1;
        }
        if until < to && indexes.watched_to == until {
            self.tracker.advancing.insert((descriptor, keychain));
        }
        if indexes.watched_to != from {
            if let Some(of_row) = row.keychain_mut(keychain) {
                *of_row = indexes;
            }
            self.changes.descriptors(descriptor)?.set(Some(row));
        }
        Ok(())
    }

    /// Goes on with what [`Self::advance`] has left, which takes `room`.
    pub(super) fn advance_portion(&mut self, room: &mut usize) -> Result<(), ApplyError> {
        if let Some((descriptor, keychain)) = self.tracker.advancing.pop_first() {
            self.find_last_used(descriptor, keychain)?;
            self.advance(descriptor, keychain)?;
            *room = 0;
        }
        Ok(())
    }

    /// After a reorg: less is known of a script, which was whole before or not.
    pub fn past_reopened(
        &mut self,
        script: &ScriptHash,
        was_whole: bool,
    ) -> Result<(), ApplyError> {
        let Some(watch) = self.changes.watch(script)? else {
            return Ok(());
        };
        let (places, from_height) = (watch.derivations.clone(), watch.coverage.from_height);
        for place in places {
            let is_awaited = self.awaits_baseline(&place)? && was_whole;
            if let Some(row) = self.changes.descriptors(place.descriptor)?.edit() {
                let more = u64::from(is_awaited && row.counts(&place));
                row.awaited = row.awaited.saturating_add(more);
                row.from_height = row.from_height.min(from_height);
            }
        }
        Ok(())
    }

    /// Whether the past of its scripts is asked for.
    pub(super) fn awaits_baseline(&mut self, place: &Derivation) -> Result<bool, ApplyError> {
        let wallet = self.changes.wallet(&place.descriptor)?;
        Ok(wallet.is_some_and(|wallet| wallet.baseline != Baseline::Skip))
    }

    /// What a script owned before it was watched is known now. Until now that was so much of it:
    /// `before`.
    pub fn past_known(&mut self, script: &ScriptHash, before: &Coverage) -> Result<(), ApplyError> {
        let Some(watch) = self.changes.watch(script)? else {
            return Ok(());
        };
        let (places, from_height) = (watch.derivations.clone(), watch.coverage.from_height);
        // A window may move with the first of them over the next.
        for place in &places {
            let waits = self.awaits_baseline(place)?;
            let Some(row) = self.changes.descriptors(place.descriptor)?.edit() else {
                continue;
            };
            if row.awaits(place, before, waits) {
                row.awaited = row.awaited.saturating_sub(1);
            }
            row.left_out.retain(|it| it != place);
            let keychain = row.keychain(place.keychain);
            if waits && keychain.is_some_and(|it| place.index < it.watched_to) {
                row.from_height = row.from_height.max(from_height);
            }
        }
        self.go_on_without(places)
    }

    /// A portion of the outputs that have come of a baseline goes. Answers whether none is left.
    fn drop_found(&mut self, script: ScriptHash) -> Result<bool, ApplyError> {
        let begun = self.tracker.merging.take_if(|it| it.script == script);
        let after = match begun.map(|it| it.stage) {
            Some(MergeStage::Dropped(upto)) => upto,
            _ => None,
        };
        let room = self.tracker.portion;
        let page = self.changes.view().unspent(&script, after, room)?;
        let (is_last, upto) = (page.len() < room, page.last().copied());
        for outpoint in page {
            let height = self.changes.output(&outpoint)?.and_then(|row| row.height);
            let watch = self.changes.watch(&script)?;
            if watch.is_some_and(|watch| watch.coverage.is_staged(height)) {
                self.put_output(outpoint, None)?;
            }
        }
        if !is_last {
            let stage = MergeStage::Dropped(upto);
            self.tracker.merging = Some(Merging { script, stage });
        }
        Ok(is_last)
    }

    /// A script, of whose past so much was known or awaited, is left out.
    fn go_on_without_past(
        &mut self,
        script: ScriptHash,
        before: &Coverage,
    ) -> Result<(), ApplyError> {
        let Some(watch) = self.changes.watches(script)?.edit() else {
            return Ok(());
        };
        (watch.coverage.left_out, watch.coverage.in_portions) = (true, false);
        let places = watch.derivations.clone();
        for place in &places {
            let waits = self.awaits_baseline(place)?;
            let Some(row) = self.changes.descriptors(place.descriptor)?.edit() else {
                continue;
            };
            if row.awaits(place, before, waits) {
                row.awaited = row.awaited.saturating_sub(1);
            }
            if waits {
                row.leave_out(*place);
            }
        }
        self.go_on_without(places)
    }

    /// The scripts at these places are awaited no more.
    fn go_on_without(&mut self, places: Vec<Derivation>) -> Result<(), ApplyError> {
        for place in places {
            self.advance(place.descriptor, place.keychain)?;
            self.show_if_whole(place.descriptor)?;
        }
        Ok(())
    }

    /// The outputs of a script begin to come in portions, set aside: its descriptors tell no
    /// balance before all are there.
    pub fn come_in_portions(&mut self, script: &ScriptHash) -> Result<(), ApplyError> {
        let watch = self.changes.watches(*script)?.edit();
        let Some(watch) = watch.filter(|watch| watch.coverage.staged.is_some()) else {
            return Ok(());
        };
        let (before, places) = (watch.coverage.clone(), watch.derivations.clone());
        (watch.coverage.in_portions, watch.coverage.left_out) = (true, false);
        for place in places {
            let waits = self.awaits_baseline(&place)?;
            let Some(row) = self.changes.descriptors(place.descriptor)?.edit() else {
                continue;
            };
            if !row.awaits(&place, &before, waits) {
                row.awaited = row.awaited.saturating_add(1);
            }
            row.left_out.retain(|it| *it != place);
            row.held.get_or_insert(row.balance);
        }
        Ok(())
    }

    /// The balance of a descriptor is told from now on, if nothing of its past is awaited.
    pub(super) fn show_if_whole(&mut self, descriptor: DescriptorId) -> Result<(), ApplyError> {
        if let Some(row) = self.changes.descriptors(descriptor)?.edit()
            && row.held.is_some()
            && row.awaited == 0
            && row.has_first()
        {
            row.held = None;
        }
        Ok(())
    }
}
