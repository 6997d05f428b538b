//! What can go wrong with the store. Always fatal to the process; each sentence says what a person
//! can do.

use std::path::{Path, PathBuf};

use super::ChainInfo;
use crate::tracker::ViewError;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "cannot {doing} ({cause}): check that the disk of {path} has room, works and may be written by this user, then start again"
    )]
    Io {
        doing: &'static str,
        path: PathBuf,
        cause: String,
    },

    #[error(
        "the store is damaged at {family} {key}: {what}. Restore a copy of the folder {path}, or move it away and add the addresses again"
    )]
    Corrupt {
        path: PathBuf,
        family: &'static str,
        key: String,
        what: String,
    },

    #[error(
        "the store in {path} is damaged ({what}): restore a copy of the folder, or move it away and add the addresses again"
    )]
    Damaged { path: PathBuf, what: String },

    #[error(
        "the folder {path} is not a store of satwatch ({what}): set store.path to another folder"
    )]
    Foreign { path: PathBuf, what: String },

    #[error(
        "the store in {path} has format {found}, this satwatch reads format {expected}: run the release that wrote it, \
         or set store.path to another folder and add the addresses again"
    )]
    Format {
        path: PathBuf,
        found: u32,
        expected: u32,
    },

    #[error(
        "the store in {path} belongs to chain {} (genesis {}), but the node follows chain {} (genesis {}): \
         connect to the right node, or set store.path to another folder",
        found.network.to_core_arg(), found.genesis, expected.network.to_core_arg(), expected.genesis
    )]
    WrongChain {
        path: PathBuf,
        found: Box<ChainInfo>,
        expected: Box<ChainInfo>,
    },

    #[error(
        "the store in {path} is new and the node does not answer, so its chain is not known: start the node first"
    )]
    UnknownChain { path: PathBuf },

    #[error("another satwatch{} uses the store in {path}: stop it, or set store.path to another folder", .process.as_ref().map_or(String::new(), |id| format!(" (process {id})")))]
    InUse {
        path: PathBuf,
        process: Option<String>,
    },

    #[error("the start was ended while the store was brought up, and the next one goes on with it")]
    Stopped,
}

impl StoreError {
    pub(super) fn io(path: &Path, doing: &'static str, cause: impl ToString) -> Self {
        Self::Io {
            doing,
            path: path.to_owned(),
            cause: cause.to_string(),
        }
    }

    /// The same error, before anything of a folder of an earlier format was changed.
    pub(super) fn nothing_changed(mut self, format: u32) -> Self {
        if let Self::Corrupt { what, .. } = &mut self {
            *what += &format!(
                " (the folder still has format {format}, and the release that wrote it opens it)"
            );
        }
        self
    }
}

impl From<StoreError> for ViewError {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}
