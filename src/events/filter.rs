//! What of the log somebody wants.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

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
            Topic::Script(script) => self
                .scripts
                .as_ref()
                .is_none_or(|scripts| scripts.contains(script)),
        }
    }

    /// What dispatch is asked to tell of.
    pub(super) fn interest(&self) -> Interest {
        match &self.scripts {
            None => Interest::Scripts {
                blocks: self.blocks,
            },
            Some(scripts) => {
                let scripts = scripts.iter().map(|script| Topic::Script(*script));
                let blocks = self.blocks.then_some(Topic::Blocks);
                Interest::Topics(scripts.chain(blocks).collect())
            }
        }
    }
}

/// What dispatch marks a reader for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interest {
    Topics(Vec<Topic>),
    /// Every script there is.
    Scripts {
        blocks: bool,
    },
}

/// What a reader gives of the pages that it reads.
#[derive(Debug)]
pub enum Filter {
    /// Topics that come and go; each is wanted after its number.
    Topics(HashMap<Topic, u64>),
    Selection(Selection),
}

impl Filter {
    pub(super) fn wants(&self, topic: &Topic, number: u64) -> bool {
        match self {
            Self::Topics(topics) => topics.get(topic).is_some_and(|from| number > *from),
            Self::Selection(selection) => selection.wants(topic),
        }
    }
}
