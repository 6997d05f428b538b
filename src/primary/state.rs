//! What an edge goes by, as the primary tells it.

use std::ops::Deref;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use tokio::time::Instant;

use crate::auth::Scope;
use crate::reads::TipShape;

/// What an edge goes by.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct EdgeState {
    /// Of the daemon.
    pub version: String,
    pub network: String,
    /// Whether every request needs a token.
    pub authentication: bool,
    /// Another one whenever tokens or sessions of the page have changed, and after a restart.
    pub revision: String,
    /// Those that are good now.
    pub tokens: Vec<EdgeToken>,
    /// Name of the cookie of the page's sessions.
    pub cookie: String,
    pub tip: Option<TipShape>,
    /// The last event that there is.
    pub cursor: String,
    /// The oldest cursor that can still be read after.
    pub first: String,
    /// Which cursors are of this log: of each start the id, its first number, and the last number
    /// before it.
    pub starts: Vec<(String, u64, u64)>,
}

impl EdgeState {
    /// Its first start, by which logs are told apart.
    pub fn log_id(&self) -> &str {
        self.starts.first().map_or("", |(id, _, _)| id)
    }
}

/// What the primary told last.
#[derive(Debug, Clone)]
pub struct Heard {
    pub state: EdgeState,
    pub at: Instant,
}

impl Heard {
    pub fn now(state: EdgeState) -> Self {
        let at = Instant::now();
        Self { state, at }
    }
}

impl Deref for Heard {
    type Target = EdgeState;

    fn deref(&self) -> &EdgeState {
        &self.state
    }
}

/// A token that is good now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EdgeToken {
    pub id: String,
    pub scope: Scope,
    /// Seconds since the Unix epoch.
    pub expires: Option<u64>,
}
