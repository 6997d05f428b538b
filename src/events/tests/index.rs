//! The index against a plain map.

use proptest::prelude::*;

use super::super::index::Index;
use super::*;

#[derive(Debug, Clone)]
enum Change {
    Topics(u64, Vec<u8>),
    Scripts(u64, bool),
    Remove(u64, u8),
    Leave(u64),
}

fn change() -> impl Strategy<Value = Change> {
    let key = || 0..4u64;
    prop_oneof![
        4 => (key(), prop::collection::vec(0..4u8, 0..4)).prop_map(|(key, topics)| Change::Topics(key, topics)),
        1 => (key(), any::<bool>()).prop_map(|(key, blocks)| Change::Scripts(key, blocks)),
        3 => (key(), 0..4u8).prop_map(|(key, n)| Change::Remove(key, n)),
        1 => key().prop_map(Change::Leave),
    ]
}

/// Topics by name, and whether it wants every script, with blocks or without.
type Plain = BTreeMap<u64, (BTreeSet<u8>, Option<bool>)>;

fn woken_by(plain: &Plain, n: u8) -> Vec<u64> {
    let mut keys = Vec::new();
    for (key, (topics, all)) in plain {
        let by_name = topics.contains(&n);
        let by_all = all.is_some_and(|blocks| n != 0 || blocks);
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
                Change::Topics(key, topics) => {
                    let named = topics.iter().map(|n| topic(*n)).collect();
                    index.add(key, || key, Interest::Topics(named));
                    plain.entry(key).or_default().0.extend(topics);
                }
                Change::Scripts(key, blocks) => {
                    index.add(key, || key, Interest::Scripts { blocks });
                    plain.entry(key).or_default().1 = Some(blocks);
                }
                Change::Remove(key, n) => {
                    let was = plain.get_mut(&key).is_some_and(|(topics, _)| topics.remove(&n));
                    prop_assert_eq!(index.remove(key, &topic(n)), was);
                }
                Change::Leave(key) => {
                    index.leave(key);
                    plain.remove(&key);
                }
            }
            for n in 0..4 {
                let mut found: Vec<u64> = index.of(&topic(n)).copied().collect();
                found.sort_unstable();
                prop_assert_eq!(found, woken_by(&plain, n));
            }
            let members: BTreeMap<u64, usize> = index.members().map(|(key, count)| (*key, count)).collect();
            let expected: BTreeMap<u64, usize> = plain.iter().map(|(key, (topics, _))| (*key, topics.len())).collect();
            prop_assert_eq!(members, expected);
            prop_assert_eq!(index.is_empty(), plain.is_empty());
        }
    }
}
