//! The wire shapes: how domain values look to clients, the same for REST and Socket.IO.
//!
//! Amounts are integers in satoshi; a `*_btc` twin is written from the integer's digits. Times are seconds since the Unix epoch as a
//! float (milliseconds inside). Hashes are hex in display order. A field that has no value is `null`, unless said otherwise.

use std::fmt::Display;

use bitcoin::{BlockHash, Network, OutPoint, Script, Txid};
use serde::Serialize;
use serde::ser::Serializer;
use serde_json::value::RawValue;

use super::address;
use crate::tracker::{self, BlockId, Cause, Coverage, Event, EventKind, OutputRow, Phase, Status, TxSummary, WatchRow};

/// Confirmations after which a coinbase output may be spent: it has 100 when the next block is the one that may.
const COINBASE_MATURITY: u32 = 100;

/// Satoshi as a JSON number in bitcoin: exact, at most 8 decimals, at least one (`0.0`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Btc(pub i64);

impl Serialize for Btc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const COIN: u64 = 100_000_000;
        let (sign, magnitude) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        let decimals = format!("{:08}", magnitude % COIN);
        let decimals = match decimals.trim_end_matches('0') {
            "" => "0",
            trimmed => trimmed,
        };
        let text = format!("{sign}{}.{decimals}", magnitude / COIN);
        RawValue::from_string(text).expect("digits with one point are a JSON number").serialize(serializer)
    }
}

/// A value whose text form is its wire form (hashes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<T>(pub T);

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Milliseconds as seconds. Exact to the millisecond for some 285 000 years.
pub fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}

/// Confirmations of a block at `height` under `tip`; 0 when there is no such block on the chain.
pub fn confirmations(tip: Option<BlockId>, height: Option<u32>) -> u32 {
    match (tip, height) {
        (Some(tip), Some(height)) => tip.height.checked_sub(height).map_or(0, |above| above.saturating_add(1)),
        _ => 0,
    }
}

/// The text of any of the shapes below.
pub fn to_text(shape: &impl Serialize) -> String {
    serde_json::to_string(shape).expect("wire shapes have text keys and cannot fail to serialize")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Block {
    pub height: u32,
    pub hash: Text<BlockHash>,
}

impl From<BlockId> for Block {
    fn from(block: BlockId) -> Self {
        Self { height: block.height, hash: Text(block.hash) }
    }
}

/// `complete`: the balance is whole. `from_height`: first height from which every transaction is known; `null` before the first block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CoverageShape {
    pub from_height: Option<u32>,
    pub complete: bool,
    pub utxos_complete: bool,
    pub pending: bool,
}

impl From<&Coverage> for CoverageShape {
    fn from(coverage: &Coverage) -> Self {
        let whole = coverage.utxos_complete || coverage.from_height == 0;
        Self {
            from_height: (coverage.from_height < u32::MAX).then_some(coverage.from_height),
            complete: whole && !coverage.pending,
            utxos_complete: coverage.utxos_complete,
            pending: coverage.pending,
        }
    }
}

/// `GET /balance/{address}`, and `balance` of the event `subscribed`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Balance {
    pub address: String,
    pub confirmed_balance: i64,
    pub confirmed_balance_btc: Btc,
    pub unconfirmed_balance: i64,
    pub unconfirmed_balance_btc: Btc,
    pub utxo_count: u64,
    pub last_updated: f64,
    pub balance: i64,
    pub balance_btc: Btc,
    pub immature: u64,
    pub coverage: CoverageShape,
    pub tip: Option<Block>,
    pub cursor: String,
}

impl Balance {
    /// `utxos`: the script's unspent outputs, of the same instant as everything else.
    pub fn new(address: &str, row: &WatchRow, utxos: &[(OutPoint, OutputRow)], tip: Option<BlockId>, cursor: String) -> Self {
        let immature = utxos.iter().filter(|(_, output)| !is_mature(output, tip)).map(|(_, output)| output.value);
        Self {
            address: address.to_owned(),
            confirmed_balance: row.balance.confirmed,
            confirmed_balance_btc: Btc(row.balance.confirmed),
            unconfirmed_balance: row.balance.unconfirmed,
            unconfirmed_balance_btc: Btc(row.balance.unconfirmed),
            utxo_count: row.utxo_count,
            last_updated: seconds(row.updated),
            balance: row.balance.total(),
            balance_btc: Btc(row.balance.total()),
            immature: immature.fold(0, u64::saturating_add),
            coverage: CoverageShape::from(&row.coverage),
            tip: tip.map(Block::from),
            cursor,
        }
    }
}

