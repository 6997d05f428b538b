//! History scans, as a snapshot has them.

use super::codec::Malformed;
use super::codec::keys::{
    parse_number_key, parse_scan_of_key, parse_scan_script_key, parse_script_scan_key,
};
use super::families::{DESCRIPTOR_SCANS, OPEN_SCANS, SCAN_SCRIPTS, SCANS, SCRIPT_SCANS};
use super::{Snapshot, StoreError};
use crate::tracker::{DescriptorId, ScanId, ScanRow, ScanState, ScriptHash};

impl Snapshot<'_> {
    /// History scans, open and ended ones, in the order of their ids, which is none; those after
    /// `after` only.
    pub fn scans(
        &self,
        after: Option<ScanId>,
    ) -> impl Iterator<Item = Result<(ScanId, ScanRow), StoreError>> {
        let from = after.map_or(Some(0), |after| after.0.checked_add(1));
        from.into_iter().flat_map(|from| {
            self.scan_entries(SCANS, &[], Some(&from.to_be_bytes()))
                .map(|entry| {
                    let (key, value) = entry?;
                    let scan = parse_number_key(&key)
                        .map_err(|Malformed(what)| self.db.corrupt(SCANS, &key, what))?;
                    Ok((ScanId(scan), self.db.decode(SCANS, &key, &value)?))
                })
        })
    }

    /// History scans that have not ended.
    pub fn open_scans(&self) -> Result<Vec<ScanId>, StoreError> {
        let keys = self.keys(OPEN_SCANS, &[], None, parse_number_key);
        keys.map(|scan| Ok(ScanId(scan?))).collect()
    }

    /// The scripts of a scan that has not ended, ascending.
    pub fn scan_scripts(&self, scan: &ScanId) -> Result<Vec<ScriptHash>, StoreError> {
        let prefix = scan.0.to_be_bytes();
        self.keys(SCAN_SCRIPTS, &prefix, None, parse_scan_script_key)
            .collect()
    }

    /// Whether a history scan of a script has not ended.
    pub fn is_in_scan(&self, script: &ScriptHash) -> Result<bool, StoreError> {
        for scan in self.keys(SCRIPT_SCANS, &script.0, None, parse_script_scan_key) {
            if self.is_open(&scan?)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a history scan of a descriptor has not ended; also one into which none of its
    /// scripts has come yet.
    pub fn is_descriptor_in_scan(&self, descriptor: &DescriptorId) -> Result<bool, StoreError> {
        // Those of addresses, of which there may be many more, are not looked at.
        for scan in self.keys(DESCRIPTOR_SCANS, &[], None, parse_number_key) {
            let scan = ScanId(scan?);
            let of_descriptor = self.descriptor_scan(&scan)?;
            if of_descriptor.is_some_and(|it| it.descriptor == *descriptor)
                && self.is_open(&scan)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The history scans that have ended, or were never opened, and have scripts.
    pub fn ended_scans_with_scripts(&self) -> Result<Vec<ScanId>, StoreError> {
        let (mut ended, mut from) = (Vec::new(), Some(0_u64));
        while let Some(first) = from {
            let first = first.to_be_bytes();
            let mut scans = self.keys(SCAN_SCRIPTS, &[], Some(&first), parse_scan_of_key);
            let Some(scan) = scans.next().transpose()? else {
                break;
            };
            if !self.is_open(&scan)? {
                ended.push(scan);
            }
            from = scan.0.checked_add(1);
        }
        Ok(ended)
    }

    fn is_open(&self, scan: &ScanId) -> Result<bool, StoreError> {
        let row = self.scan(scan)?;
        Ok(row.is_some_and(|row| row.state == ScanState::Open))
    }
}
