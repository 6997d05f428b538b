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
    /// Likewise every descriptor.
    EveryDescriptor,
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

    /// What an event of this topic is about; `None`: the chain, or more than one.
    pub fn subject(&self) -> Option<SubjectId> {
        match self {
            Self::Script(script) => Some(SubjectId::Script(*script)),
            Self::Descriptor(descriptor) => Some(SubjectId::Descriptor(*descriptor)),
            Self::Blocks | Self::EveryScript | Self::EveryDescriptor => None,
        }
    }
}

/// A part of the log that does not change while it is read: a request's, a consumer's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// `None`: those of every script.
    pub scripts: Option<Arc<HashSet<ScriptHash>>>,
    /// Likewise of descriptors.
    pub descriptors: Option<Arc<HashSet<DescriptorId>>>,
    /// Blocks and reorgs.
    pub blocks: bool,
}

impl Selection {
    /// All but what is told of descriptors: their addresses are told of already, and who does not
    /// know of descriptors must not count a payment twice.
    pub fn everything() -> Self {
        Self {
            scripts: None,
            descriptors: Some(Arc::default()),
            blocks: true,
        }
    }

    pub fn wants(&self, topic: &Topic) -> bool {
        match topic {
            Topic::Blocks => self.blocks,
            Topic::EveryScript => self.scripts.is_none(),
            Topic::EveryDescriptor => self.descriptors.is_none(),
            Topic::Descriptor(descriptor) => self
                .descriptors
                .as_ref()
                .is_none_or(|descriptors| descriptors.contains(descriptor)),
            Topic::Script(script) => self
                .scripts
                .as_ref()
                .is_none_or(|scripts| scripts.contains(script)),
        }
    }

    /// How many scripts and descriptors it names; `None` if it wants all of some.
    pub(super) fn names(&self) -> Option<usize> {
        let (scripts, descriptors) = (self.scripts.as_ref()?, self.descriptors.as_ref()?);
        Some(scripts.len().saturating_add(descriptors.len()))
    }

    /// What dispatch marks its reader for.
    pub(super) fn topics(&self) -> impl Iterator<Item = Topic> {
        let scripts = self.scripts.iter().flat_map(|scripts| scripts.iter());
        let descriptors = self.descriptors.iter().flat_map(|all| all.iter());
        let every = [
            self.scripts.is_none().then_some(Topic::EveryScript),
            self.descriptors.is_none().then_some(Topic::EveryDescriptor),
        ];
        scripts
            .map(|script| Topic::Script(*script))
            .chain(descriptors.map(|descriptor| Topic::Descriptor(*descriptor)))
            .chain(every.into_iter().flatten())
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
