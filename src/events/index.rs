//! Who is to be woken by what: the inverted index from topics to readers. Pure bookkeeping, owned
//! by dispatch.
//!
//! Every operation costs as much as the topics that it names, however many readers a topic has.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::filter::{Interest, Topic};

/// Index of a member in [`Index::members`]; reused after it left.
type Slot = usize;

struct Member<R> {
    key: u64,
    reader: R,
    /// Each topic with this member's place in the topic's list.
    topics: HashMap<Topic, usize>,
    /// Its place in the list of those who want every script, and whether it wants blocks.
    all: Option<(usize, bool)>,
}

/// `R` is what a reader is woken by.
pub struct Index<R> {
    members: Vec<Option<Member<R>>>,
    free: Vec<Slot>,
    slots: HashMap<u64, Slot>,
    topics: HashMap<Topic, Vec<Slot>>,
    /// Those who want every script.
    all: Vec<Slot>,
}

impl<R> Default for Index<R> {
    fn default() -> Self {
        Self {
            members: Vec::new(),
            free: Vec::new(),
            slots: HashMap::new(),
            topics: HashMap::new(),
            all: Vec::new(),
        }
    }
}

impl<R> Index<R> {
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// All readers, with how many topics each has.
    pub fn members(&self) -> impl Iterator<Item = (&R, usize)> {
        let members = self.members.iter().flatten();
        members.map(|member| (&member.reader, member.topics.len()))
    }

    /// Adds to what a reader is woken by; what it has already stays as it is.
    pub fn add(&mut self, key: u64, reader: impl FnOnce() -> R, interest: Interest) {
        let slot = match self.slots.get(&key) {
            Some(slot) => *slot,
            None => self.enter(key, reader()),
        };
        let Some(member) = self.members.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        match interest {
            Interest::Scripts { blocks } => {
                if member.all.is_none() {
                    self.all.push(slot);
                }
                let place = member
                    .all
                    .map_or(self.all.len().saturating_sub(1), |(place, _)| place);
                member.all = Some((place, blocks));
            }
            Interest::Topics(topics) => {
                for topic in topics {
                    if let Entry::Vacant(place) = member.topics.entry(topic) {
                        let list = self.topics.entry(topic).or_default();
                        place.insert(list.len());
                        list.push(slot);
                    }
                }
            }
        }
    }

    fn enter(&mut self, key: u64, reader: R) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.members.push(None);
            self.members.len().saturating_sub(1)
        });
        self.slots.insert(key, slot);
        if let Some(place) = self.members.get_mut(slot) {
            *place = Some(Member {
                key,
                reader,
                topics: HashMap::new(),
                all: None,
            });
        }
        slot
    }

    fn member(&mut self, slot: Slot) -> Option<&mut Member<R>> {
        self.members.get_mut(slot).and_then(Option::as_mut)
    }

    /// The reader is not woken by this topic any more. True if it was.
    pub fn remove(&mut self, key: u64, topic: &Topic) -> bool {
        let Some(slot) = self.slots.get(&key).copied() else {
            return false;
        };
        let Some(place) = self
            .member(slot)
            .and_then(|member| member.topics.remove(topic))
        else {
            return false;
        };
        self.unlist(topic, place);
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
        let moved = moved.and_then(|slot| self.member(slot));
        if let Some(moved) = moved.and_then(|member| member.topics.get_mut(topic)) {
            *moved = place;
        }
    }

    /// Forgets a reader.
    pub fn leave(&mut self, key: u64) {
        let Some(slot) = self.slots.remove(&key) else {
            return;
        };
        let Some(member) = self.members.get_mut(slot).and_then(Option::take) else {
            return;
        };
        debug_assert_eq!(member.key, key, "a slot belongs to its key");
        for (topic, place) in &member.topics {
            self.unlist(topic, *place);
        }
        if let Some((place, _)) = member.all {
            self.all.swap_remove(place);
            let moved = self.all.get(place).copied();
            if let Some((moved, _)) = moved
                .and_then(|slot| self.member(slot))
                .and_then(|member| member.all.as_mut())
            {
                *moved = place;
            }
        }
        self.free.push(slot);
    }

    /// Those who are woken by this topic, each once if it asked in one way only.
    pub fn of(&self, topic: &Topic) -> impl Iterator<Item = &R> {
        let is_block = *topic == Topic::Blocks;
        let named = self.topics.get(topic).into_iter().flatten();
        let named = named
            .filter_map(|slot| self.members.get(*slot)?.as_ref())
            .map(|member| &member.reader);
        let all = self
            .all
            .iter()
            .filter_map(|slot| self.members.get(*slot)?.as_ref())
            .filter(move |member| !is_block || member.all.is_some_and(|(_, blocks)| blocks))
            .map(|member| &member.reader);
        named.chain(all)
    }
}
