//! Golden tests of the wire shapes.

use bitcoin::hashes::Hash;
use bitcoin::{Network, ScriptBuf};
use proptest::prelude::*;

use super::events::cause_shape;
use super::*;
use crate::tracker::{self, Cause, Event, EventKind};
use crate::tracker::{ScriptHash, Spend, Subject};
use crate::wire::address;

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
    BlockId {
        height,
        hash: BlockHash::from_byte_array([0xab; 32]),
    }
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
    event(
        &Event {
            time: 1_754_336_318_173,
            tip: Some(block(7)),
            kind,
        },
        "5fa3-9".to_owned(),
        Network::Testnet,
    )
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

proptest! {
    #[test]
    fn bitcoin_amounts_have_the_digits_of_the_satoshi(satoshi: i64, shift in 0..63) {
        let satoshi = satoshi >> shift;
        let text = to_text(&Btc(satoshi));
        let (whole, decimals) = text.split_once('.').expect("a point");
        prop_assert!(decimals.len() <= 8 && (decimals == "0" || !decimals.ends_with('0')));
        let digits = format!("{whole}{decimals:0<8}");
        prop_assert_eq!(digits.parse::<i64>(), Ok(satoshi), "{}", text);
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
    let new = tracker::Balance {
        confirmed: 1_788_761_966,
        unconfirmed: -1,
    };
    let (name, json) = wire(EventKind::BalanceChange {
        subject: Subject::script(spk()),
        old,
        new,
        cause: Cause::Transaction(txid(1)),
    });
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
    let text = |cause| to_text(&cause_shape(cause));
    let hash = BlockHash::from_byte_array([0xab; 32]);
    let ab = "ab".repeat(32);
    assert_eq!(
        text(Cause::Block(hash)),
        format!(r#"{{"kind":"block","block_hash":"{ab}"}}"#)
    );
    assert_eq!(
        text(Cause::Reorg(hash)),
        format!(r#"{{"kind":"reorg","block_hash":"{ab}"}}"#)
    );
    assert_eq!(
        text(Cause::Baseline(hash)),
        format!(r#"{{"kind":"baseline","block_hash":"{ab}"}}"#)
    );
    assert!(text(Cause::Removed(txid(1))).starts_with(r#"{"kind":"removed","txid":""#));
}

#[test]
fn new_transactions_look_as_specified() {
    let status = Status::Confirmed {
        block: block(6),
        position: 1,
    };
    let kind = EventKind::NewTransactions {
        subject: Subject::script(spk()),
        transactions: vec![summary(status)],
    };
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
            subject: Subject::script(spk()),
            previous: Phase::Mempool,
            transaction: summary(status),
            confirmations,
        })
    };
    let (name, json) = update(Status::Replaced { by: txid(2) }, 0);
    assert_eq!(name, "transaction_update");
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&value["status"], &value["previous_status"]),
        (&"replaced".into(), &"mempool".into())
    );
    assert_eq!(value["replaced_by"], "0".repeat(62) + "02");
    assert_eq!(
        (&value["block_height"], &value["block_time"]),
        (&serde_json::Value::Null, &serde_json::Value::Null)
    );
    assert!(value.get("conflicted_by").is_none());

    let value: serde_json::Value = serde_json::from_str(
        &update(
            Status::Confirmed {
                block: block(2),
                position: 1,
            },
            6,
        )
        .1,
    )
    .unwrap();
    assert_eq!(
        (&value["confirmations"], &value["block_height"]),
        (&6.into(), &2.into())
    );
    assert!(value.get("replaced_by").is_none());
    for (status, word) in [
        (Status::Evicted, "evicted"),
        (Status::Mempool, "mempool"),
        (Status::Conflicted { by: txid(2) }, "conflicted"),
    ] {
        let value: serde_json::Value = serde_json::from_str(&update(status, 0).1).unwrap();
        assert_eq!(
            (&value["status"], &value["confirmations"]),
            (&word.into(), &0.into())
        );
    }
}

#[test]
fn blocks_and_reorgs_name_their_ends() {
    let hash = "ab".repeat(32);
    let (name, json) = wire(EventKind::Block {
        block: block(7),
        time: 1_600_000_000,
        transactions: 3,
    });
    let tail = format!(
        r#""timestamp":1754336318.173,"tip":{{"height":7,"hash":"{hash}"}},"cursor":"5fa3-9"}}"#
    );
    assert_eq!(name, "block");
    assert_eq!(
        json,
        format!(r#"{{"height":7,"hash":"{hash}","time":1600000000.0,"tx_count":3,{tail}"#)
    );
    let (name, json) = wire(EventKind::Reorg {
        old_tip: block(9),
        fork_point: block(7),
        depth: 2,
    });
    assert_eq!(name, "reorg");
    assert_eq!(
        json,
        format!(
            r#"{{"old_tip":{{"height":9,"hash":"{hash}"}},"fork_point":{{"height":7,"hash":"{hash}"}},"depth":2,{tail}"#
        )
    );
}

#[test]
fn the_end_of_a_scan_and_of_watching_look_as_specified() {
    let hash = "ab".repeat(32);
    let tail = format!(
        r#""timestamp":1754336318.173,"tip":{{"height":7,"hash":"{hash}"}},"cursor":"5fa3-9"}}"#
    );
    let scan = tracker::ScanId(0xab);
    let (name, json) = wire(EventKind::ScanComplete {
        subject: Subject::script(spk()),
        scan,
        from: 2,
        to: 6,
        transactions: 31,
    });
    assert_eq!(name, "scan_complete");
    let middle = r#""scan_id":"00000000000000ab","status":"complete","from_height":2,"to_height":6,"transaction_count":31"#;
    assert_eq!(json, format!(r#"{{"address":"{ADDRESS}",{middle},{tail}"#));
    let (_, json) = wire(EventKind::ScanComplete {
        subject: Subject::script(spk()),
        scan,
        from: 7,
        to: 6,
        transactions: 31,
    });
    assert!(
        json.contains(r#""from_height":7,"to_height":null,"transaction_count":31"#),
        "of pruned blocks: {json}"
    );
    let (name, json) = wire(EventKind::Unwatched {
        subject: Subject::script(spk()),
    });
    assert_eq!(
        (name, json),
        ("unwatched", format!(r#"{{"address":"{ADDRESS}",{tail}"#))
    );
    let (name, json) = wire(EventKind::LabelChange {
        subject: Subject::script(spk()),
        old: String::new(),
        new: "a \"till\"".to_owned(),
    });
    assert_eq!(name, "label_change");
    let middle = r#""label":"a \"till\"","previous_label":"""#;
    assert_eq!(json, format!(r#"{{"address":"{ADDRESS}",{middle},{tail}"#));
}

fn output(height: Option<u32>, coinbase: bool, spent: Option<Spend>) -> OutputRow {
    OutputRow {
        script: ScriptHash([0; 32]),
        value: 5_000_000_000,
        height,
        coinbase,
        spent,
        earlier: Vec::new(),
    }
}

#[test]
fn a_coinbase_is_mature_when_the_next_block_may_spend_it() {
    let tip = Some(block(199));
    assert!(
        is_mature(&output(Some(100), true, None), tip),
        "100 confirmations"
    );
    assert!(
        !is_mature(&output(Some(101), true, None), tip),
        "99 confirmations"
    );
    assert!(
        is_mature(&output(Some(199), false, None), tip)
            && is_mature(&output(None, false, None), tip)
    );
}

#[test]
fn a_utxo_looks_as_specified_and_names_its_spender_only_if_there_is_one() {
    let outpoint = OutPoint {
        txid: txid(1),
        vout: 3,
    };
    let shape = |spent| {
        to_text(&utxo_shape(
            ADDRESS,
            None,
            &outpoint,
            &output(Some(6), false, spent),
            Some(block(7)),
        ))
    };
    let txid_text = "0".repeat(62) + "01";
    let whole = format!(
        r#"{{"tx_hash":"{txid_text}","output_index":3,"value":5000000000,"value_btc":50.0,"address":"{ADDRESS}","confirmed":true,"block_height":6,"confirmations":2,"coinbase":false,"mature":true"#
    );
    assert_eq!(shape(None), format!("{whole}}}"));
    let spender = "0".repeat(62) + "02";
    assert_eq!(
        shape(Some(Spend {
            txid: txid(2),
            height: None
        })),
        format!(r#"{whole},"spent_by":"{spender}"}}"#)
    );
}

fn watch_row() -> WatchRow {
    WatchRow {
        spk: spk(),
        listed: true,
        derivations: Vec::new(),
        label: String::new(),
        added: 0,
        depths: vec![1],
        coverage: Coverage {
            from_height: 5,
            utxos_complete: true,
            pending: false,
            ..Coverage::default()
        },
        balance: tracker::Balance {
            confirmed: 5_000_000_000,
            unconfirmed: -100,
        },
        utxo_count: 1,
        outputs: 1,
        tx_count: 2,
        updated: 1_754_336_318_173,
    }
}

#[test]
fn a_balance_looks_as_specified() {
    let row = watch_row();
    let hash = "ab".repeat(32);
    assert_eq!(
        to_text(&Balance::new(
            ADDRESS,
            &row,
            BalanceState {
                coverage: CoverageShape::new(&row.coverage, false),
                immature: 5_000_000_000,
                tip: Some(block(7)),
                cursor: "5fa3-9".to_owned(),
            }
        )),
        format!(
            r#"{{"address":"{ADDRESS}","label":"","confirmed_balance":5000000000,"confirmed_balance_btc":50.0,"unconfirmed_balance":-100,"unconfirmed_balance_btc":-0.000001,"utxo_count":1,"last_updated":1754336318.173,"balance":4999999900,"balance_btc":49.999999,"immature":5000000000,"coverage":{{"from_height":5,"complete":true,"utxos_complete":true,"pending":false}},"tip":{{"height":7,"hash":"{hash}"}},"cursor":"5fa3-9"}}"#
        )
    );
}

#[test]
fn coverage_is_complete_only_when_the_balance_is_whole_and_nothing_is_pending() {
    let complete = |from_height, utxos_complete, pending| {
        let coverage = Coverage {
            from_height,
            utxos_complete,
            pending,
            ..Coverage::default()
        };
        CoverageShape::new(&coverage, false).complete
    };
    assert!(complete(5, true, false) && complete(0, false, false));
    assert!(!complete(5, false, false) && !complete(5, true, true) && !complete(5, false, true));
    let coverage = Coverage {
        from_height: 5,
        utxos_complete: true,
        pending: false,
        ..Coverage::default()
    };
    let scanned = CoverageShape::new(&coverage, true);
    assert!(
        scanned.pending && !scanned.complete && scanned.utxos_complete,
        "a scan is open"
    );
}

#[test]
fn confirmations_count_from_the_tip_and_never_below_zero() {
    assert_eq!(confirmations(Some(block(7)), Some(7)), 1);
    assert_eq!(confirmations(Some(block(7)), Some(8)), 0);
    assert_eq!(confirmations(Some(block(7)), None), 0);
    assert_eq!(confirmations(None, Some(7)), 0);
}

#[test]
fn an_address_that_the_node_cannot_tell_about_says_what_to_do() {
    let place = tracker::Derivation {
        descriptor: tracker::DescriptorId([7; 32]),
        keychain: tracker::Keychain::External,
        index: 3,
    };
    let note = |left_out, listed| {
        let row = WatchRow {
            listed,
            derivations: vec![place],
            coverage: Coverage {
                pending: true,
                left_out,
                ..Coverage::default()
            },
            ..watch_row()
        };
        CoverageShape::of_address(&row, false).note
    };
    assert_eq!(note(false, true), None);
    assert!(note(true, true).is_some_and(|it| it.ends_with("add it with \"history\": \"none\"")));
    assert!(note(true, false).is_some_and(|it| it.contains("of descriptor 0707")));
}

/// What is said of the past of a wallet.
#[test]
fn a_wallet_without_one_of_its_addresses_is_not_complete() {
    let descriptor = tracker::DescriptorId([7; 32]);
    let wallet = tracker::WalletRow {
        text: String::new(),
        label: String::new(),
        added: 0,
        baseline: tracker::Baseline::IfMissing,
    };
    let mut row = tracker::DescriptorRow {
        keychains: vec![tracker::KeychainRow::default()],
        is_ranged: true,
        gap_limit: 20,
        depths: vec![1],
        // Its history was scanned from the first block on.
        from_height: 0,
        awaited: 0,
        held: None,
        balance: tracker::Balance::default(),
        utxo_count: 0,
        tx_count: 0,
        updated: 0,
        left_out: Vec::new(),
    };
    let said = |row: &tracker::DescriptorRow| CoverageShape::of_descriptor(row, &wallet, false);
    assert!(said(&row).complete && said(&row).note.is_none());
    row.left_out.push(tracker::Derivation {
        descriptor,
        keychain: tracker::Keychain::External,
        index: 3,
    });
    let without = said(&row);
    assert!(!without.complete && !without.utxos_complete && !without.pending);
    assert!(without.note.is_some_and(|note| note.contains("external/3")));
}
