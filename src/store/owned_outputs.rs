//! Outputs of descriptors, as a snapshot has them.

use bitcoin::OutPoint;

use super::codec::keys::parse_unspent_key;
use super::families::OWNED_OUTPUTS;
use super::{Snapshot, StoreError};
use crate::tracker::{DescriptorId, OutputRow};

impl Snapshot<'_> {
    /// All outputs of a descriptor whose spend is not confirmed.
    pub fn owned_outputs_of(
        &self,
        descriptor: &DescriptorId,
    ) -> Result<Vec<(OutPoint, OutputRow)>, StoreError> {
        let owned = self.keys(OWNED_OUTPUTS, &descriptor.0, None, parse_unspent_key);
        self.outputs(owned.collect::<Result<_, _>>()?)
    }
}
