//! Confirmation depths of a script or a descriptor: whoever asks for some adds them to those of
//! everybody, up to [`DEPTHS_MOST`]. Each is an event of each payment.

use std::collections::BTreeSet;

use bitcoin::ScriptBuf;

use super::transition::TransitionBuilder;
use super::{ApplyError, ScriptHash, View, WatchRequest};

/// Depths of one script or descriptor, by everybody together.
pub const DEPTHS_MOST: usize = 16;

/// Those that something has and those that are asked for, ascending. Refused if these are too many,
/// unless it has them already. `spk`: of a script, or else of a descriptor.
pub fn all_depths(
    spk: Option<&ScriptBuf>,
    has: &[u8],
    asked: &[u8],
) -> Result<Vec<u8>, ApplyError> {
    let all: BTreeSet<u8> = has.iter().chain(asked).copied().collect();
    if all.len() <= DEPTHS_MOST.max(has.len()) {
        return Ok(all.into_iter().collect());
    }
    Err(ApplyError::TooManyDepths {
        spk: spk.cloned(),
        has: has.to_vec(),
        asked: asked.to_vec(),
    })
}

impl<V: View> TransitionBuilder<'_, V> {
    /// Refuses scripts of which one would have too many depths, before anything is changed.
    pub fn check_depths(&mut self, requests: &[WatchRequest]) -> Result<(), ApplyError> {
        for request in requests.iter().filter(|it| !it.depths.is_empty()) {
            let known = self.changes.watch(&ScriptHash::of(&request.spk))?;
            let has = known.map_or(&[1][..], |row| &row.depths);
            all_depths(Some(&request.spk), has, &request.depths)?;
        }
        Ok(())
    }
}
