//! Progress on a terminal: one line each, redrawn in place, for catching up with the node's chain,
//! for balances from before that are looked for, and for history scans. Nothing where standard
//! error is no terminal.
//!
//! It looks at what everybody sees, the store and the follower's status, once a second. Log lines
//! go above the bars, which they get by being written through [`Bars`].

use std::io::{self, Write, stderr};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::bitcoind::NodeStatus;
use crate::history::ScanProgress;
use crate::store::{StoreError, StoreReader};

const LOOK: Duration = Duration::from_secs(1);
/// Addresses that wait are counted so far.
const MOST_COUNTED: usize = 10_000;

/// The bars at the bottom of the terminal, and the way past them for lines.
#[derive(Clone, Default)]
pub struct Bars(MultiProgress);

/// What is looked at.
#[derive(Clone)]
pub struct Sources {
    pub reader: StoreReader,
    pub node: watch::Receiver<NodeStatus>,
    /// It is to be followed.
    pub monitoring: watch::Receiver<bool>,
    pub scans: watch::Receiver<Vec<ScanProgress>>,
}

/// One line: what goes on, and how much of it is left.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    name: &'static str,
    left: u64,
    words: String,
}

/// A line that is drawn. The most that was ever left is its whole.
struct Drawn {
    name: &'static str,
    most: u64,
    bar: ProgressBar,
}

impl Write for Bars {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| stderr().write_all(text))?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        stderr().flush()
    }
}

impl Bars {
    /// Draws until the store cannot be read, which ends the daemon.
    pub async fn draw(self, sources: Sources) {
        let mut drawn = Vec::new();
        while !self.0.is_hidden() {
            let looked = spawn_blocking({
                let sources = sources.clone();
                move || look(&sources)
            });
            let Ok(Ok(lines)) = looked.await else { break };
            self.show(&mut drawn, lines);
            sleep(LOOK).await;
        }
        self.end();
    }

    /// Takes the bars away.
    pub fn end(&self) {
        let _ = self.0.clear();
    }

    fn show(&self, drawn: &mut Vec<Drawn>, lines: Vec<Line>) {
        drawn.retain(|one| {
            let goes_on = lines.iter().any(|line| line.name == one.name);
            if !goes_on {
                one.bar.finish_and_clear();
            }
            goes_on
        });
        for line in lines {
            let place = drawn.iter().position(|one| one.name == line.name);
            let place = place.unwrap_or_else(|| {
                drawn.push(Drawn {
                    name: line.name,
                    most: 0,
                    bar: self.0.add(bar(line.name)),
                });
                drawn.len() - 1
            });
            if let Some(one) = drawn.get_mut(place) {
                one.most = one.most.max(line.left);
                one.bar.set_length(one.most);
                one.bar.set_position(one.most - line.left);
                one.bar.set_message(line.words);
            }
        }
    }
}

fn bar(name: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} [{bar:20}] {msg}");
    let style = style
        .expect("a template that indicatif reads")
        .progress_chars("=> ");
    ProgressBar::no_length().with_style(style).with_prefix(name)
}

fn look(sources: &Sources) -> Result<Vec<Line>, StoreError> {
    let snapshot = sources.reader.snapshot();
    let tip = snapshot.tip()?.map(|tip| tip.height);
    let waiting = snapshot.pending_baselines().take(MOST_COUNTED);
    let waiting = waiting.filter(Result::is_ok).count();
    let is_on = *sources.monitoring.borrow();
    let (node, scans) = (sources.node.borrow(), sources.scans.borrow());
    Ok(lines(tip, &node, is_on, waiting, &scans))
}