/// Whether the next block may spend it.
fn is_mature(output: &OutputRow, tip: Option<BlockId>) -> bool {
    !output.coinbase || confirmations(tip, output.height) >= COINBASE_MATURITY
}

/// One element of `GET /utxos/{address}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Utxo {
    pub tx_hash: Text<Txid>,
    pub output_index: u32,
    pub value: u64,
    pub value_btc: Btc,
    pub address: String,
    pub confirmed: bool,
    pub block_height: Option<u32>,
    pub confirmations: u32,
    pub coinbase: bool,
    pub mature: bool,
    /// Absent unless a mempool transaction spends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spent_by: Option<Text<Txid>>,
}

impl Utxo {
    pub fn new(address: &str, outpoint: &OutPoint, row: &OutputRow, tip: Option<BlockId>) -> Self {
        Self {
            tx_hash: Text(outpoint.txid),
            output_index: outpoint.vout,
            value: row.value,
            value_btc: Btc(signed(row.value)),
            address: address.to_owned(),
            confirmed: row.height.is_some(),
            block_height: row.height,
            confirmations: confirmations(tip, row.height),
            coinbase: row.coinbase,
            mature: is_mature(row, tip),
            spent_by: row.spent.map(|spend| Text(spend.txid)),
        }
    }
}

/// One element of `GET /transactions/{address}` and of `new_transactions`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Transaction {
    pub txid: Text<Txid>,
    pub received: u64,
    pub sent: u64,
    pub net: i64,
    pub net_btc: Btc,
    pub status: &'static str,
    pub confirmations: u32,
    pub block_height: Option<u32>,
    pub block_hash: Option<Text<BlockHash>>,
    pub block_time: Option<f64>,
    pub first_seen: f64,
    pub replaceable: bool,
    pub replaced_by: Option<Text<Txid>>,
    pub conflicted_by: Option<Text<Txid>>,
}

impl Transaction {
    pub fn new(summary: &TxSummary, tip: Option<BlockId>) -> Self {
        let net = signed(summary.received).saturating_sub(signed(summary.sent));
        let block = block_of(&summary.status);
        Self {
            txid: Text(summary.txid),
            received: summary.received,
            sent: summary.sent,
            net,
            net_btc: Btc(net),
            status: phase(summary.status.phase()),
            confirmations: confirmations(tip, block.map(|block| block.height)),
            block_height: block.map(|block| block.height),
            block_hash: block.map(|block| Text(block.hash)),
            block_time: summary.block_time.filter(|_| block.is_some()).map(f64::from),
            first_seen: seconds(summary.first_seen),
            replaceable: summary.replaceable && summary.status == Status::Mempool,
            replaced_by: replaced_by(&summary.status),
            conflicted_by: conflicted_by(&summary.status),
        }
    }
}

fn block_of(status: &Status) -> Option<BlockId> {
    match status {
        Status::Confirmed { block, .. } => Some(*block),
        _ => None,
    }
}

fn replaced_by(status: &Status) -> Option<Text<Txid>> {
    match status {
        Status::Replaced { by } => Some(Text(*by)),
        _ => None,
    }
}

fn conflicted_by(status: &Status) -> Option<Text<Txid>> {
    match status {
        Status::Conflicted { by } => Some(Text(*by)),
        _ => None,
    }
}

/// A transaction's status in one word.
pub fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Mempool => "mempool",
        Phase::Confirmed => "confirmed",
        Phase::Replaced => "replaced",
        Phase::Conflicted => "conflicted",
        Phase::Evicted => "evicted",
    }
}

/// No amount exceeds what an `i64` holds: all the satoshi there will ever be are 2.1e15.
fn signed(satoshi: u64) -> i64 {
    i64::try_from(satoshi).unwrap_or(i64::MAX)
}

