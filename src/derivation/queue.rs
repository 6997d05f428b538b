//! Which scripts are wanted, and whose turn it is.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};

use crate::store::{StoreError, StoreReader};
use crate::tracker::{DescriptorId, Keychain};

/// Descriptors that are read in one step.
const PAGE: usize = 1000;

type Place = (DescriptorId, Keychain);

/// Scripts of one keychain, from one index up to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeychainRange {
    pub(super) descriptor: DescriptorId,
    pub(super) keychain: Keychain,
    pub(super) from: u32,
    pub(super) to: u32,
}

impl KeychainRange {
    fn place(&self) -> Place {
        (self.descriptor, self.keychain)
    }
}

/// What is wanted of all descriptors. In turns it is that of the keychain that wants least, so that
/// it is done soon, and that of the next one in their order, so that all are done some time.
#[derive(Debug, Default)]
pub(super) struct DerivationQueue {
    indexes: BTreeMap<Place, Range<u32>>,
    /// Whose turn it was last.
    last: Option<Place>,
    is_for_least: bool,
}

impl DerivationQueue {
    pub(super) fn replace(&mut self, indexes: BTreeMap<Place, Range<u32>>) {
        self.indexes = indexes;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.indexes.is_empty()
    }

    pub(super) fn next(&mut self) -> Option<KeychainRange> {
        self.is_for_least = !self.is_for_least;
        let place = match self.is_for_least {
            true => {
                let least = self.indexes.iter().min_by_key(|(_, indexes)| indexes.len());
                *least?.0
            }
            false => {
                let behind = self.last.map_or(Bound::Unbounded, Bound::Excluded);
                let mut after = self.indexes.range((behind, Bound::Unbounded));
                let next = after.next().or_else(|| self.indexes.first_key_value());
                let place = *next?.0;
                self.last = Some(place);
                place
            }
        };
        let indexes = self.indexes.get(&place)?;
        Some(KeychainRange {
            descriptor: place.0,
            keychain: place.1,
            from: indexes.start,
            to: indexes.end,
        })
    }

    /// So many of it are there now.
    pub(super) fn advance(&mut self, wanted: &KeychainRange, count: u32) {
        let from = wanted.from.saturating_add(count);
        match from < wanted.to {
            true => _ = self.indexes.insert(wanted.place(), from..wanted.to),
            false => self.remove(wanted),
        }
    }

    /// Until the next look.
    pub(super) fn remove(&mut self, wanted: &KeychainRange) {
        self.indexes.remove(&wanted.place());
    }
}

/// What the store says that is wanted.
pub(super) fn read(reader: &StoreReader) -> Result<BTreeMap<Place, Range<u32>>, StoreError> {
    let snapshot = reader.snapshot();
    let (mut wanted, mut after) = (BTreeMap::new(), None);
    loop {
        let page = snapshot.descriptors(after.as_ref(), PAGE)?;
        for (descriptor, row) in &page {
            for keychain in [Keychain::External, Keychain::Internal] {
                let derived = row.keychain(keychain).map(|it| it.derived);
                if let Some((from, to)) = derived.zip(row.wants(keychain)) {
                    wanted.insert((*descriptor, keychain), from..to);
                }
            }
        }
        match page.last() {
            Some((last, _)) => after = Some(*last),
            None => return Ok(wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(n: u8) -> Place {
        (DescriptorId([n; 32]), Keychain::External)
    }

    fn wanted(sizes: &[(u8, u32)]) -> DerivationQueue {
        let mut wanted = DerivationQueue::default();
        wanted.replace(
            sizes
                .iter()
                .map(|(n, size)| (place(*n), 0..*size))
                .collect(),
        );
        wanted
    }

    /// Portions until the last script of a descriptor is there.
    fn portions_until_done(mut wanted: DerivationQueue, of: u8) -> usize {
        let mut portions = 0;
        while wanted.indexes.contains_key(&place(of)) {
            let next = wanted.next().expect("some are wanted");
            wanted.advance(&next, 500.min(next.to - next.from));
            portions += 1;
        }
        portions
    }

    #[test]
    fn few_scripts_do_not_wait_for_many_of_others() {
        let many: Vec<_> = (1..100).map(|n| (n, 100_000)).collect();
        let one_small = [&many[..], &[(200, 1000)]].concat();
        assert!(portions_until_done(wanted(&one_small), 200) <= 4);
    }

    #[test]
    fn many_scripts_do_not_wait_for_all_others() {
        let few: Vec<_> = (1..100).map(|n| (n, 100_000)).collect();
        let one_large = [&few[..], &[(200, 100_001)]].concat();
        // Of each two portions one is for all in turn, so of each two hundred one is for it.
        let mut wanted = wanted(&one_large);
        let turns = (0..200).filter_map(|_| {
            let next = wanted.next().expect("some are wanted");
            wanted.advance(&next, 1);
            (next.descriptor == DescriptorId([200; 32])).then_some(())
        });
        assert_eq!(turns.count(), 1);
    }

    #[test]
    fn what_is_there_is_not_wanted_again() {
        let mut wanted = wanted(&[(1, 700)]);
        let first = wanted.next().expect("it is wanted");
        assert_eq!((first.from, first.to), (0, 700));
        wanted.advance(&first, 500);
        let rest = wanted.next().expect("it is wanted");
        assert_eq!((rest.from, rest.to), (500, 700));
        wanted.advance(&rest, 200);
        assert_eq!(wanted.next(), None);
        assert!(wanted.is_empty());
    }
}
