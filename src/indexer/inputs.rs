//! How an input is applied: whole or in portions, with how many others, and whether what it changes
//! must survive a power loss.

use super::{BATCH, PORTION};
use crate::tracker::{Input, Portion};

/// Whether an input is applied a portion at a time.
pub(super) fn is_large(input: &Input) -> bool {
    match input {
        Input::Watch { scripts, .. } => scripts.len() > PORTION,
        Input::OpenScan { scripts, .. } => scripts.len() > PORTION,
        _ => false,
    }
}

/// As what it is applied a portion at a time.
pub(super) fn in_parts(input: Input) -> Input {
    let is_last = true;
    match input {
        Input::Watch { scripts, now } => Input::WatchPart {
            scripts,
            is_last,
            now,
        },
        other => other,
    }
}

/// Takes a portion off a large input. `None`: what is left is the last one.
pub(super) fn cut(input: &mut Input) -> Option<Input> {
    match input {
        Input::WatchPart { scripts, now, .. } if scripts.len() > PORTION => {
            let rest = scripts.split_off(PORTION);
            Some(Input::WatchPart {
                scripts: std::mem::replace(scripts, rest),
                is_last: false,
                now: *now,
            })
        }
        Input::OpenScan { scan, scripts, .. } if scripts.len() > PORTION => {
            let rest = scripts.split_off(PORTION);
            Some(Input::ScanScripts {
                scan: *scan,
                scripts: std::mem::replace(scripts, rest),
            })
        }
        _ => None,
    }
}

/// What an input adds to a batch, in about the rows of one transaction. Blocks, and the ends of a
/// scan and of a baseline, which do not say how much they look at, fill one.
pub(super) fn size_of(input: &Input) -> usize {
    match input {
        Input::Watch { scripts, .. } | Input::WatchPart { scripts, .. } => scripts.len().max(1),
        Input::Baseline {
            scripts, outputs, ..
        } => (scripts.len() + outputs.len()).max(1),
        Input::BaselinePart {
            portion: Portion::Last,
            ..
        } => BATCH,
        Input::BaselinePart { outputs, .. } => outputs.len().max(1),
        Input::Unwatch { scripts, .. }
        | Input::ScanScripts { scripts, .. }
        | Input::OpenScan { scripts, .. } => scripts.len().max(1),
        Input::ScanBlocks { blocks, .. } => blocks
            .iter()
            .map(|block| block.transactions.len())
            .sum::<usize>()
            .max(1),
        Input::Start { .. }
        | Input::Connect { .. }
        | Input::Disconnect { .. }
        | Input::CloseScan { .. }
        | Input::EnterScan { .. }
        | Input::EvictMissing { .. }
        | Input::EvictMore
        | Input::MempoolSnapshot { .. }
        | Input::Join { .. }
        | Input::Forget { .. } => BATCH,
        Input::Derived { spks, .. } => spks.len().max(1),
        Input::AddDescriptor { .. }
        | Input::Reserve { .. }
        | Input::Reach { .. }
        | Input::Label { .. }
        | Input::LeaveOut { .. }
        | Input::RemoveDescriptor { .. } => 1,
        Input::OpenDescriptorScan { .. } | Input::SkipPruned { .. } | Input::Policy(_) => 1,
        Input::TxSeen { .. } | Input::TxRemoved { .. } => 1,
    }
}

/// Whether an input is about blocks, as large as they are.
pub(super) fn is_block(input: &Input) -> bool {
    matches!(
        input,
        Input::Start { .. } | Input::Connect { .. } | Input::Disconnect { .. }
    )
}

/// Whether a change by this input must survive a power loss.
pub fn must_last(input: &Input) -> bool {
    match input {
        Input::Start { .. }
        | Input::Connect { .. }
        | Input::Disconnect { .. }
        | Input::Watch { .. }
        | Input::Baseline { .. }
        | Input::Unwatch { .. }
        | Input::OpenScan { .. }
        | Input::OpenDescriptorScan { .. }
        | Input::CloseScan { .. }
        | Input::AddDescriptor { .. }
        | Input::Reserve { .. }
        | Input::Reach { .. }
        | Input::Label { .. }
        | Input::RemoveDescriptor { .. } => true,
        // Its last part makes those before it last.
        Input::BaselinePart { portion, .. } => *portion == Portion::Last,
        // A scan goes on from where the store says that it is.
        Input::ScanBlocks { .. } | Input::EnterScan { .. } | Input::SkipPruned { .. } => false,
        // They go on from what the store says, too.
        Input::LeaveOut { .. }
        | Input::Derived { .. }
        | Input::Join { .. }
        | Input::Forget { .. } => false,
        Input::WatchPart { is_last, .. } => *is_last,
        Input::ScanScripts { .. }
        | Input::TxSeen { .. }
        | Input::TxRemoved { .. }
        | Input::EvictMissing { .. }
        | Input::EvictMore
        | Input::MempoolSnapshot { .. }
        | Input::Policy(_) => false,
    }
}