#[derive(Debug, Serialize)]
struct CauseShape {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    txid: Option<Text<Txid>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block_hash: Option<Text<BlockHash>>,
}

impl From<Cause> for CauseShape {
    fn from(cause: Cause) -> Self {
        let (kind, txid, block) = match cause {
            Cause::Transaction(txid) => ("transaction", Some(txid), None),
            Cause::Block(hash) => ("block", None, Some(hash)),
            Cause::Reorg(hash) => ("reorg", None, Some(hash)),
            Cause::Removed(txid) => ("removed", Some(txid), None),
            Cause::Baseline(hash) => ("baseline", None, Some(hash)),
        };
        Self { kind, txid: txid.map(Text), block_hash: block.map(Text) }
    }
}

#[derive(Debug, Serialize)]
struct BalanceChange {
    address: String,
    old_balance: i64,
    new_balance: i64,
    old_balance_btc: Btc,
    new_balance_btc: Btc,
    timestamp: f64,
    delta: i64,
    confirmed_balance: i64,
    unconfirmed_balance: i64,
    cause: CauseShape,
    tip: Option<Block>,
    cursor: String,
}

#[derive(Debug, Serialize)]
struct NewTransactions {
    address: String,
    transactions: Vec<Transaction>,
    count: usize,
    timestamp: f64,
    tip: Option<Block>,
    cursor: String,
}

/// `replaced_by` and `conflicted_by` are absent unless that is its status.
#[derive(Debug, Serialize)]
struct TransactionUpdate {
    address: String,
    txid: Text<Txid>,
    status: &'static str,
    previous_status: &'static str,
    block_height: Option<u32>,
    block_hash: Option<Text<BlockHash>>,
    block_time: Option<f64>,
    confirmations: u32,
    received: u64,
    sent: u64,
    net: i64,
    net_btc: Btc,
    first_seen: f64,
    replaceable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced_by: Option<Text<Txid>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conflicted_by: Option<Text<Txid>>,
    timestamp: f64,
    tip: Option<Block>,
    cursor: String,
}

impl TransactionUpdate {
    fn new(address: String, event: &Event, previous: Phase, summary: &TxSummary, confirmations: u32, cursor: String) -> Self {
        let transaction = Transaction::new(summary, event.tip);
        Self {
            address,
            txid: transaction.txid,
            status: transaction.status,
            previous_status: phase(previous),
            block_height: transaction.block_height,
            block_hash: transaction.block_hash,
            block_time: transaction.block_time,
            confirmations,
            received: transaction.received,
            sent: transaction.sent,
            net: transaction.net,
            net_btc: transaction.net_btc,
            first_seen: transaction.first_seen,
            replaceable: transaction.replaceable,
            replaced_by: transaction.replaced_by,
            conflicted_by: transaction.conflicted_by,
            timestamp: seconds(event.time),
            tip: event.tip.map(Block::from),
            cursor,
        }
    }
}

#[derive(Debug, Serialize)]
struct BlockEvent {
    height: u32,
    hash: Text<BlockHash>,
    time: f64,
    tx_count: u32,
    timestamp: f64,
    tip: Option<Block>,
    cursor: String,
}

#[derive(Debug, Serialize)]
struct ReorgEvent {
    old_tip: Block,
    fork_point: Block,
    depth: u32,
    timestamp: f64,
    tip: Option<Block>,
    cursor: String,
}

/// The name of an event and its data as JSON text: what a subscriber gets and what `GET /events` shows, byte for byte.
pub fn event(event: &Event, cursor: String, network: Network) -> (&'static str, String) {
    let address = |spk: &Script| address::text(spk, network);
    let (timestamp, tip) = (seconds(event.time), event.tip.map(Block::from));
    match &event.kind {
        EventKind::NewTransactions { spk, transactions, .. } => {
            let transactions: Vec<_> = transactions.iter().map(|summary| Transaction::new(summary, event.tip)).collect();
            let count = transactions.len();
            ("new_transactions", to_text(&NewTransactions { address: address(spk), transactions, count, timestamp, tip, cursor }))
        }
        EventKind::BalanceChange { spk, old, new, cause, .. } => {
            ("balance_change", to_text(&balance_change(address(spk), old, new, *cause, timestamp, tip, cursor)))
        }
        EventKind::TransactionUpdate { spk, previous, transaction, confirmations, .. } => {
            let update = TransactionUpdate::new(address(spk), event, *previous, transaction, *confirmations, cursor);
            ("transaction_update", to_text(&update))
        }
        EventKind::Block { block, time, transactions } => {
            let Block { height, hash } = Block::from(*block);
            ("block", to_text(&BlockEvent { height, hash, time: f64::from(*time), tx_count: *transactions, timestamp, tip, cursor }))
        }
        EventKind::Reorg { old_tip, fork_point, depth } => {
            let (old_tip, fork_point) = (Block::from(*old_tip), Block::from(*fork_point));
            ("reorg", to_text(&ReorgEvent { old_tip, fork_point, depth: *depth, timestamp, tip, cursor }))
        }
    }
}

