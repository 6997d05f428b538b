//! `POST /audit/{address}`: our confirmed unspent outputs beside the node's own, at one block.
//!
//! It makes the node read all of its unspent outputs, which takes it minutes on a full chain. So
//! there is one at a time, and a pause between two. Who hangs up ends it: everything here is
//! dropped with the request, and the node's side notices.

use std::collections::BTreeMap;
use std::time::Duration;

use bitcoin::{OutPoint, Txid};
use hyper::StatusCode;
use serde::Serialize;
use tokio::sync::{Mutex, MutexGuard, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::respond::{self, Answer};
use crate::bitcoind::{self, AuditRequest, Audited};
use crate::reads::Reads;
use crate::tracker::OutputRow;
use crate::tracker::input::FoundOutput;
use crate::wire::json::{Block, Btc, CoverageShape, Text, signed};
use crate::wire::{ApiError, EventEncoder, address};

/// Who may audit now.
pub struct AuditLimiter {
    /// When the last one began. Held by the one that runs.
    last: Mutex<Option<Instant>>,
    /// Between the beginnings of two.
    pause: Duration,
}

impl AuditLimiter {
    pub fn new(pause: Duration) -> Self {
        Self {
            last: Mutex::new(None),
            pause,
        }
    }

    /// To be held while it runs.
    fn take(&self, now: Instant) -> Result<MutexGuard<'_, Option<Instant>>, ApiError> {
        let Ok(mut last) = self.last.try_lock() else {
            return Err(too_many(
                "Another audit is running; ask again when it is done.",
                self.pause.max(Duration::from_secs(1)),
            ));
        };
        let left = last.map_or(Duration::ZERO, |last| {
            (last + self.pause).saturating_duration_since(now)
        });
        if !left.is_zero() {
            let message = "An audit makes the node read all of its unspent outputs, so there is a pause between two (limits.audit_interval).";
            return Err(too_many(message, left));
        }
        *last = Some(now);
        Ok(last)
    }
}

fn too_many(message: &str, wait: Duration) -> ApiError {
    let seconds = wait
        .as_secs()
        .saturating_add(u64::from(wait.subsec_nanos() > 0));
    let retry_after = Some(u32::try_from(seconds).unwrap_or(u32::MAX));
    ApiError {
        retry_after,
        ..ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message)
    }
}

/// `why`: what the node's side says, which is no sentence yet.
fn node_unavailable(why: &str) -> ApiError {
    let mut rest = why.trim_end_matches('.').chars();
    let first = rest.next().map(char::to_uppercase);
    let message = format!(
        "{}{}.",
        first.into_iter().flatten().collect::<String>(),
        rest.as_str()
    );
    ApiError {
        retry_after: Some(1),
        ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "node_unavailable", message)
    }
}

/// An unspent output, as both sides know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Facts {
    value: u64,
    block_height: Option<u32>,
    coinbase: bool,
}

impl From<&OutputRow> for Facts {
    fn from(row: &OutputRow) -> Self {
        Self {
            value: row.value,
            block_height: row.height,
            coinbase: row.coinbase,
        }
    }
}

impl From<&FoundOutput> for Facts {
    fn from(found: &FoundOutput) -> Self {
        Self {
            value: found.value.to_sat(),
            block_height: Some(found.height),
            coinbase: found.coinbase,
        }
    }
}

/// How two sides differ, each list in the order of the outputs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Comparison {
    /// The node has them, we do not.
    missing: Vec<(OutPoint, Facts)>,
    /// We have them, the node does not.
    extra: Vec<(OutPoint, Facts)>,
    /// Ours, then the node's.
    different: Vec<(OutPoint, Facts, Facts)>,
}

impl Comparison {
    fn agrees(&self) -> bool {
        self.missing.is_empty() && self.extra.is_empty() && self.different.is_empty()
    }
}

