//! Descriptors that are not watched any more: their rows go in portions, and with them the scripts
//! that only they had.

use bitcoin::Txid;

use super::{Derivation, DescriptorId};
use crate::tracker::event::{Cause, EventKind, Subject};
use crate::tracker::state::{Leaving, Removal};
use crate::tracker::transition::TransitionBuilder;
use crate::tracker::{ApplyError, Tracker, Transition, View};

impl Tracker {
    pub(in crate::tracker) fn remove_descriptor(
        &mut self,
        view: &impl View,
        descriptor: DescriptorId,
        now: u64,
    ) -> Result<Transition, ApplyError> {
        let mut builder = TransitionBuilder::new(self, view, now);
        let Some(row) = builder.changes.descriptor(&descriptor)?.cloned() else {
            return Err(ApplyError::NoSuchDescriptor(descriptor));
        };
        builder.tracker.uncount_depths(&row.depths);
        builder.tracker.leaving.insert(descriptor);
        builder.changes.descriptors(descriptor)?.set(None);
        builder.changes.wallets(descriptor)?.set(None);
        builder.changes.leaving(descriptor)?.set(Some(()));
        builder.cancel_scans_of(descriptor)?;
        let subject = Subject::Descriptor(descriptor);
        builder.finish(Vec::new(), vec![EventKind::Unwatched { subject }], |_| {
            Cause::Removed(Txid::from_raw_hash(bitcoin::hashes::Hash::all_zeros()))
        })
    }
}

impl<V: View> TransitionBuilder<'_, V> {
    /// At most about `room` rows of the descriptors that are leaving, which is made less by them.
    /// Answers which scripts went with them.
    pub fn leave(&mut self, view: &V, room: &mut usize) -> Result<Vec<EventKind>, ApplyError> {
        let mut told = Vec::new();
        while *room > 0 {
            let begun = self.tracker.left_to.take();
            let next = self.tracker.leaving.first().map(|descriptor| Leaving {
                descriptor: *descriptor,
                history: None,
                output: None,
                derivation: None,
            });
            let Some(mut leaving) = begun.or(next) else {
                break;
            };
            if !self.leave_rows(view, &mut leaving, room, &mut told)? {
                self.tracker.left_to = Some(leaving);
                break;
            }
            let descriptor = leaving.descriptor;
            self.changes.leaving(descriptor)?.set(None);
            self.tracker.leaving.remove(&descriptor);
            *room = room.saturating_sub(1);
        }
        Ok(told)
    }

    /// Answers whether none is left.
    fn leave_rows(
        &mut self,
        view: &V,
        leaving: &mut Leaving,
        room: &mut usize,
        told: &mut Vec<EventKind>,
    ) -> Result<bool, ApplyError> {
        let descriptor = leaving.descriptor;
        for place in view.descriptor_history(&descriptor, leaving.history, *room)? {
            if *room == 0 {
                break;
            }
            if let Some(mut row) = self.changes.tx(&place.1)?.cloned() {
                *room = room.saturating_sub(1);
                row.nets.retain(|net| net.descriptor != descriptor);
                self.changes.rewrite_tx(place.1, row)?;
            }
            leaving.history = Some(place);
        }
        for outpoint in view.owned_by(&descriptor, leaving.output, *room)? {
            self.changes
                .owned_outputs((descriptor, outpoint))?
                .set(None);
            leaving.output = Some(outpoint);
            *room = room.saturating_sub(1);
        }
        for place in view.derivations_of(&descriptor, leaving.derivation, *room)? {
            if *room == 0 {
                break;
            }
            self.leave_script(view, place, room, told)?;
            leaving.derivation = Some((place.keychain, place.index));
        }
        Ok(*room > 0)
    }

    /// A script is not of this descriptor any more. It is forgotten if nothing else wants it.
    fn leave_script(
        &mut self,
        view: &V,
        place: Derivation,
        room: &mut usize,
        told: &mut Vec<EventKind>,
    ) -> Result<(), ApplyError> {
        *room = room.saturating_sub(2);
        let script = self.changes.derivation(&place)?.copied();
        self.leave_place(place)?;
        let Some(script) = script else { return Ok(()) };
        let Some(watch) = self.changes.watches(script)?.edit() else {
            return Ok(());
        };
        watch.derivations.retain(|it| *it != place);
        if watch.listed || !watch.derivations.is_empty() {
            return Ok(());
        }
        // Who subscribed to an address put it on the list. Of others those are told of which
        // something was told, not a thousand that were looked ahead.
        let has_past = (watch.tx_count, watch.utxo_count) != (0, 0);
        let event = self.forget_script(view, &mut Removal::of(script), room)?;
        told.extend(event.filter(|_| has_past));
        Ok(())
    }

    /// Nothing stands at this place any more, and nothing joins from there.
    pub fn leave_place(&mut self, place: Derivation) -> Result<(), ApplyError> {
        self.changes.derivations(place)?.set(None);
        let joined_to = &mut self.tracker.joined_to;
        joined_to.take_if(|joining| joining.place == place);
        if self.tracker.joining.remove(&place) {
            self.changes.joining(place)?.set(None);
        }
        Ok(())
    }
}
