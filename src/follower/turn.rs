//! One event's turn at the mempool's side.

use super::actions::{Action, Now};
use super::chain_sync::ChainSync;
use super::node_link::NodeLink;
use crate::tracker::input::Seen;
use crate::tracker::{Input, RawTx};

/// What an event meets: the other side, what both know of the node, the time, and where actions go.
pub(super) struct Turn<'a> {
    pub(super) chain: &'a ChainSync,
    pub(super) node: &'a mut NodeLink,
    pub(super) now: Now,
    pub(super) actions: &'a mut Vec<Action>,
}

impl Turn<'_> {
    pub(super) fn send(&mut self, tx: RawTx, seen: Seen, now: u64) {
        self.actions
            .push(Action::Post(Input::TxSeen { tx, seen, now }));
    }
}
