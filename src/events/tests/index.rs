//! The index against a plain map.

use proptest::prelude::*;

use super::super::index::Index;
use super::*;
use crate::tracker::DescriptorId;

#[derive(Debug, Clone)]
enum Change {
    Add(u64, Vec<u8>),
    Remove(u64, u8),
    Leave(u64),
}

fn change() -> impl Strategy<Value = Change> {
    let key = || 0..4u64;
    prop_oneof![
        4 => (key(), prop::collection::vec(0..=EVERY_DESCRIPTOR, 0..4)).prop_map(|(key, topics)| Change::Add(key, topics)),
        3 => (key(), 0..=EVERY_DESCRIPTOR).prop_map(|(key, n)| Change::Remove(key, n)),
        1 => key().prop_map(Change::Leave),
    ]
}

/// Stands for every script, and the number above it for every descriptor.
const EVERY: u8 = 6;
const DESCRIPTORS: std::ops::Range<u8> = 4..EVERY;

fn topic(n: u8) -> Topic {
    match n {
        EVERY => Topic::EveryScript,
        EVERY_DESCRIPTOR => Topic::EveryDescriptor,
        n if DESCRIPTORS.contains(&n) => Topic::Descriptor(DescriptorId([n; 32])),
        n => super::topic(n),
    }
}

const EVERY_DESCRIPTOR: u8 = EVERY + 1;

type Plain = BTreeMap<u64, BTreeSet<u8>>;

fn woken_by(plain: &Plain, n: u8) -> Vec<u64> {
    let mut keys = Vec::new();
    for (key, topics) in plain {
        let by_name = topics.contains(&n);
        let by_all = match n {
            0 => false,
            n if DESCRIPTORS.contains(&n) => topics.contains(&EVERY_DESCRIPTOR),
            _ => topics.contains(&EVERY),
        };
        keys.extend([by_name, by_all].iter().filter(|it| **it).map(|_| *key));
    }
    keys
}

proptest! {
    #[test]
    fn index_says_what_a_plain_map_says(changes in prop::collection::vec(change(), 1..40)) {
        let (mut index, mut plain) = (Index::default(), Plain::new());
        for change in changes {
            match change {
                Change::Add(key, topics) => {
                    index.add(key, key, topics.iter().map(|n| topic(*n)).collect());
                    plain.entry(key).or_default().extend(topics);
                }
                Change::Remove(key, n) => {
                    let was = plain.get_mut(&key).is_some_and(|topics| topics.remove(&n));
                    prop_assert_eq!(index.remove(key, &topic(n)), was);
                }
                Change::Leave(key) => {
                    index.leave(key);
                    plain.remove(&key);
                }
            }
            for n in 0..EVERY {
                let mut found: Vec<u64> = index.of(&topic(n)).copied().collect();
                found.sort_unstable();
                prop_assert_eq!(found, woken_by(&plain, n));
            }
            let members: BTreeMap<u64, usize> = index.members().map(|(key, count)| (*key, count)).collect();
            let expected: BTreeMap<u64, usize> = plain.iter().map(|(key, topics)| (*key, topics.len())).collect();
            prop_assert_eq!(members, expected);
            prop_assert_eq!(index.is_empty(), plain.is_empty());
        }
    }
}
