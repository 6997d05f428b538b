//! How one history scan is doing, as every answer and `scan_progress` show it.

use serde::Serialize;

use crate::bitcoind::{ScanMethod, ScanProgress};
use crate::tracker::{ScanId, ScanRow, ScanState};
use crate::wire::json;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScanShape {
    scan_id: String,
    status: &'static str,
    /// While it is open, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    address_count: u32,
    from_height: u32,
    to_height: Option<u32>,
    horizon: Option<u32>,
    height: Option<u32>,
    blocks_done: u32,
    blocks_total: Option<u32>,
    percent: f64,
    transactions: u64,
    method: Option<&'static str>,
    blocks_per_second: Option<f64>,
    seconds_left: Option<u64>,
    waits_for: Option<String>,
    created: f64,
    updated: f64,
}

impl ScanShape {
    /// `progress`: of a scan that is open, if the node's side knows of it by now. `tip`: height of
    /// the tip. Right after a reorg the progress may be further.
    pub fn new(
        scan: ScanId,
        row: &ScanRow,
        address: Option<String>,
        progress: Option<&ScanProgress>,
        tip: Option<u32>,
    ) -> Self {
        let progress = progress.filter(|_| row.state == ScanState::Open);
        let running = progress.filter(|progress| progress.running);
        let top = tip.map_or(0, |tip| tip.saturating_add(1)).max(row.next);
        let (first, next) = (
            row.first(),
            running.map_or(row.next, |running| running.next.clamp(row.next, top)),
        );
        let blocks_done = next.saturating_sub(first);
        let height = next.checked_sub(1).filter(|height| *height >= first);
        let target = row.to.or_else(|| match row.state {
            ScanState::Open => progress.map(|progress| progress.target),
            ScanState::Complete => height,
            ScanState::Cancelled => None,
        });
        let blocks_total = match row.state {
            // It may have met the coverage of its scripts before it came to where it was told to.
            ScanState::Complete => Some(blocks_done),
            _ => target.map(|target| {
                target
                    .saturating_add(1)
                    .saturating_sub(first)
                    .max(blocks_done)
            }),
        };
        let blocks_left = blocks_total.map(|total| total.saturating_sub(blocks_done));
        let rate = running
            .and_then(|running| running.rate)
            .filter(|rate| rate.is_finite() && *rate > 0.0);
        Self {
            scan_id: scan.to_string(),
            status: word(row, progress),
            address,
            address_count: row.scripts,
            from_height: row.from,
            to_height: target,
            horizon: row.horizon,
            height,
            blocks_done,
            blocks_total,
            percent: percent(row.state, blocks_done, blocks_total),
            transactions: row.found,
            method: progress
                .and_then(|progress| progress.method)
                .map(|method| match method {
                    ScanMethod::Filters => "filters",
                    ScanMethod::Blocks => "blocks",
                }),
            blocks_per_second: rate.map(tenths),
            // A cast of a float saturates.
            seconds_left: rate
                .zip(blocks_left)
                .map(|(rate, left)| (f64::from(left) / rate).ceil() as u64),
            waits_for: progress.and_then(|progress| progress.waits_for.clone()),
            created: json::seconds(row.created),
            updated: json::seconds(row.updated),
        }
    }
}

fn word(row: &ScanRow, progress: Option<&ScanProgress>) -> &'static str {
    match (row.state, progress) {
        (ScanState::Complete, _) => "complete",
        (ScanState::Cancelled, _) => "cancelled",
        (ScanState::Open, Some(progress)) if progress.running => "scanning",
        (ScanState::Open, Some(progress)) if progress.waits_for.is_some() => "waiting",
        (ScanState::Open, _) => "queued",
    }
}

/// With one decimal; 100 only when it is complete.
fn percent(state: ScanState, done: u32, total: Option<u32>) -> f64 {
    match (state, total) {
        (ScanState::Complete, _) => 100.0,
        (_, Some(total)) if total > 0 => {
            tenths((f64::from(done) * 100.0 / f64::from(total)).min(99.9))
        }
        _ => 0.0,
    }
}

