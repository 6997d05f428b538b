//! `POST /audit/{address}` and `POST /audit/descriptors/{id}`: our confirmed unspent outputs beside
//! the node's own, at one block.
//!
//! It makes the node read all of its unspent outputs, which takes it minutes on a full chain. So
//! there is one at a time. Who hangs up ends it: everything here is dropped with the request, and
//! the node's side notices.

use std::collections::BTreeMap;

use bitcoin::{OutPoint, Txid};
use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::respond::{self, Reply, WithCursor};
use crate::bitcoind;
use crate::history::{Audit, AuditRequest, Audited};
use crate::reads::Reads;
use crate::tracker::OutputRow;
use crate::tracker::input::FoundOutput;
use crate::wire::ApiError;
use crate::wire::json::{BalanceOf, Block, Btc, CoverageShape, signed};
use crate::wire::request::descriptors::{descriptor_id, no_such_descriptor};
use crate::wire::schema::Hash;

/// `why`: what the node's side says, which is no sentence yet.
fn node_unavailable(why: &str) -> ApiError {
    let why = why.trim_end_matches('.');
    let (first, rest) = why.split_at_checked(1).unwrap_or(("", why));
    let message = format!("{}{rest}.", first.to_ascii_uppercase());
    ApiError::unavailable("node_unavailable", message)
}

/// An unspent output, as one side knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "OutputFacts")]
struct Facts {
    /// Satoshi.
    value: u64,
    block_height: Option<u32>,
    coinbase: bool,
}

/// The outputs of one side.
type OutputFacts = BTreeMap<OutPoint, Facts>;

fn our_outputs(rows: &[(OutPoint, OutputRow)]) -> OutputFacts {
    let facts = |row: &OutputRow| Facts {
        value: row.value,
        block_height: row.height,
        coinbase: row.coinbase,
    };
    let outputs = rows.iter().map(|(outpoint, row)| (*outpoint, facts(row)));
    outputs.collect()
}

fn node_outputs(found: &[FoundOutput]) -> OutputFacts {
    let facts = |found: &FoundOutput| Facts {
        value: found.value.to_sat(),
        block_height: Some(found.height),
        coinbase: found.coinbase,
    };
    let outputs = found.iter().map(|found| (found.outpoint, facts(found)));
    outputs.collect()
}

/// What is in `these` and not in `others`.
fn absent<'a>(
    these: &'a OutputFacts,
    others: &'a OutputFacts,
) -> impl Iterator<Item = (&'a OutPoint, &'a Facts)> {
    these
        .iter()
        .filter(|(outpoint, _)| !others.contains_key(outpoint))
}

/// What both have and say different things of: ours, then the node's.
fn different<'a>(
    ours: &'a OutputFacts,
    node: &'a OutputFacts,
) -> impl Iterator<Item = (&'a OutPoint, &'a Facts, &'a Facts)> {
    let both = ours
        .iter()
        .filter_map(|(outpoint, facts)| Some((outpoint, facts, node.get(outpoint)?)));
    both.filter(|(_, ours, node)| ours != node)
}

/// An unspent output that one side has.
#[derive(Debug, Serialize, JsonSchema)]
struct AuditedOutput {
    #[schemars(with = "Hash")]
    tx_hash: Txid,
    output_index: u32,
    /// Satoshi.
    value: u64,
    value_btc: Btc,
    block_height: Option<u32>,
    coinbase: bool,
}

/// An unspent output of which both sides say different things.
#[derive(Debug, Serialize, JsonSchema)]
struct DifferentOutput {
    #[schemars(with = "Hash")]
    tx_hash: Txid,
    output_index: u32,
    ours: Facts,
    node: Facts,
}

/// The unspent outputs of one side.
#[derive(Debug, Serialize, JsonSchema)]
struct Totals {
    count: usize,
    /// Satoshi.
    total: u64,
}

/// Our confirmed unspent outputs beside the node's own, at one block.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Audit")]
pub struct AuditShape {
    #[serde(flatten)]
    of: BalanceOf,
    agrees: bool,
    block: Block,
    coverage: CoverageShape,
    ours: Totals,
    node: Totals,
    /// The node has them, we do not.
    missing: Vec<AuditedOutput>,
    /// We have them, the node does not.
    extra: Vec<AuditedOutput>,
    different: Vec<DifferentOutput>,
}

fn output_shape((outpoint, facts): (&OutPoint, &Facts)) -> AuditedOutput {
    AuditedOutput {
        tx_hash: outpoint.txid,
        output_index: outpoint.vout,
        value: facts.value,
        value_btc: Btc(signed(facts.value)),
        block_height: facts.block_height,
        coinbase: facts.coinbase,
    }
}

