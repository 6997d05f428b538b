//! History scans of descriptors: which scripts are in them, and when they go back.
//!
//! # Laws
//!
//! 1. The scripts of the descriptor enter in the order of their indexes, in portions, as soon as
//!    their baseline is merged, or left out: those that there are at first, and those that uses
//!    which the scan finds bring about.
//! 2. What scripts that enter on the way did in the blocks below is lacking
//!    ([`DescriptorScan::late`]). When the scan is through it goes back, meets those blocks with
//!    all its scripts, and goes on from where it was ([`DescriptorScan::back`]); what it meets a
//!    second time changes nothing. So it ends when a whole way has brought no further script, and
//!    has then brought what a scan would have that knew all of them from the start.
//! 3. Its end is told once for the descriptor, and for those of its scripts that were added by
//!    themselves.
//! 4. When its descriptor is removed it is cancelled at once: also one that no script has entered,
//!    which would have nothing left to do, and speaks for nothing.

use super::descriptors::{Derivation, DescriptorId, DescriptorRow, Keychain};
use super::event::{EventKind, SubjectId};
use super::transition::TransitionBuilder;
use super::{
    ApplyError, BlockId, DescriptorScan, FollowUp, ScanId, ScanRow, ScanState, ScriptHash, Tracker,
    Transition, View, WayBack,
};

impl Tracker {
    pub(super) fn open_descriptor_scan(
        &mut self,
        view: &impl View,
        (scan, descriptor): (ScanId, DescriptorId),
        (from, to): (u32, Option<u32>),
        now: u64,
    ) -> Result<Transition, ApplyError> {
        let Some(row) = view.descriptor(&descriptor)? else {
            return Err(ApplyError::NoSuchDescriptor(descriptor));
        };
        let transition = self.open_scan(view, scan, Vec::new(), from, to, now)?;
        let mut builder = TransitionBuilder::new(self, view, now);
        let of_descriptor = DescriptorScan {
            descriptor,
            entered: vec![0; row.keychains.len()],
            late: None,
            back: None,
            from_height: 0,
        };
        builder
            .changes
            .descriptor_scans(scan)?
            .set(Some(of_descriptor));
        let mut changes = transition.changes;
        changes.add(builder.changes.into_changes());
        Ok(Transition {
            changes,
            ..transition
        })
    }

    pub(super) fn enter_scan_of(
        &mut self,
        view: &impl View,
        scan: ScanId,
    ) -> Result<Transition, ApplyError> {
        let mut builder = TransitionBuilder::new(self, view, 0);
        let row = builder
            .open_row(&scan)?
            .ok_or(ApplyError::NoSuchScan(scan))?;
        let known = builder.changes.descriptor_scan(&scan)?.cloned();
        let mut of_descriptor = known.ok_or(ApplyError::NoSuchScan(scan))?;
        let scripts = builder.next_to_enter(&mut of_descriptor)?;
        if scripts.is_empty() {
            return Ok(Transition::default());
        }
        // Even one that is in it already stands for an index that has come.
        let entered = builder.enter_scan(scan, scripts)?;
        if row.next > row.first() {
            of_descriptor.late = of_descriptor.late.max(Some(row.next));
        }
        // What was met below `then` was met without them.
        of_descriptor.back = None;
        builder
            .changes
            .descriptor_scans(scan)?
            .set(Some(of_descriptor));
        let entered = u32::try_from(entered).unwrap_or(u32::MAX);
        let scripts = row.scripts.saturating_add(entered);
        builder
            .changes
            .scans(scan)?
            .set(Some(ScanRow { scripts, ..row }));
        Ok(Transition {
            changes: builder.changes.into_changes(),
            ..Transition::default()
        })
    }
}

