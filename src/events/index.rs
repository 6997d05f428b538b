//! Who is to be woken by what: the inverted index from topics to readers. Pure bookkeeping, owned
//! by dispatch.
//!
//! Every operation costs as much as the topics that it names, however many readers a topic has.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::filter::Topic;

/// `R` is what a reader is woken by.
pub struct Index<R> {
    /// By topic and key of the reader.
    readers: BTreeMap<(Topic, u64), R>,
    /// By key, each with its topics.
    members: HashMap<u64, (R, HashSet<Topic>)>,
}

impl<R> Default for Index<R> {
    fn default() -> Self {
        Self {
            readers: BTreeMap::new(),
            members: HashMap::new(),
        }
    }
}

impl<R: Clone> Index<R> {
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// All readers, with how many topics each has.
    pub fn members(&self) -> impl Iterator<Item = (&R, usize)> {
        self.members
            .values()
            .map(|(reader, topics)| (reader, topics.len()))
    }

    /// Adds to what a reader is woken by; what it has already stays as it is.
    pub fn add(&mut self, key: u64, reader: R, topics: Vec<Topic>) {
        let (reader, known) = self.members.entry(key).or_insert((reader, HashSet::new()));
        for topic in topics {
            if known.insert(topic) {
                self.readers.insert((topic, key), reader.clone());
            }
        }
    }

    /// The reader is not woken by this topic any more. True if it was.
    pub fn remove(&mut self, key: u64, topic: &Topic) -> bool {
        self.readers.remove(&(*topic, key));
        let member = self.members.get_mut(&key);
        member.is_some_and(|(_, topics)| topics.remove(topic))
    }

    /// Forgets a reader.
    pub fn leave(&mut self, key: u64) {
        let topics = self.members.remove(&key).map(|(_, topics)| topics);
        for topic in topics.into_iter().flatten() {
            self.readers.remove(&(topic, key));
        }
    }

    /// Those who are woken by this topic, each once if it asked in one way only.
    pub fn of(&self, topic: &Topic) -> impl Iterator<Item = &R> {
        let by_name = |topic: Topic| self.readers.range((topic, 0)..=(topic, u64::MAX));
        let every = match topic {
            Topic::Script(_) => Some(Topic::EveryScript),
            Topic::Descriptor(_) => Some(Topic::EveryDescriptor),
            Topic::Blocks | Topic::EveryScript | Topic::EveryDescriptor => None,
        };
        let every = every.map(by_name);
        let found = by_name(*topic).chain(every.into_iter().flatten());
        found.map(|(_, reader)| reader)
    }
}
