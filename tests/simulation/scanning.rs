//! What goes on of the history scans. It sends what `history::scan` does; the node is asked once
//! for each stretch of blocks.

use std::time::Instant;

use satwatch::tracker::Input;

use crate::clock::millis;
use crate::pretended::pick;
use crate::pretended::scans::{Stretch, next_step};
use crate::process::{Around, LOOK};

pub enum Scanning {
    /// The rows are read, and the node is asked, then.
    Wanted(Instant),
    /// What it answered arrives then.
    Read { at: Instant, input: Box<Input> },
}

impl Scanning {
    pub fn go_on(&mut self, is_at_tip: bool, around: &mut Around) {
        let now = around.now.instant;
        if !matches!(self, Self::Wanted(at) if *at <= now) {
            return;
        }
        let view = around.rows.view.borrow();
        let scan = pick(&view.open_scans(), around.random.next() as u16);
        let node = around.line.bitcoind.borrow();
        let input = scan
            .filter(|_| is_at_tip && node.is_ready())
            .and_then(|scan| {
                let (horizon, now) = (node.horizon as u32, around.now.ms);
                if view.scans[&scan].next < horizon {
                    let scans = vec![scan];
                    return Some(Input::SkipPruned {
                        scans,
                        horizon,
                        now,
                    });
                }
                let stretch = Stretch {
                    blocks: around.random.within(1, 5) as u32,
                    too_much: false,
                };
                next_step(&node.node, &view, scan, stretch, now)
            });
        *self = match input.map(Box::new) {
            Some(input) => {
                let at = now + millis(around.call_ms * 2);
                Self::Read { at, input }
            }
            None if scan.is_some() => Self::Wanted(now + millis(200)),
            None => Self::Wanted(now + LOOK),
        };
    }

    /// When something happens.
    pub fn next(&self) -> Instant {
        match self {
            Self::Wanted(at) | Self::Read { at, .. } => *at,
        }
    }

    pub fn is_read(&self, now: Instant) -> bool {
        matches!(self, Self::Read { at, .. } if *at <= now)
    }

    /// What was read.
    pub fn take(&mut self, now: Instant) -> Option<Input> {
        match std::mem::replace(self, Self::Wanted(now + millis(20))) {
            Self::Read { input, .. } => Some(*input),
            Self::Wanted(_) => None,
        }
    }

    /// Scans were opened or ended.
    pub fn wake(&mut self, now: Instant) {
        if let Self::Wanted(at) = self {
            *at = now;
        }
    }
}