fn compare(ours: &[(OutPoint, OutputRow)], theirs: &[FoundOutput]) -> Comparison {
    let mut left: BTreeMap<OutPoint, Facts> = theirs
        .iter()
        .map(|found| (found.outpoint, Facts::from(found)))
        .collect();
    let ours: BTreeMap<OutPoint, Facts> = ours
        .iter()
        .map(|(outpoint, row)| (*outpoint, Facts::from(row)))
        .collect();
    let mut comparison = Comparison::default();
    for (outpoint, ours) in ours {
        match left.remove(&outpoint) {
            None => comparison.extra.push((outpoint, ours)),
            Some(theirs) if theirs != ours => comparison.different.push((outpoint, ours, theirs)),
            Some(_) => {}
        }
    }
    comparison.missing = left.into_iter().collect();
    comparison
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Totals {
    count: usize,
    total: u64,
}

impl Totals {
    /// `None`: more than all money, many times over.
    fn of(mut values: impl ExactSizeIterator<Item = u64>) -> Option<Self> {
        let count = values.len();
        values
            .try_fold(0_u64, u64::checked_add)
            .map(|total| Self { count, total })
    }
}

#[derive(Serialize)]
struct OutputShape {
    tx_hash: Text<Txid>,
    output_index: u32,
    value: u64,
    value_btc: Btc,
    block_height: Option<u32>,
    coinbase: bool,
}

impl OutputShape {
    fn new((outpoint, facts): &(OutPoint, Facts)) -> Self {
        let Facts {
            value,
            block_height,
            coinbase,
        } = *facts;
        let value_btc = Btc(signed(value));
        Self {
            tx_hash: Text(outpoint.txid),
            output_index: outpoint.vout,
            value,
            value_btc,
            block_height,
            coinbase,
        }
    }
}

#[derive(Serialize)]
struct Different {
    tx_hash: Text<Txid>,
    output_index: u32,
    ours: Facts,
    node: Facts,
}

#[derive(Serialize)]
struct AuditShape {
    address: String,
    agrees: bool,
    block: Block,
    coverage: CoverageShape,
    ours: Totals,
    node: Totals,
    missing: Vec<OutputShape>,
    extra: Vec<OutputShape>,
    different: Vec<Different>,
    cursor: String,
}

fn shape(
    address: String,
    audited: &Audited,
    coverage: CoverageShape,
    cursor: String,
) -> Result<AuditShape, ApiError> {
    let Comparison {
        missing,
        extra,
        different,
    } = compare(&audited.ours, &audited.theirs);
    let comparison = Comparison {
        missing,
        extra,
        different,
    };
    let beyond = || ApiError::internal(&"the sum of an address's outputs is more than all money");
    let ours = Totals::of(audited.ours.iter().map(|(_, row)| row.value)).ok_or_else(beyond)?;
    let node =
        Totals::of(audited.theirs.iter().map(|found| found.value.to_sat())).ok_or_else(beyond)?;
    let different = |(outpoint, ours, node): &(OutPoint, Facts, Facts)| Different {
        tx_hash: Text(outpoint.txid),
        output_index: outpoint.vout,
        ours: *ours,
        node: *node,
    };
    Ok(AuditShape {
        address,
        agrees: comparison.agrees(),
        block: audited.block.into(),
        coverage,
        ours,
        node,
        missing: comparison.missing.iter().map(OutputShape::new).collect(),
        extra: comparison.extra.iter().map(OutputShape::new).collect(),
        different: comparison.different.iter().map(different).collect(),
        cursor,
    })
}

/// Has addresses audited.
pub struct Auditor {
    pub reads: Reads,
    pub encoder: EventEncoder,
    pub node: watch::Receiver<bitcoind::NodeStatus>,
    pub requests: mpsc::Sender<AuditRequest>,
    pub limiter: AuditLimiter,
    pub stop: CancellationToken,
}

impl Auditor {
    /// `POST /audit/{address}`. May take minutes.
    pub async fn audit(&self, address: &str) -> Result<Answer, ApiError> {
        let address = address::parse(address, self.encoder.network)?;
        let script = address.script;
        let row = self
            .reads
            .snapshot(move |snapshot| Ok(snapshot.watch(&script)?));
        if row.await?.is_none() {
            return Err(ApiError::not_watched(&address.text));
        }
        self.check_node()?;
        let _turn = self.limiter.take(Instant::now())?;
        let (answer, answered) = oneshot::channel();
        let request = AuditRequest {
            spk: address.spk,
            answer,
        };
        let audited = async {
            self.requests
                .send(request)
                .await
                .map_err(|_| ApiError::stopping())?;
            let audited = answered.await.map_err(|_| ApiError::stopping())?;
            audited.map_err(|error| node_unavailable(&error.to_string()))
        };
        let audited = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(ApiError::stopping()),
            audited = audited => audited?,
        };
        let coverage = audited
            .coverage
            .as_ref()
            .map(CoverageShape::from)
            .ok_or_else(|| ApiError::not_watched(&address.text))?;
        let cursor = self.encoder.cursor(audited.head);
        let shape = shape(address.text, &audited, coverage, cursor)?;
        Ok(respond::json_at(StatusCode::OK, &shape.cursor, &shape))
    }

    /// Without the node nobody would answer.
    fn check_node(&self) -> Result<(), ApiError> {
        let node = self.node.borrow();
        if node.available {
            return Ok(());
        }
        Err(node_unavailable(node.error.as_deref().unwrap_or(
            "The node has not been heard of yet; ask again in a moment.",
        )))
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;
    use bitcoin::{Amount, BlockHash, ScriptBuf};

    use super::*;
    use crate::tracker::{BlockId, Coverage, ScriptHash, Spend};

    fn outpoint(n: u8) -> OutPoint {
        OutPoint {
            txid: Txid::from_byte_array([n; 32]),
            vout: u32::from(n),
        }
    }

    fn ours(n: u8, value: u64, height: u32) -> (OutPoint, OutputRow) {
        (
            outpoint(n),
            OutputRow {
                script: ScriptHash([0; 32]),
                value,
                height: Some(height),
                coinbase: false,
                spent: None,
            },
        )
    }

    fn theirs(n: u8, value: u64, height: u32) -> FoundOutput {
        FoundOutput {
            outpoint: outpoint(n),
            spk: ScriptBuf::new(),
            value: Amount::from_sat(value),
            height,
            coinbase: false,
        }
    }

    fn facts(value: u64, height: u32) -> Facts {
        Facts {
            value,
            block_height: Some(height),
            coinbase: false,
        }
    }

    #[test]
    fn equal_sides_agree_in_whatever_order_they_are() {
        assert!(compare(&[], &[]).agrees());
        let spent = (
            outpoint(2),
            OutputRow {
                spent: Some(Spend {
                    txid: outpoint(9).txid,
                    height: None,
                }),
                ..ours(2, 5, 7).1
            },
        );
        assert!(
            compare(&[ours(1, 5, 6), spent], &[theirs(2, 5, 7), theirs(1, 5, 6)]).agrees(),
            "an unconfirmed spend does not count"
        );
    }

    #[test]
    fn every_difference_is_named_once() {
        let comparison = compare(
            &[ours(5, 1, 1), ours(3, 7, 1), ours(1, 1, 1), ours(6, 1, 1)],
            &[
                theirs(1, 1, 1),
                theirs(4, 9, 2),
                theirs(2, 9, 2),
                theirs(3, 8, 1),
                theirs(6, 1, 2),
            ],
        );
        assert_eq!(
            comparison.missing,
            [(outpoint(2), facts(9, 2)), (outpoint(4), facts(9, 2))]
        );
        assert_eq!(comparison.extra, [(outpoint(5), facts(1, 1))]);
        assert_eq!(
            comparison.different,
            [
                (outpoint(3), facts(7, 1), facts(8, 1)),
                (outpoint(6), facts(1, 1), facts(1, 2))
            ]
        );
        assert!(!comparison.agrees());
    }

    #[test]
    fn one_coinbase_flag_or_an_unconfirmed_height_is_a_difference() {
        let (place, row) = ours(1, 1, 1);
        for row in [
            OutputRow {
                coinbase: true,
                ..row.clone()
            },
            OutputRow {
                height: None,
                ..row
            },
        ] {
            assert_eq!(
                compare(&[(place, row)], &[theirs(1, 1, 1)]).different.len(),
                1
            );
        }
    }

    #[test]
    fn sums_are_checked() {
        assert_eq!(
            Totals::of([1, 2].into_iter()),
            Some(Totals { count: 2, total: 3 })
        );
        assert_eq!(
            Totals::of([u64::MAX].into_iter()),
            Some(Totals {
                count: 1,
                total: u64::MAX
            })
        );
        assert_eq!(Totals::of([u64::MAX, 1].into_iter()), None);
    }

    #[test]
    fn an_audit_looks_as_specified() {
        let audited = Audited {
            block: BlockId {
                height: 7,
                hash: BlockHash::from_byte_array([0xab; 32]),
            },
            head: 9,
            coverage: Some(Coverage {
                from_height: 5,
                utxos_complete: true,
                pending: false,
                scans: 0,
            }),
            ours: vec![ours(1, 100_000_000, 6), ours(3, 2, 6)],
            theirs: vec![theirs(1, 1, 6), theirs(2, 3, 6)],
        };
        let coverage = CoverageShape::from(audited.coverage.as_ref().unwrap());
        let text = crate::wire::json::to_text(
            &shape("x".to_owned(), &audited, coverage, "5fa3-9".to_owned()).unwrap(),
        );
        let (one, two, three) = ("01".repeat(32), "02".repeat(32), "03".repeat(32));
        let output = |hash: &str, index: u8, value: u64, btc: &str| {
            format!(
                r#"{{"tx_hash":"{hash}","output_index":{index},"value":{value},"value_btc":{btc},"block_height":6,"coinbase":false}}"#
            )
        };
        let (missing, extra) = (
            output(&two, 2, 3, "0.00000003"),
            output(&three, 3, 2, "0.00000002"),
        );
        let hash = "ab".repeat(32);
        let expected = format!(
            r#"{{"address":"x","agrees":false,"block":{{"height":7,"hash":"{hash}"}},"coverage":{{"from_height":5,"complete":true,"utxos_complete":true,"pending":false}},"ours":{{"count":2,"total":100000002}},"node":{{"count":2,"total":4}},"missing":[{missing}],"extra":[{extra}],"different":[{{"tx_hash":"{one}","output_index":1,"ours":{{"value":100000000,"block_height":6,"coinbase":false}},"node":{{"value":1,"block_height":6,"coinbase":false}}}}],"cursor":"5fa3-9"}}"#
        );
        assert_eq!(text, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_one_at_a_time_and_a_pause_between_two() {
        let refused = |turn: &AuditLimiter| {
            turn.take(Instant::now())
                .map(drop)
                .map_err(|error| (error.code, error.retry_after))
        };
        let turn = AuditLimiter::new(Duration::from_secs(10));
        let held = turn.take(Instant::now()).unwrap();
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(
            refused(&turn),
            Err(("too_many_requests", Some(10))),
            "it runs still"
        );
        drop(held);
        drop(turn.take(Instant::now()).unwrap());
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert_eq!(refused(&turn), Err(("too_many_requests", Some(9))));
        tokio::time::advance(Duration::from_millis(8500)).await;
        assert_eq!(refused(&turn), Ok(()));

        let turn = AuditLimiter::new(Duration::ZERO);
        let held = turn.take(Instant::now()).unwrap();
        assert_eq!(refused(&turn), Err(("too_many_requests", Some(1))));
        drop(held);
        assert_eq!((refused(&turn), refused(&turn)), (Ok(()), Ok(())));
    }
}
