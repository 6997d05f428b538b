//! The open scans, read from the store, and which of them go next, and how far.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::store::{Snapshot, StoreError, StoreReader};
use crate::tracker::{DescriptorScan, Keychain, ScanId, ScanRow};

/// Scripts of one batch, so that memory stays bounded however many scans are open.
const UNION: u64 = 2_000_000;
/// Scans of one batch: what each found is counted on the indexer's thread.
const SCANS: usize = 1000;
/// Scripts of a descriptor enter its scan when they are this part of those that are in it, or when
/// they are so many: half of those that are watched beyond the used ones.
const GROWS: u32 = 16;
const GROWS_MOST: u32 = 500;
/// The part of its own way that the shortest scan waits for others, to go on together with them.
/// Without it, scans that are opened one after the other, each for the last thousand blocks, would
/// each read all of their blocks alone, the last one first.
const BEHIND: u32 = 4;

pub(super) type OpenScans = BTreeMap<ScanId, OpenScan>;

pub(super) struct OpenScan {
    pub(super) row: ScanRow,
    /// First height from which all its scripts are known; while a baseline is to come, of those
    /// that were looked at.
    pub(super) reach: u32,
    /// The baseline of one of its scripts is to come.
    pub(super) pending: bool,
    /// Of one that is for a descriptor.
    pub(super) descriptor: Option<DescriptorScan>,
    /// Scripts that the descriptor has, or wants, and that are not in it.
    pub(super) missing: u32,
    pub(super) held: Option<ScanPause>,
}

/// Why a scan does not go on for a while.
pub(super) struct ScanPause {
    pub(super) until: Instant,
    pub(super) why: String,
}

impl OpenScan {
    /// First height that need not be scanned, as far as is known.
    pub(super) fn end(&self) -> u32 {
        let covered = self
            .row
            .to
            .map_or(self.reach, |to| self.reach.min(to.saturating_add(1)));
        let back = self.descriptor.as_ref().and_then(|it| it.back);
        back.map_or(covered, |back| back.upto)
    }

    /// Whether scripts that are not in it are to enter now. Each time all that is in memory for it
    /// is made anew, so it is done for few of them only where that is little, and at its end.
    pub(super) fn has_to_grow(&self) -> bool {
        let is_through = self.row.next >= self.end();
        let enough = (self.row.scripts / GROWS).clamp(1, GROWS_MOST);
        self.missing >= enough || is_through && self.missing > 0
    }

    /// Nothing keeps it from going on, or from ending.
    pub(super) fn is_free(&self, now: Instant) -> bool {
        !self.pending && self.held.as_ref().is_none_or(|held| held.until <= now)
    }

    pub(super) fn hold(&mut self, pause: Duration, why: String) {
        let until = Instant::now() + pause;
        self.held = Some(ScanPause { until, why });
    }
}

/// The open scans as the store has them. Scripts are read anew only for those of `known` that wait
/// for a baseline, that went another way than we led them, or that would go beyond our tip: after a
/// reorg their scripts may be covered from lower down.
pub(super) fn refresh(reader: &StoreReader, mut known: OpenScans) -> Result<OpenScans, StoreError> {
    let snapshot = reader.snapshot();
    let above = snapshot
        .tip()?
        .map_or(0, |tip| tip.height.saturating_add(1));
    let mut scans = OpenScans::new();
    for scan in snapshot.open_scans()? {
        let Some(row) = snapshot.scan(&scan)? else {
            continue;
        };
        let known = known.remove(&scan);
        let same_way = known.as_ref().filter(|open| {
            let way = |row: &ScanRow| (row.next, row.horizon, row.scripts);
            !open.pending && open.end() <= above && way(&open.row) == way(&row)
        });
        let (reach, pending) = match same_way {
            Some(open) => (open.reach, false),
            None => survey(&snapshot, &scan)?,
        };
        let descriptor = snapshot.descriptor_scan(&scan)?;
        let missing = match &descriptor {
            Some(descriptor) => missing(&snapshot, descriptor)?,
            None => 0,
        };
        let open = OpenScan {
            row,
            reach,
            pending,
            descriptor,
            missing,
            held: known.and_then(|open| open.held),
        };
        scans.insert(scan, open);
    }
    Ok(scans)
}

fn missing(snapshot: &Snapshot<'_>, scan: &DescriptorScan) -> Result<u32, StoreError> {
    let Some(row) = snapshot.descriptor(&scan.descriptor)? else {
        return Ok(0);
    };
    let keychains = [Keychain::External, Keychain::Internal];
    let each = keychains.into_iter().zip(&scan.entered);
    let each = each.map(|(keychain, entered)| {
        let derived = row.keychain(keychain).map_or(0, |it| it.derived);
        row.wants(keychain)
            .unwrap_or(derived)
            .saturating_sub(*entered)
    });
    Ok(each.fold(0, u32::saturating_add))
}

/// From which height on the scripts are known, and whether a baseline is to come.
fn survey(snapshot: &Snapshot<'_>, scan: &ScanId) -> Result<(u32, bool), StoreError> {
    let mut reach = 0;
    for script in snapshot.scan_scripts(scan)? {
        let Some(coverage) = snapshot.watch(&script)?.map(|row| row.coverage) else {
            continue;
        };
        reach = reach.max(coverage.from_height);
        if coverage.is_awaited() {
            return Ok((reach, true));
        }
    }
    Ok((reach, false))
}

