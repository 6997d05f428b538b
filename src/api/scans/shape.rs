//! How one history scan is doing, as every answer and `scan_progress` show it.

use schemars::JsonSchema;
use serde::Serialize;

use crate::history::{ScanMethod, ScanProgress};
use crate::tracker::{ScanId, ScanRow, ScanState};
use crate::wire::json::{BalanceOf, seconds};

/// A history scan.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "Scan")]
pub struct ScanShape {
    scan_id: String,
    status: ScanStatus,
    /// Its descriptor, or the address of one that is open, if it has just one.
    #[serde(flatten)]
    of: Option<BalanceOf>,
    address_count: u32,
    from_height: u32,
    /// The last height; `null` when that is not known yet.
    to_height: Option<u32>,
    /// The node has no blocks below.
    horizon: Option<u32>,
    /// The last height that is done.
    height: Option<u32>,
    blocks_done: u32,
    blocks_total: Option<u32>,
    /// 100 only when it is complete.
    percent: f64,
    /// Transactions that it has found.
    transactions: u64,
    method: Option<ScanMethodWord>,
    blocks_per_second: Option<f64>,
    seconds_left: Option<u64>,
    /// Why it waits.
    waits_for: Option<String>,
    /// Seconds since the Unix epoch.
    created: f64,
    /// Seconds since the Unix epoch.
    updated: f64,
}

/// How far a history scan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ScanStatus {
    /// It waits for its turn.
    Queued,
    /// It waits for something (`waits_for`).
    Waiting,
    Scanning,
    Complete,
    Cancelled,
}

/// How the blocks are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ScanMethod")]
enum ScanMethodWord {
    /// With compact block filters.
    Filters,
    /// All of them are read.
    Blocks,
}

/// `of`: its descriptor, or the address of one that is open, if it has just one. `progress`: of a
/// scan that is open, if the node's side knows of it by now. `tip`: height of the tip. Right after
/// a reorg the progress may be further.
pub fn scan_shape(
    scan: ScanId,
    row: &ScanRow,
    of: Option<BalanceOf>,
    progress: Option<&ScanProgress>,
    tip: Option<u32>,
) -> ScanShape {
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
    ScanShape {
        scan_id: scan.to_string(),
        status: word(row, progress),
        of,
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
                ScanMethod::Filters => ScanMethodWord::Filters,
                ScanMethod::Blocks => ScanMethodWord::Blocks,
            }),
        blocks_per_second: rate.map(tenths),
        // A cast of a float saturates.
        seconds_left: rate
            .zip(blocks_left)
            .map(|(rate, left)| (f64::from(left) / rate).ceil() as u64),
        waits_for: progress.and_then(|progress| progress.waits_for.clone()),
        created: seconds(row.created),
        updated: seconds(row.updated),
    }
}