fn balance_change(
    address: String,
    old: &tracker::Balance,
    new: &tracker::Balance,
    cause: Cause,
    timestamp: f64,
    tip: Option<Block>,
    cursor: String,
) -> BalanceChange {
    BalanceChange {
        address,
        old_balance: old.total(),
        new_balance: new.total(),
        old_balance_btc: Btc(old.total()),
        new_balance_btc: Btc(new.total()),
        timestamp,
        delta: new.total().saturating_sub(old.total()),
        confirmed_balance: new.confirmed,
        unconfirmed_balance: new.unconfirmed,
        cause: CauseShape::from(cause),
        tip,
        cursor,
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::ScriptBuf;
    use bitcoin::hashes::Hash;

    use super::*;
    use crate::tracker::{ScriptHash, Spend};

    const ADDRESS: &str = "n43gfthwVPBopwaTMjmpMAT4Nqzf95NKcy";

    fn spk() -> ScriptBuf {
        address::parse(ADDRESS, Network::Testnet).unwrap().spk
    }

    fn txid(byte: u8) -> Txid {
        let mut bytes = [0; 32];
        bytes[0] = byte;
        Txid::from_byte_array(bytes)
    }

    fn block(height: u32) -> BlockId {
        BlockId { height, hash: BlockHash::from_byte_array([0xab; 32]) }
    }

    fn summary(status: Status) -> TxSummary {
        TxSummary {
            txid: txid(1),
            received: 150,
            sent: 100_000_150,
            status,
            block_time: Some(1_600_000_000),
            first_seen: 1_754_336_318_173,
            replaceable: true,
        }
    }

    fn wire(kind: EventKind) -> (&'static str, String) {
        event(&Event { time: 1_754_336_318_173, tip: Some(block(7)), kind }, "5fa3-9".to_owned(), Network::Testnet)
    }

    #[test]
    fn bitcoin_amounts_are_exact_numbers_with_one_to_eight_decimals() {
        for (satoshi, text) in [
            (0, "0.0"),
            (1, "0.00000001"),
            (-1, "-0.00000001"),
            (1_788_761_965, "17.88761965"),
            (100_000_000, "1.0"),
            (10_000_000, "0.1"),
            (-250_000_000, "-2.5"),
            (2_099_999_999_999_999, "20999999.99999999"),
            (i64::MAX, "92233720368.54775807"),
            (i64::MIN, "-92233720368.54775808"),
        ] {
            assert_eq!(to_text(&Btc(satoshi)), text);
        }
    }

    #[test]
    fn times_are_seconds_as_a_float() {
        assert_eq!(to_text(&seconds(1_754_336_318_173)), "1754336318.173");
        assert_eq!(to_text(&seconds(1_754_336_318_000)), "1754336318.0");
    }

    #[test]
    fn a_balance_change_looks_as_specified() {
        let old = tracker::Balance::default();
        let new = tracker::Balance { confirmed: 1_788_761_966, unconfirmed: -1 };
        let (name, json) =
            wire(EventKind::BalanceChange { spk: spk(), script: ScriptHash::of(&spk()), old, new, cause: Cause::Transaction(txid(1)) });
        assert_eq!(name, "balance_change");
        let txid = "0".repeat(62) + "01";
        let hash = "ab".repeat(32);
        assert_eq!(
            json,
            format!(
                r#"{{"address":"{ADDRESS}","old_balance":0,"new_balance":1788761965,"old_balance_btc":0.0,"new_balance_btc":17.88761965,"timestamp":1754336318.173,"delta":1788761965,"confirmed_balance":1788761966,"unconfirmed_balance":-1,"cause":{{"kind":"transaction","txid":"{txid}"}},"tip":{{"height":7,"hash":"{hash}"}},"cursor":"5fa3-9"}}"#
            )
        );
    }

    #[test]
    fn causes_name_what_they_are_about() {
        let text = |cause| to_text(&CauseShape::from(cause));
        let hash = BlockHash::from_byte_array([0xab; 32]);
        let ab = "ab".repeat(32);
        assert_eq!(text(Cause::Block(hash)), format!(r#"{{"kind":"block","block_hash":"{ab}"}}"#));
        assert_eq!(text(Cause::Reorg(hash)), format!(r#"{{"kind":"reorg","block_hash":"{ab}"}}"#));
        assert_eq!(text(Cause::Baseline(hash)), format!(r#"{{"kind":"baseline","block_hash":"{ab}"}}"#));
        assert!(text(Cause::Removed(txid(1))).starts_with(r#"{"kind":"removed","txid":""#));
    }

    #[test]
    fn new_transactions_look_as_specified() {
        let status = Status::Confirmed { block: block(6), position: 1 };
        let kind = EventKind::NewTransactions { spk: spk(), script: ScriptHash::of(&spk()), transactions: vec![summary(status)] };
        let (name, json) = wire(kind);
        assert_eq!(name, "new_transactions");
        let (txid, hash) = ("0".repeat(62) + "01", "ab".repeat(32));
        assert_eq!(
            json,
            format!(
                r#"{{"address":"{ADDRESS}","transactions":[{{"txid":"{txid}","received":150,"sent":100000150,"net":-100000000,"net_btc":-1.0,"status":"confirmed","confirmations":2,"block_height":6,"block_hash":"{hash}","block_time":1600000000.0,"first_seen":1754336318.173,"replaceable":false,"replaced_by":null,"conflicted_by":null}}],"count":1,"timestamp":1754336318.173,"tip":{{"height":7,"hash":"{hash}"}},"cursor":"5fa3-9"}}"#
            )
        );
    }

    #[test]
    fn an_update_names_both_statuses_and_its_successor() {
        let update = |status, confirmations| {
            wire(EventKind::TransactionUpdate {
                spk: spk(),
                script: ScriptHash::of(&spk()),
                previous: Phase::Mempool,
                transaction: summary(status),
                confirmations,
            })
        };
        let (name, json) = update(Status::Replaced { by: txid(2) }, 0);
        assert_eq!(name, "transaction_update");
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&value["status"], &value["previous_status"]), (&"replaced".into(), &"mempool".into()));
        assert_eq!(value["replaced_by"], "0".repeat(62) + "02");
        assert_eq!((&value["block_height"], &value["block_time"]), (&serde_json::Value::Null, &serde_json::Value::Null));
        assert!(value.get("conflicted_by").is_none());

        let value: serde_json::Value = serde_json::from_str(&update(Status::Confirmed { block: block(2), position: 1 }, 6).1).unwrap();
        assert_eq!((&value["confirmations"], &value["block_height"]), (&6.into(), &2.into()));
        assert!(value.get("replaced_by").is_none());
        for (status, word) in
            [(Status::Evicted, "evicted"), (Status::Mempool, "mempool"), (Status::Conflicted { by: txid(2) }, "conflicted")]
        {
            let value: serde_json::Value = serde_json::from_str(&update(status, 0).1).unwrap();
            assert_eq!((&value["status"], &value["confirmations"]), (&word.into(), &0.into()));
        }
    }

    #[test]
    fn blocks_and_reorgs_name_their_ends() {
        let hash = "ab".repeat(32);
        let (name, json) = wire(EventKind::Block { block: block(7), time: 1_600_000_000, transactions: 3 });
        let tail = format!(r#""timestamp":1754336318.173,"tip":{{"height":7,"hash":"{hash}"}},"cursor":"5fa3-9"}}"#);
        assert_eq!(name, "block");
        assert_eq!(json, format!(r#"{{"height":7,"hash":"{hash}","time":1600000000.0,"tx_count":3,{tail}"#));
        let (name, json) = wire(EventKind::Reorg { old_tip: block(9), fork_point: block(7), depth: 2 });
        assert_eq!(name, "reorg");
        assert_eq!(
            json,
            format!(r#"{{"old_tip":{{"height":9,"hash":"{hash}"}},"fork_point":{{"height":7,"hash":"{hash}"}},"depth":2,{tail}"#)
        );
    }

    fn output(height: Option<u32>, coinbase: bool, spent: Option<Spend>) -> OutputRow {
        OutputRow { script: ScriptHash([0; 32]), value: 5_000_000_000, height, coinbase, spent }
    }

    #[test]
    fn a_coinbase_is_mature_when_the_next_block_may_spend_it() {
        let tip = Some(block(199));
        assert!(is_mature(&output(Some(100), true, None), tip), "100 confirmations");
        assert!(!is_mature(&output(Some(101), true, None), tip), "99 confirmations");
        assert!(is_mature(&output(Some(199), false, None), tip) && is_mature(&output(None, false, None), tip));
    }

    #[test]
    fn a_utxo_looks_as_specified_and_names_its_spender_only_if_there_is_one() {
        let outpoint = OutPoint { txid: txid(1), vout: 3 };
        let shape = |spent| to_text(&Utxo::new(ADDRESS, &outpoint, &output(Some(6), false, spent), Some(block(7))));
        let txid_text = "0".repeat(62) + "01";
        let whole = format!(
            r#"{{"tx_hash":"{txid_text}","output_index":3,"value":5000000000,"value_btc":50.0,"address":"{ADDRESS}","confirmed":true,"block_height":6,"confirmations":2,"coinbase":false,"mature":true"#
        );
        assert_eq!(shape(None), format!("{whole}}}"));
        let spender = "0".repeat(62) + "02";
        assert_eq!(shape(Some(Spend { txid: txid(2), height: None })), format!(r#"{whole},"spent_by":"{spender}"}}"#));
    }

    #[test]
    fn a_balance_looks_as_specified() {
        let row = WatchRow {
            spk: spk(),
            label: String::new(),
            added: 0,
            depths: vec![1],
            coverage: Coverage { from_height: 5, utxos_complete: true, pending: false },
            balance: tracker::Balance { confirmed: 5_000_000_000, unconfirmed: -100 },
            utxo_count: 1,
            tx_count: 2,
            updated: 1_754_336_318_173,
        };
        let utxos = [(OutPoint { txid: txid(1), vout: 0 }, output(Some(6), true, None))];
        let hash = "ab".repeat(32);
        assert_eq!(
            to_text(&Balance::new(ADDRESS, &row, &utxos, Some(block(7)), "5fa3-9".to_owned())),
            format!(
                r#"{{"address":"{ADDRESS}","confirmed_balance":5000000000,"confirmed_balance_btc":50.0,"unconfirmed_balance":-100,"unconfirmed_balance_btc":-0.000001,"utxo_count":1,"last_updated":1754336318.173,"balance":4999999900,"balance_btc":49.999999,"immature":5000000000,"coverage":{{"from_height":5,"complete":true,"utxos_complete":true,"pending":false}},"tip":{{"height":7,"hash":"{hash}"}},"cursor":"5fa3-9"}}"#
            )
        );
    }

    #[test]
    fn coverage_is_complete_only_when_the_balance_is_whole_and_nothing_is_pending() {
        let complete =
            |from_height, utxos_complete, pending| CoverageShape::from(&Coverage { from_height, utxos_complete, pending }).complete;
        assert!(complete(5, true, false) && complete(0, false, false));
        assert!(!complete(5, false, false) && !complete(5, true, true) && !complete(5, false, true));
    }

    #[test]
    fn confirmations_count_from_the_tip_and_never_below_zero() {
        assert_eq!(confirmations(Some(block(7)), Some(7)), 1);
        assert_eq!(confirmations(Some(block(7)), Some(8)), 0);
        assert_eq!(confirmations(Some(block(7)), None), 0);
        assert_eq!(confirmations(None, Some(7)), 0);
    }
}
