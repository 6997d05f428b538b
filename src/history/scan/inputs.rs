//! What is sent to the indexer for scans.

use crate::clock::now_ms;
use crate::history::{Interrupted, NodeContext};
use crate::indexer::InputRefused;
use crate::tracker::{Input, ScanEnd, ScanId, ScanState};

/// Anything but a fatal refusal means that the store is ahead of what we know.
pub(super) async fn apply(context: &NodeContext, input: Input) -> Result<(), Interrupted> {
    match context.indexer.apply(input).await {
        Ok(_) => Ok(()),
        Err(InputRefused::Stopped(_)) => Err(Interrupted::Over),
        Err(InputRefused::Apply(error)) => {
            tracing::debug!("a history scan is read anew: {error}");
            Err(Interrupted::Moved)
        }
    }
}

/// A portion of its scripts at a time; whether it has ended. One that has come to height `next` may
/// have gone back, or on, instead.
pub(super) async fn close(
    context: &NodeContext,
    scan: ScanId,
    next: u32,
    end: ScanEnd,
) -> Result<bool, Interrupted> {
    loop {
        let now = now_ms();
        apply(context, Input::CloseScan { scan, end, now }).await?;
        let row = context.reader.snapshot().scan(&scan)?;
        match row.filter(|row| row.state == ScanState::Open) {
            None => return Ok(true),
            Some(row) if row.next != next => return Ok(false),
            Some(_) => {}
        }
    }
}

/// The scripts of its descriptor whose baseline is merged, a portion at a time; whether there were
/// any that were not in it.
pub(super) async fn enter(context: &NodeContext, scan: ScanId) -> Result<bool, Interrupted> {
    let mut has_grown = false;
    loop {
        let before = context.reader.snapshot().descriptor_scan(&scan)?;
        apply(context, Input::EnterScan { scan }).await?;
        let after = context.reader.snapshot().descriptor_scan(&scan)?;
        let entered = [before, after].map(|it| it.map(|it| it.entered));
        if entered[0] == entered[1] {
            return Ok(has_grown);
        }
        has_grown = true;
    }
}