fn word(row: &ScanRow, progress: Option<&ScanProgress>) -> ScanStatus {
    match (row.state, progress) {
        (ScanState::Complete, _) => ScanStatus::Complete,
        (ScanState::Cancelled, _) => ScanStatus::Cancelled,
        (ScanState::Open, Some(progress)) if progress.running => ScanStatus::Scanning,
        (ScanState::Open, Some(progress)) if progress.waits_for.is_some() => ScanStatus::Waiting,
        (ScanState::Open, _) => ScanStatus::Queued,
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
    use serde_json::{Value, json};

    use super::*;
    use crate::wire::json::to_text;

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

    /// Fields of what such a scan looks like, with the tip at this height.
    fn told<const N: usize>(
        row: &ScanRow,
        progress: Option<&ScanProgress>,
        tip: impl Into<Option<u32>>,
        fields: [&str; N],
    ) -> [Value; N] {
        let shape = scan_shape(ScanId(0xab), row, None, progress, tip.into());
        let shape = serde_json::to_value(shape).unwrap();
        fields.map(|field| shape[field].clone())
    }

    #[test]
    fn a_scan_looks_as_specified() {
        let row = ScanRow {
            next: 150,
            found: 7,
            ..OPEN
        };
        assert_eq!(
            to_text(&scan_shape(
                ScanId(0xab),
                &row,
                Some(BalanceOf::Address {
                    address: "x".to_owned()
                }),
                Some(&progress(166, Some(12.37))),
                Some(300)
            )),
            r#"{"scan_id":"00000000000000ab","status":"scanning","address":"x","address_count":1,"from_height":100,"to_height":299,"horizon":null,"height":165,"blocks_done":66,"blocks_total":200,"percent":33.0,"transactions":7,"method":"blocks","blocks_per_second":12.3,"seconds_left":11,"waits_for":null,"created":1754336318.173,"updated":1754336319.0}"#
        );
        assert_eq!(
            to_text(&scan_shape(
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
        let fields = [
            "status",
            "waits_for",
            "blocks_per_second",
            "seconds_left",
            "height",
        ];
        let row = ScanRow { next: 120, ..OPEN };
        assert_eq!(
            json!(told(&row, Some(&waiting), 300, fields)),
            json!(["waiting", "The node is away.", null, null, 119])
        );
        let fields = ["blocks_per_second", "seconds_left"];
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(
                told(&OPEN, Some(&progress(120, Some(rate))), 300, fields),
                [Value::Null, Value::Null],
                "{rate}"
            );
        }
        let slow = progress(120, Some(1e-300));
        let left = told(&OPEN, Some(&slow), 300, ["seconds_left"]);
        assert_eq!(left, [json!(u64::MAX)]);
    }

    #[test]
    fn percent_is_a_hundred_only_when_it_is_complete() {
        let to = |next, to, state| {
            let row = ScanRow {
                next,
                to: Some(to),
                state,
                ..OPEN
            };
            let [percent] = told(&row, None, 300, ["percent"]);
            percent.as_f64().unwrap()
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
        let whole = ScanRow {
            from: 0,
            next: u32::MAX,
            to: Some(u32::MAX),
            ..OPEN
        };
        assert_eq!(
            told(&whole, None, 300, ["blocks_total", "percent"]),
            [json!(u32::MAX), json!(99.9)]
        );
    }

    #[test]
    fn a_scan_for_which_nothing_was_left_has_no_blocks() {
        let fields = [
            "percent",
            "blocks_done",
            "blocks_total",
            "height",
            "to_height",
        ];
        for from in [0, 100] {
            let row = ScanRow {
                from,
                next: from,
                state: ScanState::Complete,
                ..OPEN
            };
            assert_eq!(
                json!(told(&row, None, 300, fields)),
                json!([100.0, 0, 0, null, null]),
                "{from}"
            );
        }
        let met = ScanRow {
            next: 160,
            to: Some(180),
            state: ScanState::Complete,
            ..OPEN
        };
        assert_eq!(
            json!(told(&met, None, 300, fields)),
            json!([100.0, 60, 60, 159, 180])
        );
    }

    #[test]
    fn after_a_reorg_it_is_not_said_to_be_above_the_tip() {
        let row = ScanRow { next: 131, ..OPEN };
        let at = |tip: Option<u32>| told(&row, Some(&progress(221, None)), tip, ["height"]);
        assert_eq!(at(Some(130)), [json!(130)]);
        assert_eq!(at(Some(300)), [json!(220)]);
        assert_eq!(at(None), [json!(130)]);
    }

    #[test]
    fn blocks_below_the_horizon_are_not_counted() {
        let row = ScanRow {
            horizon: Some(250),
            next: 250,
            ..OPEN
        };
        let fields = [
            "from_height",
            "horizon",
            "height",
            "blocks_done",
            "blocks_total",
            "percent",
        ];
        assert_eq!(
            json!(told(&row, Some(&progress(255, None)), 300, fields)),
            json!([100, 250, 254, 5, 50, 10.0])
        );
    }
}