/// How many outputs there are, and their sum; an error when that is more than a number holds, and
/// more than all money.
fn totals(outputs: &OutputFacts) -> Result<Totals, ApiError> {
    let mut values = outputs.values().map(|facts| facts.value);
    let total = values.try_fold(0_u64, u64::checked_add).ok_or_else(|| {
        ApiError::internal(&"the sum of an address's outputs is more than all money")
    })?;
    Ok(Totals {
        count: outputs.len(),
        total,
    })
}

fn audit_shape(
    of: BalanceOf,
    audited: &Audited,
    coverage: CoverageShape,
) -> Result<AuditShape, ApiError> {
    let (ours, node) = (our_outputs(&audited.ours), node_outputs(&audited.theirs));
    let different = different(&ours, &node).map(|(outpoint, ours, node)| DifferentOutput {
        tx_hash: outpoint.txid,
        output_index: outpoint.vout,
        ours: *ours,
        node: *node,
    });
    Ok(AuditShape {
        of,
        agrees: ours == node,
        block: Block::from(audited.block),
        coverage,
        ours: totals(&ours)?,
        node: totals(&node)?,
        missing: absent(&node, &ours).map(output_shape).collect(),
        extra: absent(&ours, &node).map(output_shape).collect(),
        different: different.collect(),
    })
}

/// Has addresses and descriptors audited.
pub struct Auditor {
    pub reads: Reads,
    pub node: watch::Receiver<bitcoind::NodeStatus>,
    pub requests: mpsc::Sender<AuditRequest>,
    /// Held by the audit that runs.
    pub running: Mutex<()>,
    pub stop: CancellationToken,
}

impl Auditor {
    /// `POST /audit/{address}`. May take minutes.
    pub async fn audit(&self, address: &str) -> Result<Reply<WithCursor<AuditShape>>, ApiError> {
        let address = self.reads.address(address)?;
        let (known, spk) = (address.clone(), address.spk.clone());
        self.reads.run(move |view| view.watched(&known)).await?;
        let of = BalanceOf::Address {
            address: address.text.clone(),
        };
        let gone = || ApiError::not_watched(&address.text);
        self.audited(Audit::Script(spk), of, gone).await
    }

    /// `POST /audit/descriptors/{id}`: of all its scripts. May take minutes.
    pub async fn audit_descriptor(
        &self,
        id: &str,
    ) -> Result<Reply<WithCursor<AuditShape>>, ApiError> {
        let id = descriptor_id(id)?;
        self.reads.run(move |view| view.wallet_rows(&id)).await?;
        let of = BalanceOf::Descriptor {
            descriptor_id: id.to_string(),
        };
        self.audited(Audit::Descriptor(id), of, no_such_descriptor)
            .await
    }

    /// `gone`: what is said when it is not watched any more.
    async fn audited(
        &self,
        what: Audit,
        of: BalanceOf,
        gone: impl FnOnce() -> ApiError,
    ) -> Result<Reply<WithCursor<AuditShape>>, ApiError> {
        self.check_node()?;
        let _turn = self.running.try_lock().map_err(|_| {
            let message = "Another audit is running; ask again when it is done.";
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message)
                .retry_after(10)
        })?;
        let (answer, answered) = oneshot::channel();
        let request = AuditRequest { of: what, answer };
        let audited = async {
            self.requests.send(request).await.ok()?;
            answered.await.ok()
        };
        let audited = self.stop.run_until_cancelled(audited).await.flatten();
        let audited = audited
            .ok_or_else(ApiError::stopping)?
            .map_err(|error| node_unavailable(&error.to_string()))?;
        let coverage = audited
            .coverage
            .as_ref()
            .map(|coverage| CoverageShape::new(coverage, audited.is_in_scan))
            .ok_or_else(gone)?;
        let cursor = self.reads.encoder.cursor(audited.head);
        let shape = audit_shape(of, &audited, coverage)?;
        Ok(respond::with_cursor(StatusCode::OK, &cursor, shape))
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
    use bitcoin::{Amount, BlockHash, ScriptBuf, Txid};

    use serde_json::{Value, json};

    use super::*;
    use crate::tracker::{BlockId, Coverage, ScriptHash, Spend};
    use crate::wire::json::to_text;

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
                earlier: Vec::new(),
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

