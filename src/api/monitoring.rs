//! Whether the daemon follows the node: a person's switch, and what the node's side says.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};

use crate::clock::note_on_chain_time;
use crate::reads::run_detached;
use crate::store::{Snapshot, StoreError};
use crate::tracker::Replacement;
use crate::wire::ApiError;
use crate::{bitcoind, indexer};

/// What is told later than this after the node said it is late.
const BEHIND: Duration = Duration::from_secs(5);

pub struct Monitoring {
    indexer: indexer::Handle,
    node: watch::Receiver<bitcoind::NodeStatus>,
    is_on: watch::Sender<bool>,
    /// Held while monitoring is switched, so that the store and the follower are told the same of
    /// two requests at once.
    switch: Mutex<()>,
}

impl Monitoring {
    pub fn new(
        indexer: indexer::Handle,
        node: watch::Receiver<bitcoind::NodeStatus>,
        is_on: watch::Sender<bool>,
    ) -> Self {
        Self {
            indexer,
            node,
            is_on,
            switch: Mutex::default(),
        }
    }

    pub fn is_on(&self) -> bool {
        *self.is_on.borrow()
    }

    /// What is known of the node now.
    pub fn node(&self) -> bitcoind::NodeStatus {
        self.node.borrow().clone()
    }

    /// Which transactions the node lets be replaced.
    pub fn replacement(&self) -> Replacement {
        self.node.borrow().mempool.replacement
    }

    /// Why the daemon does not follow the node's tip and feeds; `None` when it does.
    pub fn not_ready(&self) -> Option<String> {
        if !self.is_on() {
            return Some("Monitoring is stopped; POST /start starts it.".to_owned());
        }
        let node = self.node.borrow();
        let unknown = || "The node's state is not known yet; ask again in a moment.".to_owned();
        (!node.following).then(|| {
            node.reason
                .clone()
                .or_else(|| node.error.clone())
                .unwrap_or_else(unknown)
        })
    }

    /// Why what it tells is late; `None` while it keeps up.
    pub fn behind(&self) -> Option<String> {
        let behind = self.indexer.behind();
        (behind > BEHIND).then(|| {
            let seconds = behind.as_secs();
            format!(
                "The daemon is behind: what it was told {seconds} seconds ago is not written yet."
            )
        })
    }

    /// What is to be said when the machine's clock and the chain differ. While we are not at the
    /// node's tip, the chain says nothing about now.
    pub fn clock_note(
        &self,
        snapshot: &Snapshot<'_>,
        now: u64,
    ) -> Result<Option<String>, StoreError> {
        if !self.node.borrow().following {
            return Ok(None);
        }
        let Some(tip) = snapshot.tip()? else {
            return Ok(None);
        };
        let block = snapshot.block(&tip.height)?;
        Ok(block.and_then(|block| note_on_chain_time(now, block.time)))
    }

    /// Switches it, and says whether that changed anything. Remembered first, so that a restart
    /// never undoes what was answered.
    pub async fn switch(self: &Arc<Self>, on: bool) -> Result<bool, ApiError> {
        let monitoring = self.clone();
        run_detached(async move {
            let _switching = monitoring.switch.lock().await;
            monitoring
                .indexer
                .remember_monitoring(on)
                .await
                .map_err(|_| ApiError::stopping())?;
            Ok(monitoring.is_on.send_replace(on) != on)
        })
        .await
    }
}
