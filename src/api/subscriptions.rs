//! Who hears about what: the inverted index from topics to members. Pure bookkeeping, owned by the
//! hub.
//!
//! Every operation costs as much as the topics that it names, however many members a topic has.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use crate::tracker::{EventKind, ScriptHash};

/// What one can subscribe to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    Script(ScriptHash),
    /// Blocks and reorgs.
    Blocks,
}

impl Topic {
    /// The topic that an event belongs to: exactly one.
    pub fn of(kind: &EventKind) -> Self {
        kind.script()
            .map_or(Self::Blocks, |script| Self::Script(*script))
    }
}

/// Index of a member in [`Subscriptions::members`]; reused after it left.
type Slot = usize;

struct Member<S> {
    key: u64,
    socket: S,
    /// Each topic with this member's place in the topic's list.
    topics: HashMap<Topic, usize>,
}

/// `S` is what a member is told through.
pub struct Subscriptions<S> {
    members: Vec<Option<Member<S>>>,
    free: Vec<Slot>,
    slots: HashMap<u64, Slot>,
    topics: HashMap<Topic, Vec<Slot>>,
}

impl<S> Default for Subscriptions<S> {
    fn default() -> Self {
        Self {
            members: Vec::new(),
            free: Vec::new(),
            slots: HashMap::new(),
            topics: HashMap::new(),
        }
    }
}

impl<S> Subscriptions<S> {
    /// Members that are subscribed to something.
    pub fn members(&self) -> usize {
        self.slots.len()
    }