impl<V: View> TransitionBuilder<'_, V> {
    /// A portion of the scripts that are not in the scan, up to one whose baseline is awaited.
    fn next_to_enter(&mut self, scan: &mut DescriptorScan) -> Result<Vec<ScriptHash>, ApplyError> {
        let mut scripts = Vec::new();
        let Some(row) = self.changes.descriptor(&scan.descriptor)?.cloned() else {
            return Ok(scripts);
        };
        for keychain in [Keychain::External, Keychain::Internal] {
            let derived = row.keychain(keychain).map_or(0, |it| it.derived);
            let Some(entered) = scan.entered.get_mut(keychain as usize) else {
                continue;
            };
            while *entered < derived && scripts.len() < self.tracker.portion {
                let place = Derivation {
                    descriptor: scan.descriptor,
                    keychain,
                    index: *entered,
                };
                if let Some(script) = self.changes.derivation(&place)?.copied() {
                    let watch = self.changes.watch(&script)?;
                    if watch.is_some_and(|watch| watch.coverage.is_awaited()) {
                        break;
                    }
                    scripts.push(script);
                }
                *entered = entered.saturating_add(1);
            }
        }
        Ok(scripts)
    }

    /// Whether a scan that is through has something to do before it ends: to go back, or on from
    /// where it was before it did. Refused while the descriptor has, or wants, scripts that are not
    /// in it.
    pub fn turn_back(
        &mut self,
        scan: ScanId,
        row: &ScanRow,
        upto: BlockId,
    ) -> Result<bool, ApplyError> {
        let Some(mut of_descriptor) = self.changes.descriptor_scan(&scan)?.cloned() else {
            return Ok(false);
        };
        let lookahead = self.tracker.lookahead;
        let descriptor = self.changes.descriptor(&of_descriptor.descriptor)?;
        let lacks = |row: &DescriptorRow| {
            let mut keychains = row.keychains.iter().zip(&of_descriptor.entered);
            !row.is_derived_beyond(lookahead)
                || keychains.any(|(it, entered)| it.derived > *entered)
        };
        if descriptor.is_some_and(lacks) {
            let height = upto.height;
            return Err(ApplyError::ScanMoved { scan, height });
        }
        let next = match (of_descriptor.back.take(), of_descriptor.late) {
            (Some(WayBack { upto, then }), _) if row.next >= upto => then.max(row.next),
            // It is not through.
            (Some(_), _) => {
                let height = upto.height;
                return Err(ApplyError::ScanMoved { scan, height });
            }
            (None, Some(upto)) if row.next > row.first() => {
                let then = row.next;
                (of_descriptor.late, of_descriptor.back) = (None, Some(WayBack { upto, then }));
                row.first()
            }
            (None, _) => return Ok(false),
        };
        self.changes
            .descriptor_scans(scan)?
            .set(Some(of_descriptor));
        let row = ScanRow {
            next,
            ..row.clone()
        };
        self.changes.scans(scan)?.set(Some(row));
        self.follow_ups.push(FollowUp::Scans);
        Ok(true)
    }

    /// The descriptor is removed: its scans have nothing to complete any more.
    pub fn cancel_scans_of(&mut self, descriptor: DescriptorId) -> Result<(), ApplyError> {
        for scan in self.tracker.scans.clone() {
            let of_descriptor = self.changes.descriptor_scan(&scan)?;
            if of_descriptor.is_none_or(|it| it.descriptor != descriptor) {
                continue;
            }
            let updated = self.changes.now();
            if let Some(row) = self.changes.scans(scan)?.edit() {
                (row.state, row.updated) = (ScanState::Cancelled, updated);
            }
            self.tracker.scans.remove(&scan);
            self.tracker.ended_scans.insert(scan);
            self.follow_ups.push(FollowUp::Scans);
        }
        Ok(())
    }

    /// Blocks from `next` on have gone. Those that come in their place are met with all scripts,
    /// and may be fewer, so no way leads to where the chain does not reach any more.
    pub fn take_back_way(&mut self, scan: ScanId, next: u32) -> Result<(), ApplyError> {
        let Some(of_descriptor) = self.changes.descriptor_scan(&scan)?.cloned() else {
            return Ok(());
        };
        // Scripts that it has completed are not in it any more, and known from their next baseline
        // on.
        let from_height = match of_descriptor.from_height {
            known if known > next => u32::MAX,
            known => known,
        };
        let lowered = DescriptorScan {
            late: of_descriptor.late.map(|late| late.min(next)),
            back: of_descriptor.back.map(|WayBack { upto, then }| WayBack {
                upto: upto.min(next),
                then: then.min(next),
            }),
            from_height,
            ..of_descriptor.clone()
        };
        if lowered != of_descriptor {
            self.changes.descriptor_scans(scan)?.set(Some(lowered));
        }
        Ok(())
    }

    /// Some scripts of a scan are complete; with the last of them its descriptor is, if it is of
    /// one: what is to be told of that.
    pub fn complete_descriptor(
        &mut self,
        (scan, row): (ScanId, &ScanRow),
        scripts: &[ScriptHash],
        is_last: bool,
        upto: BlockId,
    ) -> Result<Option<EventKind>, ApplyError> {
        let Some(mut of_descriptor) = self.changes.descriptor_scan(&scan)?.cloned() else {
            return Ok(None);
        };
        let from_height = &mut of_descriptor.from_height;
        for script in scripts {
            if let Some(watch) = self.changes.watch(script)? {
                *from_height = (*from_height).max(watch.coverage.from_height);
            }
        }
        let (descriptor, known_from) = (of_descriptor.descriptor, *from_height);
        self.changes
            .descriptor_scans(scan)?
            .set(Some(of_descriptor));
        if !is_last {
            return Ok(None);
        }
        let Some(of_row) = self.changes.descriptors(descriptor)?.edit() else {
            return Ok(None);
        };
        of_row.from_height = of_row.from_height.min(known_from.max(row.first()));
        let from = match of_row.left_out.is_empty() && known_from != u32::MAX {
            true => row.first(),
            false => row.first().max(of_row.from_height),
        };
        let transactions = of_row.tx_count;
        let subject = self.subject(&SubjectId::Descriptor(descriptor))?;
        Ok(subject.map(|subject| EventKind::ScanComplete {
            subject,
            scan,
            from,
            to: upto.height,
            transactions,
        }))
    }
}
