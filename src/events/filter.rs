//! What of the log somebody wants.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::tracker::{DescriptorId, EventKind, ScriptHash, SubjectId};

/// What one can subscribe to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    Script(ScriptHash),
    Descriptor(DescriptorId),
    /// Blocks and reorgs.
    Blocks,
    /// Every script there is. No event's topic.
    EveryScript,
}

impl Topic {
    /// The topic that an event belongs to: exactly one.
    pub fn of(kind: &EventKind) -> Self {
        match kind.subject_id() {
            Some(SubjectId::Script(script)) => Self::Script(script),
            Some(SubjectId::Descriptor(descriptor)) => Self::Descriptor(descriptor),
            None => Self::Blocks,
        }
    }
}

/// A part of the log that does not change while it is read: a request's, a consumer's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// `None`: those of every script.
    pub scripts: Option<Arc<HashSet<ScriptHash>>>,
    /// Blocks and reorgs.
    pub blocks: bool,
}

impl Selection {
    pub fn everything() -> Self {
        Self {
            scripts: None,
            blocks: true,
        }
    }

    pub fn wants(&self, topic: &Topic) -> bool {
        match topic {
            Topic::Blocks => self.blocks,
            Topic::EveryScript => self.scripts.is_none(),
            Topic::Descriptor(_) => false,
            Topic::Script(script) => self
                .scripts
                .as_ref()
                .is_none_or(|scripts| scripts.contains(script)),
        }
    }

    /// What dispatch marks its reader for.
    pub(super) fn topics(&self) -> impl Iterator<Item = Topic> {
        let scripts = self.scripts.iter().flat_map(|scripts| scripts.iter());
        let every = self.scripts.is_none().then_some(Topic::EveryScript);
        scripts
            .map(|script| Topic::Script(*script))
            .chain(every)
            .chain(self.blocks.then_some(Topic::Blocks))
    }
}

/// What a reader gives of the pages that it reads.
#[derive(Debug)]
pub enum TopicFilter<'a> {
    /// Each is wanted after its number.
    Topics(&'a HashMap<Topic, u64>),
    Selection(&'a Selection),
}

impl TopicFilter<'_> {
    pub(super) fn wants(&self, topic: &Topic, number: u64) -> bool {
        match self {
            Self::Topics(topics) => topics.get(topic).is_some_and(|from| number > *from),
            Self::Selection(selection) => selection.wants(topic),
        }
    }
}