/// `is_on`: the node is to be followed.
fn lines(
    tip: Option<u32>,
    status: &NodeStatus,
    is_on: bool,
    waiting: usize,
    scans: &[ScanProgress],
) -> Vec<Line> {
    let node = status.node.blocks;
    let behind = tip.map_or(0, |tip| node.saturating_sub(tip));
    let left =
        |scan: &ScanProgress| u64::from(scan.target.saturating_add(1).saturating_sub(scan.next));
    let first = scans.iter().min_by_key(|scan| (!scan.running, left(scan)));
    let catching_up = (behind > 1 && status.available && is_on).then(|| Line {
        name: "catching up",
        left: u64::from(behind),
        words: format!("block {} of {node}", tip.unwrap_or_default()),
    });
    let looking = (waiting > 0).then(|| Line {
        name: "first balances",
        left: waiting as u64,
        words: match waiting {
            1 => "one address waits for what it had before".to_owned(),
            MOST_COUNTED => format!("{waiting} addresses or more wait for what they had before"),
            _ => format!("{waiting} addresses wait for what they had before"),
        },
    });
    let scanning = first.map(|scan| Line {
        name: "history scans",
        left: scans.iter().map(left).sum(),
        words: match &scan.waits_for {
            Some(why) => format!("{} open, waiting: {why}", scans.len()),
            None => format!(
                "{} open, block {} of {}",
                scans.len(),
                scan.next,
                scan.target
            ),
        },
    });
    [catching_up, looking, scanning]
        .into_iter()
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use indicatif::ProgressDrawTarget;

    use super::*;
    use crate::tracker::ScanId;

    fn node(blocks: u32) -> NodeStatus {
        let mut status = NodeStatus {
            available: true,
            ..NodeStatus::default()
        };
        status.node.blocks = blocks;
        status
    }

    fn scan(next: u32, target: u32, waits_for: Option<&str>) -> ScanProgress {
        ScanProgress {
            scan: ScanId(1),
            target,
            next,
            running: true,
            method: None,
            rate: None,
            waits_for: waits_for.map(str::to_owned),
        }
    }

    fn told(lines: &[Line]) -> Vec<String> {
        let text = |line: &Line| format!("{} {}: {}", line.name, line.left, line.words);
        lines.iter().map(text).collect()
    }

    #[test]
    fn a_line_for_each_thing_that_goes_on() {
        // Every block is a moment of being behind.
        for tip in [None, Some(99), Some(100), Some(101)] {
            assert_eq!(lines(tip, &node(100), true, 0, &[]), []);
        }
        let away = NodeStatus {
            available: false,
            ..node(100)
        };
        assert_eq!(lines(Some(1), &away, true, 0, &[]), []);
        assert_eq!(lines(Some(1), &node(100), false, 0, &[]), [], "stopped");
        let scans = [scan(10, 100, None), scan(95, 100, None)];
        assert_eq!(
            told(&lines(Some(60), &node(100), true, 2, &scans)),
            [
                "catching up 40: block 60 of 100",
                "first balances 2: 2 addresses wait for what they had before",
                "history scans 97: 2 open, block 95 of 100",
            ]
        );
        let queued = ScanProgress {
            running: false,
            ..scan(99, 100, Some("its turn"))
        };
        assert_eq!(
            told(&lines(
                None,
                &node(0),
                true,
                0,
                &[queued, scan(10, 100, None)]
            )),
            ["history scans 93: 2 open, block 10 of 100"]
        );
        let waits = [scan(10, 100, Some("the node is away"))];
        assert_eq!(
            told(&lines(None, &node(0), true, 1, &waits)),
            [
                "first balances 1: one address waits for what it had before",
                "history scans 91: 1 open, waiting: the node is away",
            ]
        );
    }

    #[test]
    fn what_is_done_is_drawn_no_more() {
        let bars = Bars(MultiProgress::with_draw_target(ProgressDrawTarget::hidden()));
        let mut drawn = Vec::new();
        for (left, place) in [(40, 0), (60, 0), (15, 45)] {
            let words = String::new();
            let name = "catching up";
            bars.show(&mut drawn, vec![Line { name, left, words }]);
            let bar = &drawn[0].bar;
            assert_eq!((drawn.len(), bar.position()), (1, place), "{left}");
        }
        bars.show(&mut drawn, Vec::new());
        assert!(drawn.is_empty());
    }
}