/// A scan that can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ScanCandidate {
    pub(super) scan: ScanId,
    /// First height that is not scanned.
    pub(super) next: u32,
    /// First height that need not be; above `next`.
    pub(super) end: u32,
    pub(super) scripts: u32,
}

impl ScanCandidate {
    fn left(&self) -> u32 {
        self.end.saturating_sub(self.next)
    }
}

/// Scans that go the same way for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) next: u32,
    /// Last height of it: there one of them ends, or others join.
    pub(super) stop: u32,
    /// Shortest first.
    pub(super) scans: Vec<ScanId>,
}

/// The scan with the least to do goes first, so that a short one never waits for a long one, and
/// all that are at the same height go with it: blocks cost the same for one script and for many.
/// Who is a little behind it is fetched first, so that they go on together; that makes its own way
/// longer by one part in [`BEHIND`] at most.
pub(super) fn choose(candidates: &[ScanCandidate]) -> Option<Choice> {
    let mut going: Vec<_> = candidates.iter().filter(|scan| scan.left() > 0).collect();
    going.sort_unstable_by_key(|scan| (scan.left(), scan.scan));
    let shortest = going.first()?;
    let near = shortest.next.saturating_sub(shortest.left() / BEHIND)..=shortest.next;
    let heights = || going.iter().map(|scan| scan.next);
    let next = heights().filter(|next| near.contains(next)).min()?;
    let joins = heights().filter(|height| *height > next).min();
    let along = || going.iter().filter(|scan| scan.next == next);
    let end = along().next()?.end;
    let mut scripts = 0;
    let scans = along().take_while(|scan| {
        let fits = scripts == 0 || scripts + u64::from(scan.scripts) <= UNION;
        scripts += u64::from(scan.scripts).max(1);
        fits
    });
    Some(Choice {
        next,
        stop: joins.map_or(end, |joins| joins.min(end)).saturating_sub(1),
        scans: scans.take(SCANS).map(|scan| scan.scan).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(scan: u64, next: u32, end: u32) -> ScanCandidate {
        ScanCandidate {
            scan: ScanId(scan),
            next,
            end,
            scripts: 1,
        }
    }

    fn chosen(candidates: &[ScanCandidate]) -> Option<(u32, u32, Vec<u64>)> {
        choose(candidates).map(|choice| {
            (
                choice.next,
                choice.stop,
                choice.scans.iter().map(|scan| scan.0).collect(),
            )
        })
    }

    #[test]
    fn the_shortest_scan_goes_first_up_to_its_end() {
        assert_eq!(
            chosen(&[candidate(1, 0, 900), candidate(2, 880, 890)]),
            Some((880, 889, vec![2]))
        );
        assert_eq!(chosen(&[]), None);
    }

    #[test]
    fn scans_at_the_same_height_share_the_walk_up_to_the_first_end_among_them() {
        assert_eq!(
            chosen(&[
                candidate(1, 5, 900),
                candidate(2, 5, 50),
                candidate(3, 5, 60)
            ]),
            Some((5, 49, vec![2, 3, 1]))
        );
    }

    #[test]
    fn a_walk_stops_where_others_wait_to_join() {
        assert_eq!(
            chosen(&[candidate(1, 0, 100), candidate(2, 40, 1000)]),
            Some((0, 39, vec![1]))
        );
        assert_eq!(
            chosen(&[candidate(1, 40, 100), candidate(2, 40, 1000)]),
            Some((40, 99, vec![1, 2]))
        );
    }

    #[test]
    fn who_is_a_little_behind_is_fetched_first_and_who_is_far_behind_is_not() {
        assert_eq!(
            chosen(&[candidate(1, 30, 70), candidate(2, 20, 900)]),
            Some((20, 29, vec![2]))
        );
        assert_eq!(
            chosen(&[candidate(1, 30, 70), candidate(2, 19, 900)]),
            Some((30, 69, vec![1]))
        );
    }

    /// As when people ask for the last thousand blocks one after the other.
    #[test]
    fn scans_from_many_heights_read_every_block_about_once() {
        let mut scans: Vec<_> = (0..300).map(|n| candidate(u64::from(n), n, 3000)).collect();
        let mut read = 0;
        while let Some(choice) = choose(&scans) {
            read += choice.stop + 1 - choice.next;
            scans
                .iter_mut()
                .filter(|scan| choice.scans.contains(&scan.scan))
                .for_each(|scan| scan.next = choice.stop + 1);
        }
        assert_eq!(read, 3000);
    }

    #[test]
    fn scans_without_anything_to_do_are_left_out() {
        assert_eq!(chosen(&[candidate(1, 7, 7), candidate(2, 9, 3)]), None);
        assert_eq!(
            chosen(&[candidate(1, 7, 7), candidate(2, 7, 9)]),
            Some((7, 8, vec![2]))
        );
    }

    #[test]
    fn a_walk_has_a_bounded_number_of_scripts_but_at_least_one_scan() {
        let many = |scan, end| ScanCandidate {
            scripts: 1_500_000,
            ..candidate(scan, 0, end)
        };
        assert_eq!(chosen(&[many(1, 90), many(2, 80)]), Some((0, 79, vec![2])));
        let crowd: Vec<_> = (0..1500).map(|scan| candidate(scan, 0, 9)).collect();
        assert_eq!(
            choose(&crowd).map(|choice| (choice.stop, choice.scans.len())),
            Some((8, SCANS))
        );
        let huge = ScanCandidate {
            scripts: u32::MAX,
            ..candidate(3, 0, 9)
        };
        assert_eq!(chosen(&[huge]), Some((0, 8, vec![3])));
    }
}