    /// Pairs of member and topic.
    pub fn count(&self) -> usize {
        self.topics.values().map(Vec::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Topics of one member.
    pub fn count_of(&self, key: u64) -> usize {
        self.member(key).map_or(0, |member| member.topics.len())
    }

    pub fn contains(&self, key: u64, topic: &Topic) -> bool {
        self.member(key)
            .is_some_and(|member| member.topics.contains_key(topic))
    }

    fn member(&self, key: u64) -> Option<&Member<S>> {
        self.slots
            .get(&key)
            .and_then(|slot| self.members.get(*slot))
            .and_then(Option::as_ref)
    }

    /// Subscribes a member; what it has already stays as it is.
    pub fn add(&mut self, key: u64, socket: S, topics: impl IntoIterator<Item = Topic>) {
        let slot = match self.slots.get(&key) {
            Some(slot) => *slot,
            None => self.enter(Member {
                key,
                socket,
                topics: HashMap::new(),
            }),
        };
        let Some(member) = self.members.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        for topic in topics {
            if let Entry::Vacant(place) = member.topics.entry(topic) {
                let list = self.topics.entry(topic).or_default();
                place.insert(list.len());
                list.push(slot);
            }
        }
        if member.topics.is_empty() {
            self.leave(key);
        }
    }

    fn enter(&mut self, member: Member<S>) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.members.push(None);
            self.members.len().saturating_sub(1)
        });
        self.slots.insert(member.key, slot);
        if let Some(place) = self.members.get_mut(slot) {
            *place = Some(member);
        }
        slot
    }

    /// Unsubscribes a member from one topic. True if it was subscribed.
    pub fn remove(&mut self, key: u64, topic: &Topic) -> bool {
        let Some(slot) = self.slots.get(&key).copied() else {
            return false;
        };
        let Some(member) = self.members.get_mut(slot).and_then(Option::as_mut) else {
            return false;
        };
        let Some(place) = member.topics.remove(topic) else {
            return false;
        };
        let last = member.topics.is_empty();
        self.unlist(topic, place);
        if last {
            self.leave(key);
        }
        true
    }

    /// Takes the entry at `place` out of a topic's list; the last entry takes its place and is told
    /// so.
    fn unlist(&mut self, topic: &Topic, place: usize) {
        let Some(list) = self.topics.get_mut(topic) else {
            return;
        };
        list.swap_remove(place);
        let moved = list.get(place).copied();
        if list.is_empty() {
            self.topics.remove(topic);
        }
        let moved = moved
            .and_then(|slot| self.members.get_mut(slot))
            .and_then(Option::as_mut);
        if let Some(moved) = moved.and_then(|member| member.topics.get_mut(topic)) {
            *moved = place;
        }
    }

    /// Forgets a member; its topics.
    pub fn leave(&mut self, key: u64) -> Vec<Topic> {
        self.take(key).map_or_else(Vec::new, |(_, topics)| topics)
    }

    fn take(&mut self, key: u64) -> Option<(S, Vec<Topic>)> {
        let slot = self.slots.remove(&key)?;
        let member = self.members.get_mut(slot).and_then(Option::take)?;
        for (topic, place) in &member.topics {
            self.unlist(topic, *place);
        }
        self.free.push(slot);
        Some((member.socket, member.topics.into_keys().collect()))
    }

    /// Whether anybody listens.
    pub fn listens(&self, topic: &Topic) -> bool {
        self.topics.contains_key(topic)
    }

    /// The members of any of the topics, each once.
    pub fn members_of(&self, topics: impl IntoIterator<Item = Topic>) -> impl Iterator<Item = &S> {
        let lists = topics
            .into_iter()
            .filter_map(|topic| self.topics.get(&topic));
        let slots: HashSet<Slot> = lists.flatten().copied().collect();
        slots
            .into_iter()
            .filter_map(|slot| self.members.get(slot).and_then(Option::as_ref))
            .map(|member| &member.socket)
    }

    /// Tells every member of a topic; those for which `tell` answers false are forgotten: they and
    /// their topics come back.
    pub fn tell(
        &mut self,
        topic: &Topic,
        mut tell: impl FnMut(&S) -> bool,
    ) -> Vec<(S, Vec<Topic>)> {
        let list = self.topics.get(topic).map_or(&[][..], Vec::as_slice);
        let members = list
            .iter()
            .filter_map(|slot| self.members.get(*slot).and_then(Option::as_ref));
        let gone: Vec<u64> = members
            .filter(|member| !tell(&member.socket))
            .map(|member| member.key)
            .collect();
        gone.into_iter().filter_map(|key| self.take(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn topic(n: u8) -> Topic {
        if n == 0 {
            Topic::Blocks
        } else {
            Topic::Script(ScriptHash([n; 32]))
        }
    }

    fn told(subscriptions: &mut Subscriptions<u8>, topic: &Topic) -> BTreeSet<u8> {
        let mut told = Vec::new();
        subscriptions.tell(topic, |socket| {
            told.push(*socket);
            true
        });
        let set: BTreeSet<u8> = told.iter().copied().collect();
        assert_eq!(told.len(), set.len(), "nobody is told twice");
        set
    }

    #[test]
    fn a_member_that_cannot_be_told_is_forgotten_and_the_others_are_not() {
        let mut subscriptions = Subscriptions::default();
        for n in 0..5u8 {
            subscriptions.add(u64::from(n), n, [topic(0), topic(1)]);
        }
        let mut gone = subscriptions.tell(&topic(1), |socket| socket % 2 == 0);
        gone.iter_mut().for_each(|(_, topics)| topics.sort());
        assert_eq!(
            gone,
            [(1, vec![topic(1), topic(0)]), (3, vec![topic(1), topic(0)])]
        );
        assert_eq!(
            told(&mut subscriptions, &topic(0)),
            BTreeSet::from([0, 2, 4])
        );
        assert_eq!((subscriptions.members(), subscriptions.count()), (3, 6));
    }

    #[test]
    fn a_member_without_topics_is_not_kept() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.add(7, 1, []);
        assert!(subscriptions.is_empty());
        subscriptions.add(7, 1, [topic(1)]);
        assert!(subscriptions.remove(7, &topic(1)));
        assert!(!subscriptions.remove(7, &topic(1)));
        assert!(subscriptions.is_empty() && !subscriptions.listens(&topic(1)));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Add(u8, Vec<u8>),
        Remove(u8, u8),
        Leave(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..6u8, prop::collection::vec(0..5u8, 0..4))
                .prop_map(|(id, topics)| Step::Add(id, topics)),
            (0..6u8, 0..5u8).prop_map(|(id, topic)| Step::Remove(id, topic)),
            (0..6u8).prop_map(Step::Leave),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// The index says the same as a plain map from member to topics, whatever happened before.
        #[test]
        fn equals_a_plain_map(steps in prop::collection::vec(step(), 0..60)) {
            let mut subscriptions = Subscriptions::default();
            let mut model: BTreeMap<u8, BTreeSet<u8>> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Add(id, topics) => {
                        subscriptions.add(u64::from(id), id, topics.iter().map(|n| topic(*n)));
                        model.entry(id).or_default().extend(topics);
                    }
                    Step::Remove(id, n) => {
                        let was = model.get_mut(&id).is_some_and(|topics| topics.remove(&n));
                        prop_assert_eq!(subscriptions.remove(u64::from(id), &topic(n)), was);
                    }
                    Step::Leave(id) => {
                        let left: BTreeSet<Topic> = subscriptions.leave(u64::from(id)).into_iter().collect();
                        prop_assert_eq!(left, model.remove(&id).unwrap_or_default().into_iter().map(topic).collect::<BTreeSet<_>>());
                    }
                }
                model.retain(|_, topics| !topics.is_empty());
                prop_assert_eq!(subscriptions.members(), model.len());
                prop_assert_eq!(subscriptions.count(), model.values().map(BTreeSet::len).sum::<usize>());
                for n in 0..5u8 {
                    let expected: BTreeSet<u8> = model.iter().filter(|(_, topics)| topics.contains(&n)).map(|(id, _)| *id).collect();
                    prop_assert_eq!(subscriptions.listens(&topic(n)), !expected.is_empty());
                    prop_assert_eq!(told(&mut subscriptions, &topic(n)), expected);
                }
                let of_two: Vec<u8> = subscriptions.members_of([topic(1), topic(2)]).copied().collect();
                let expected: BTreeSet<u8> =
                    model.iter().filter(|(_, topics)| topics.contains(&1) || topics.contains(&2)).map(|(id, _)| *id).collect();
                prop_assert_eq!(of_two.len(), expected.len());
                prop_assert_eq!(of_two.into_iter().collect::<BTreeSet<_>>(), expected);
            }
        }
    }
}
