//! What comes to a descriptor a portion at a time: the past of scripts that had one when they came
//! to it, and knowledge of very many of its scripts.

use crate::tracker::event::Cause;
use crate::tracker::state::Joining;
use crate::tracker::transition::TransitionBuilder;
use crate::tracker::{ApplyError, Tracker, Transition, View};

impl Tracker {
    /// Whether there is something for [`Input::Join`](crate::tracker::Input::Join) to do.
    pub fn has_to_join(&self) -> bool {
        !self.joining.is_empty() || !self.advancing.is_empty()
    }

    pub(in crate::tracker) fn join(
        &mut self,
        view: &impl View,
        now: u64,
    ) -> Result<Transition, ApplyError> {
        let mut builder = TransitionBuilder::new(self, view, now);
        let mut room = builder.tracker.portion;
        builder.advance_portion(&mut room)?;
        while room > 0 {
            let begun = builder.tracker.joined_to.take();
            let next = builder.tracker.joining.first().map(|place| Joining {
                place: *place,
                history: None,
                unspent: None,
            });
            let Some(mut joining) = begun.or(next) else {
                break;
            };
            if !builder.join_rows(view, &mut joining, &mut room)? {
                builder.tracker.joined_to = Some(joining);
                break;
            }
            let place = joining.place;
            builder.changes.joining(place)?.set(None);
            builder.tracker.joining.remove(&place);
            if let Some(row) = builder.changes.descriptors(place.descriptor)?.edit() {
                row.awaited = row.awaited.saturating_sub(1);
            }
            builder.show_if_whole(place.descriptor)?;
            // Even what has no rows is a look.
            room = room.saturating_sub(1);
        }
        let tip = builder.tracker.tip;
        let hash = tip.map_or_else(bitcoin::hashes::Hash::all_zeros, |tip| tip.hash);
        builder.finish(Vec::new(), Vec::new(), |_| Cause::Baseline(hash))
    }
}

impl<V: View> TransitionBuilder<'_, V> {
    /// At most about `room` rows, which is made less by them; answers whether none is left.
    fn join_rows(
        &mut self,
        view: &V,
        joining: &mut Joining,
        room: &mut usize,
    ) -> Result<bool, ApplyError> {
        let descriptor = joining.place.descriptor;
        if self.changes.descriptor(&descriptor)?.is_none() {
            return Ok(true);
        }
        let Some(script) = self.changes.derivation(&joining.place)?.copied() else {
            return Ok(true);
        };
        for outpoint in view.unspent(&script, joining.unspent, *room)? {
            self.changes.join_output(descriptor, outpoint)?;
            joining.unspent = Some(outpoint);
            *room = room.saturating_sub(1);
        }
        for place in view.history(&script, joining.history, *room)? {
            if *room == 0 {
                break;
            }
            if let Some(row) = self.changes.tx(&place.1)?.cloned() {
                *room = room.saturating_sub(1 + row.touches.len());
                self.changes.put_tx(place.1, row)?;
            }
            joining.history = Some(place);
        }
        Ok(*room > 0)
    }
}