    /// Of an audit with these outputs.
    fn shape(ours: Vec<(OutPoint, OutputRow)>, theirs: Vec<FoundOutput>) -> Value {
        let coverage = Coverage {
            from_height: 5,
            utxos_complete: true,
            pending: false,
            ..Coverage::default()
        };
        let coverage = CoverageShape::new(&coverage, false);
        let audited = Audited {
            block: BlockId {
                height: 7,
                hash: BlockHash::from_byte_array([0xab; 32]),
            },
            head: 9,
            coverage: None,
            is_in_scan: false,
            ours,
            theirs,
        };
        let of = BalanceOf::Address {
            address: "x".to_owned(),
        };
        serde_json::to_value(audit_shape(of, &audited, coverage).unwrap()).unwrap()
    }

    #[test]
    fn equal_sides_agree_in_whatever_order_they_are() {
        assert_eq!(shape(vec![], vec![])["agrees"], true);
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
        let shape = shape(
            vec![ours(1, 5, 6), spent],
            vec![theirs(2, 5, 7), theirs(1, 5, 6)],
        );
        assert_eq!(shape["agrees"], true, "an unconfirmed spend does not count");
    }

    #[test]
    fn every_difference_is_named_once_in_the_order_of_the_outputs() {
        let shape = shape(
            vec![ours(5, 1, 1), ours(3, 7, 1), ours(1, 1, 1), ours(6, 1, 1)],
            vec![
                theirs(1, 1, 1),
                theirs(4, 9, 2),
                theirs(2, 9, 2),
                theirs(3, 8, 1),
                theirs(6, 1, 2),
            ],
        );
        let named = |list: &str, fields: [&str; 3]| -> Vec<_> {
            let list = shape[list].as_array().unwrap().iter();
            list.map(|it| fields.map(|field| it[field].as_u64().unwrap()))
                .collect()
        };
        let fields = ["output_index", "value", "block_height"];
        assert_eq!(named("missing", fields), [[2, 9, 2], [4, 9, 2]]);
        assert_eq!(named("extra", fields), [[5, 1, 1]]);
        let different = shape["different"].as_array().unwrap().iter().map(|it| {
            let facts = |side: &str| (it[side]["value"].clone(), it[side]["block_height"].clone());
            (it["output_index"].clone(), facts("ours"), facts("node"))
        });
        let facts = |value: u64, height: u64| (Value::from(value), Value::from(height));
        assert_eq!(
            different.collect::<Vec<_>>(),
            [
                (Value::from(3), facts(7, 1), facts(8, 1)),
                (Value::from(6), facts(1, 1), facts(1, 2))
            ]
        );
        assert_eq!(shape["agrees"], false);
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
            let shape = shape(vec![(place, row)], vec![theirs(1, 1, 1)]);
            assert_eq!(shape["different"].as_array().map(Vec::len), Some(1));
        }
    }

    #[test]
    fn sums_are_checked() {
        let totals = |values: &[u64]| {
            let rows = values.iter().zip(1..);
            let rows: Vec<_> = rows.map(|(value, n)| ours(n, *value, 1)).collect();
            let totals = totals(&our_outputs(&rows)).map(|totals| to_text(&totals));
            totals.map_err(|error| error.code)
        };
        let text = |count: u8, total: u64| Ok(format!("{{\"count\":{count},\"total\":{total}}}"));
        assert_eq!(totals(&[1, 2]), text(2, 3));
        assert_eq!(totals(&[u64::MAX]), text(1, u64::MAX));
        assert_eq!(totals(&[u64::MAX, 1]), Err("internal"));
    }

    #[test]
    fn an_audit_looks_as_specified() {
        let shape = shape(
            vec![ours(1, 100_000_000, 6), ours(3, 2, 6)],
            vec![theirs(1, 1, 6), theirs(2, 3, 6)],
        );
        let output = |n: u8, value: u64, btc: f64| {
            json!({
                "tx_hash": outpoint(n).txid.to_string(), "output_index": n, "value": value,
                "value_btc": btc, "block_height": 6, "coinbase": false
            })
        };
        let facts = |value: u64| json!({"value": value, "block_height": 6, "coinbase": false});
        let expected = json!({
            "address": "x", "agrees": false, "block": {"height": 7, "hash": "ab".repeat(32)},
            "coverage": {"from_height": 5, "complete": true, "utxos_complete": true, "pending": false},
            "ours": {"count": 2, "total": 100_000_002}, "node": {"count": 2, "total": 4},
            "missing": [output(2, 3, 0.000_000_03)], "extra": [output(3, 2, 0.000_000_02)],
            "different": [{
                "tx_hash": outpoint(1).txid.to_string(), "output_index": 1,
                "ours": facts(100_000_000), "node": facts(1)
            }]
        });
        assert_eq!(shape, expected);
    }
}