/// Down to one decimal.
fn tenths(number: f64) -> f64 {
    (number * 10.0).floor() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: ScanRow = ScanRow {
        created: 1_754_336_318_173,
        updated: 1_754_336_319_000,
        state: ScanState::Open,
        from: 100,
        to: None,
        horizon: None,
        next: 100,
        scripts: 1,
        found: 0,
    };

    fn progress(next: u32, rate: Option<f64>) -> ScanProgress {
        ScanProgress {
            scan: ScanId(0xab),
            target: 299,
            next,
            running: true,
            method: Some(ScanMethod::Blocks),
            rate,
            waits_for: None,
        }
    }

    fn shape(row: &ScanRow, progress: Option<&ScanProgress>) -> ScanShape {
        ScanShape::new(ScanId(0xab), row, Some("x".to_owned()), progress, Some(300))
    }

    #[test]
    fn a_scan_looks_as_specified() {
        let row = ScanRow {
            next: 150,
            found: 7,
            ..OPEN
        };
        assert_eq!(
            json::to_text(&shape(&row, Some(&progress(166, Some(12.37))))),
            r#"{"scan_id":"00000000000000ab","status":"scanning","address":"x","address_count":1,"from_height":100,"to_height":299,"horizon":null,"height":165,"blocks_done":66,"blocks_total":200,"percent":33.0,"transactions":7,"method":"blocks","blocks_per_second":12.3,"seconds_left":11,"waits_for":null,"created":1754336318.173,"updated":1754336319.0}"#
        );
        assert_eq!(
            json::to_text(&ScanShape::new(
                ScanId(u64::MAX),
                &ScanRow { scripts: 2, ..OPEN },
                None,
                None,
                None
            )),
            r#"{"scan_id":"ffffffffffffffff","status":"queued","address_count":2,"from_height":100,"to_height":null,"horizon":null,"height":null,"blocks_done":0,"blocks_total":null,"percent":0.0,"transactions":0,"method":null,"blocks_per_second":null,"seconds_left":null,"waits_for":null,"created":1754336318.173,"updated":1754336319.0}"#
        );
    }

    #[test]
    fn what_it_waits_for_is_said_and_no_rate_then() {
        let waiting = ScanProgress {
            running: false,
            waits_for: Some("The node is away.".to_owned()),
            ..progress(120, Some(5.0))
        };
        let shape = shape(&ScanRow { next: 120, ..OPEN }, Some(&waiting));
        assert_eq!(
            (shape.status, shape.waits_for.as_deref()),
            ("waiting", Some("The node is away."))
        );
        assert_eq!(
            (shape.blocks_per_second, shape.seconds_left, shape.height),
            (None, None, Some(119))
        );
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let shape = ScanShape::new(
                ScanId(1),
                &OPEN,
                None,
                Some(&progress(120, Some(rate))),
                Some(300),
            );
            assert_eq!(
                (shape.blocks_per_second, shape.seconds_left),
                (None, None),
                "{rate}"
            );
        }
        let slow = ScanShape::new(
            ScanId(1),
            &OPEN,
            None,
            Some(&progress(120, Some(1e-300))),
            Some(300),
        );
        assert_eq!(slow.seconds_left, Some(u64::MAX));
    }

    #[test]
    fn percent_is_a_hundred_only_when_it_is_complete() {
        let to = |next, to, state| {
            shape(
                &ScanRow {
                    next,
                    to: Some(to),
                    state,
                    ..OPEN
                },
                None,
            )
            .percent
        };
        assert_eq!(to(100, 100_099, ScanState::Open), 0.0);
        assert_eq!(to(100_099, 100_099, ScanState::Open), 99.9);
        assert_eq!(to(100_100, 100_099, ScanState::Open), 99.9);
        assert_eq!(to(100_100, 100_099, ScanState::Complete), 100.0);
        assert_eq!(to(50_100, 100_099, ScanState::Cancelled), 50.0);
        assert_eq!(
            to(200_000, 100_099, ScanState::Open),
            99.9,
            "further than it was told to"
        );
        let whole = shape(
            &ScanRow {
                from: 0,
                next: u32::MAX,
                to: Some(u32::MAX),
                ..OPEN
            },
            None,
        );
        assert_eq!((whole.blocks_total, whole.percent), (Some(u32::MAX), 99.9));
    }

    #[test]
    fn a_scan_for_which_nothing_was_left_has_no_blocks() {
        for from in [0, 100] {
            let row = ScanRow {
                from,
                next: from,
                state: ScanState::Complete,
                ..OPEN
            };
            let shape = shape(&row, None);
            assert_eq!(
                (shape.percent, shape.blocks_done, shape.blocks_total),
                (100.0, 0, Some(0)),
                "{from}"
            );
            assert_eq!((shape.height, shape.to_height), (None, None), "{from}");
        }
        let met = shape(
            &ScanRow {
                next: 160,
                to: Some(180),
                state: ScanState::Complete,
                ..OPEN
            },
            None,
        );
        assert_eq!(
            (met.blocks_done, met.blocks_total, met.height, met.to_height),
            (60, Some(60), Some(159), Some(180))
        );
    }

    #[test]
    fn after_a_reorg_it_is_not_said_to_be_above_the_tip() {
        let at = |tip| {
            ScanShape::new(
                ScanId(1),
                &ScanRow { next: 131, ..OPEN },
                None,
                Some(&progress(221, None)),
                tip,
            )
            .height
        };
        assert_eq!(
            (at(Some(130)), at(Some(300)), at(None)),
            (Some(130), Some(220), Some(130))
        );
    }

    #[test]
    fn blocks_below_the_horizon_are_not_counted() {
        let row = ScanRow {
            horizon: Some(250),
            next: 250,
            ..OPEN
        };
        let shape = shape(&row, Some(&progress(255, None)));
        assert_eq!(
            (shape.from_height, shape.horizon, shape.height),
            (100, Some(250), Some(254))
        );
        assert_eq!(
            (shape.blocks_done, shape.blocks_total, shape.percent),
            (5, Some(50), 10.0)
        );
    }
}
