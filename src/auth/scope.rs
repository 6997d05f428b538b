//! What a token may do.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The scope that a row of a table names, `any` for every token, or `open`.
macro_rules! needed {
    (open) => {
        None
    };
    (any) => {
        Some($crate::auth::Scope::LEAST)
    };
    (metrics) => {
        Some($crate::auth::Scope::Metrics)
    };
    (read) => {
        Some($crate::auth::Scope::Read)
    };
    (watch) => {
        Some($crate::auth::Scope::Watch)
    };
    (admin) => {
        Some($crate::auth::Scope::Admin)
    };
}

pub(crate) use needed;

/// Each may what those before it may.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Read `/metrics`.
    Metrics,
    /// See what is watched and what happens to it.
    Read,
    /// Change what is watched.
    Watch,
    /// Everything.
    Admin,
}

impl Scope {
    /// Every token has it.
    pub const LEAST: Self = Self::Metrics;
    pub const ALL: [Self; 4] = [Self::Metrics, Self::Read, Self::Watch, Self::Admin];

    /// As the command line, the tokens file and answers name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Read => "read",
            Self::Watch => "watch",
            Self::Admin => "admin",
        }
    }

    pub fn allows(self, needed: Self) -> bool {
        self >= needed
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
