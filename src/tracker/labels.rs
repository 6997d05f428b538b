//! What people call what they watch. However a label is changed (by itself, by adding again what is
//! watched, by giving an address away), it is told once, with the row in one batch.

use bitcoin::Txid;
use bitcoin::hashes::Hash;

use super::event::{Cause, EventKind};
use super::transition::TransitionBuilder;
use super::{ApplyError, SubjectId, Tracker, Transition, View};

impl Tracker {
    pub(super) fn label(
        &mut self,
        view: &impl View,
        subject: SubjectId,
        label: String,
        now: u64,
    ) -> Result<Transition, ApplyError> {
        let mut builder = TransitionBuilder::new(self, view, now);
        let labelled = match subject {
            SubjectId::Script(script) => {
                let row = builder.changes.watches(script)?.edit();
                &mut row.ok_or(ApplyError::NotWatched(script))?.label
            }
            SubjectId::Descriptor(descriptor) => {
                let row = builder.changes.wallets(descriptor)?.edit();
                &mut row.ok_or(ApplyError::NoSuchDescriptor(descriptor))?.label
            }
        };
        *labelled = label;
        builder.finish(
            Vec::new(),
            Vec::new(),
            |_| Cause::Removed(Txid::all_zeros()),
        )
    }
}

impl<V: View> TransitionBuilder<'_, V> {
    /// Labels that this transition changes.
    pub fn label_news(&mut self, kinds: &mut Vec<EventKind>) -> Result<(), ApplyError> {
        for (id, old, new) in self.changes.label_changes() {
            if let Some(subject) = self.subject(&id)? {
                kinds.push(EventKind::LabelChange { subject, old, new });
            }
        }
        Ok(())
    }
}
