//! Events and balances as lines for people: time, amount, what happened, transaction. Pure.
//!
//! An event that is not known here (of a newer daemon) is told by its name and its plain fields.

use std::ops::RangeInclusive;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

/// Satoshi in a bitcoin.
const COIN: u64 = 100_000_000;
/// Of the id of a descriptor: enough to tell a few apart.
const SHORT: usize = 12;
/// That can be asked for, but for the first, which the confirmation tells.
const DEPTHS: RangeInclusive<u64> = 2..=144;
/// Said otherwise, or of no use to people.
const NOT_TOLD: &[&str] = &[
    "address",
    "descriptor_id",
    "timestamp",
    "tip",
    "cursor",
    WALLET_LABEL,
    IS_CORRECTED,
];
/// What was told before adds these to events: the label of their wallet, and whether a transaction
/// has other amounts than it had.
pub const WALLET_LABEL: &str = "known_wallet_label";
pub const IS_CORRECTED: &str = "is_corrected";

/// Who answers, and what it follows.
pub fn daemon(url: &str, status: &Value) -> String {
    let (version, network) = (text(status, "version"), text(status, "network"));
    let height = &status["tip"]["height"];
    let mut said = format!("satwatch {version} at {url} follows {network} at height {height}");
    if status["service_available"] == false {
        said += "; bitcoind does not answer, so nothing comes before it does";
    }
    if status["is_running"] == false {
        said += "; monitoring is stopped, so nothing comes before POST /start";
    }
    said
}

/// A balance, and whether it is all.
pub fn balance(balance: &Value) -> String {
    let amount = |field: &str| balance[field].as_i64().unwrap_or_default();
    let coverage = &balance["coverage"];
    let known = match (coverage["complete"] == true, coverage["pending"] == true) {
        (true, _) => "complete".to_owned(),
        (_, true) => "not complete yet: what it had before is being looked for".to_owned(),
        _ => match coverage["note"].as_str() {
            Some(note) => format!("not complete: {note}"),
            None => "not complete: what it had before it was watched was not asked for".to_owned(),
        },
    };
    let unconfirmed = match amount("unconfirmed_balance") {
        0 => String::new(),
        part => format!(", {} of it unconfirmed", signed(part)),
    };
    format!(
        "{} has {} BTC{unconfirmed} ({known})",
        subject(balance),
        btc(amount("balance"))
    )
}

/// `names_subject`: each line says whom it is about.
pub fn event(name: &str, data: &Value, names_subject: bool) -> Vec<String> {
    let lines = match name {
        "new_transactions" => transactions(data),
        "balance_change" => vec![balance_change(data)],
        "transaction_update" => vec![update(data)],
        "scan_complete" => vec![vec![scan_complete(data)]],
        "unwatched" => vec![vec![unwatched(data)]],
        "label_change" => vec![vec![label_change(data)]],
        _ => vec![vec![unknown(name, data)]],
    };
    let about = names_subject.then(|| subject(data));
    let line = |parts: Vec<String>| {
        let parts = [time(data)].into_iter().chain(parts).chain(about.clone());
        let parts: Vec<String> = parts.filter(|part| !part.is_empty()).collect();
        parts.join("  ")
    };
    lines.into_iter().map(line).collect()
}

/// Text of others without what a terminal would obey, and without what makes it show the rest in
/// another order.
pub fn plain(text: &str) -> String {
    let is_order = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().filter(|c| !is_order(*c)).map(shown).collect()
}

fn transactions(data: &Value) -> Vec<Vec<String>> {
    let transactions = data["transactions"].as_array().into_iter().flatten();
    let parts = transactions.map(|it| vec![net(it), state(it), text(it, "txid").to_owned()]);
    parts.collect()
}

fn update(data: &Value) -> Vec<String> {
    let before = text(data, "previous_status");
    let words = match (text(data, "status"), before) {
        ("mempool", "mempool") => "corrected, in the mempool".to_owned(),
        ("mempool", _) => "back in the mempool".to_owned(),
        ("confirmed", "confirmed") if is_corrected(data) => format!("corrected, {}", state(data)),
        _ => state(data),
    };
    vec![net(data), words, text(data, "txid").to_owned()]
}

/// Of a transaction that stays confirmed. What is no depth that is told is a correction also of
/// one that was not told before, as history scans find them.
fn is_corrected(data: &Value) -> bool {
    let confirmations = data["confirmations"].as_u64();
    let is_depth = confirmations.is_none_or(|count| DEPTHS.contains(&count));
    data[IS_CORRECTED] == true || !is_depth
}

fn unwatched(data: &Value) -> String {
    let words = match data["owners"].is_null() {
        true => "is watched no more",
        false => "is watched no more by itself, but for a wallet, so it goes on",
    };
    words.to_owned()
}

fn label_change(data: &Value) -> String {
    match (text(data, "previous_label"), text(data, "label")) {
        ("", now) => format!("is called \"{now}\" now"),
        (before, "") => format!("is not called \"{before}\" any more"),
        (before, now) => format!("is called \"{now}\" now, before that \"{before}\""),
    }
}

fn balance_change(data: &Value) -> Vec<String> {
    let amount = |field: &str| data[field].as_i64().unwrap_or_default();
    let why = match text(&data["cause"], "kind") {
        "baseline" => ", what it had before was found",
        "reorg" => ", blocks were replaced",
        _ => "",
    };
    let unconfirmed = match amount("unconfirmed_balance") {
        0 => String::new(),
        part => format!(", {} of it unconfirmed", signed(part)),
    };
    let words = format!(
        "balance is {} BTC{unconfirmed}{why}",
        btc(amount("new_balance"))
    );
    vec![amount_column(amount("delta")), words]
}

/// What has become of a transaction.
fn state(transaction: &Value) -> String {
    let by = |field: &str| text(transaction, field).to_owned();
    match text(transaction, "status") {
        "mempool" if transaction["replaceable"] == true => "in the mempool, replaceable".to_owned(),
        "mempool" => "in the mempool".to_owned(),
        "confirmed" => match transaction["confirmations"].as_u64().unwrap_or_default() {
            0 | 1 => format!("confirmed in block {}", transaction["block_height"]),
            count => format!("{count} confirmations"),
        },
        "replaced" => format!("replaced by {}, gone:", by("replaced_by")),
        "conflicted" => format!("its coins were spent by {}, gone:", by("conflicted_by")),
        "evicted" => "dropped by the node, not confirmed:".to_owned(),
        other => other.to_owned(),
    }
}

fn scan_complete(data: &Value) -> String {
    let to = match &data["to_height"] {
        // Nothing of what was asked for is known.
        Value::Null => "on".to_owned(),
        height => format!("to {height}"),
    };
    format!(
        "history from block {} {to} is known: {} transactions",
        data["from_height"], data["transaction_count"]
    )
}

fn unknown(name: &str, data: &Value) -> String {
    let fields = data.as_object().into_iter().flatten();
    let fields = fields.filter(|(name, value)| {
        !NOT_TOLD.contains(&name.as_str()) && !value.is_object() && !value.is_array()
    });
    let told: Vec<String> = fields
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    let (name, told) = (name.replace('_', " "), told.join(", "));
    match told.is_empty() {
        true => name,
        false => format!("{name}: {told}"),
    }
}

/// Whom a balance or an event is about.
fn subject(data: &Value) -> String {
    match (data["address"].as_str(), text(data, WALLET_LABEL)) {
        (Some(address), _) => address.to_owned(),
        (None, label) if !label.is_empty() => format!("wallet \"{label}\""),
        (None, _) => {
            let id: String = text(data, "descriptor_id").chars().take(SHORT).collect();
            format!("wallet {id}…")
        }
    }
}

fn net(transaction: &Value) -> String {
    amount_column(transaction["net"].as_i64().unwrap_or_default())
}

/// Amounts stand below each other up to 999 BTC.
fn amount_column(amount: i64) -> String {
    format!("{:>13} BTC", signed(amount))
}

fn signed(amount: i64) -> String {
    let plus = if amount > 0 { "+" } else { "" };
    format!("{plus}{}", btc(amount))
}

fn btc(amount: i64) -> String {
    let (sign, magnitude) = (if amount < 0 { "-" } else { "" }, amount.unsigned_abs());
    format!("{sign}{}.{:08}", magnitude / COIN, magnitude % COIN)
}

/// When the daemon learned of it, in UTC: `30 Nov 2026 05:27:35 UTC`.
fn time(data: &Value) -> String {
    // The format ends with the year 9999.
    let seconds = data["timestamp"]
        .as_f64()
        .filter(|it| (0.0..253_402_300_800.0).contains(it));
    let date = seconds.map(|it| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs_f64(it)));
    let date = date.unwrap_or_default();
    let (_, date) = date.split_once(", ").unwrap_or_default();
    date.replace("GMT", "UTC")
}

fn text<'a>(data: &'a Value, field: &str) -> &'a str {
    data[field].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const TIME: f64 = 1_796_016_455.25;

    fn line(name: &str, data: &Value) -> String {
        let lines = event(name, data, false);
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.join("")
    }

    #[test]
    fn a_payment_is_told_from_its_first_sight_to_its_depth() {
        let seen = json!({ "timestamp": TIME, "transactions": [
            { "txid": "ab", "net": 50_000_000, "status": "mempool", "replaceable": true },
            { "txid": "cd", "net": -1, "status": "confirmed", "confirmations": 1, "block_height": 7 },
        ]});
        assert_eq!(
            event("new_transactions", &seen, false),
            [
                "30 Nov 2026 05:27:35 UTC    +0.50000000 BTC  in the mempool, replaceable  ab",
                "30 Nov 2026 05:27:35 UTC    -0.00000001 BTC  confirmed in block 7  cd",
            ]
        );
        for (status, previous, words) in [
            ("mempool", "confirmed", "back in the mempool"),
            ("mempool", "mempool", "corrected, in the mempool"),
            ("confirmed", "confirmed", "6 confirmations"),
            ("replaced", "mempool", "replaced by ef, gone:"),
            ("conflicted", "mempool", "its coins were spent by gh, gone:"),
            ("evicted", "mempool", "dropped by the node, not confirmed:"),
            ("burnt", "mempool", "burnt"),
        ] {
            let update = json!({
                "timestamp": TIME, "txid": "ab", "net": 5, "status": status, "previous_status": previous,
                "confirmations": 6, "replaced_by": "ef", "conflicted_by": "gh",
            });
            let expected = format!("30 Nov 2026 05:27:35 UTC    +0.00000005 BTC  {words}  ab");
            assert_eq!(line("transaction_update", &update), expected);
        }
    }

    #[test]
    fn a_balance_says_whether_it_is_all() {
        let change = json!({
            "timestamp": TIME, "delta": 150_000_000, "new_balance": 250_000_000_i64,
            "unconfirmed_balance": 150_000_000, "cause": { "kind": "transaction" },
        });
        assert_eq!(
            line("balance_change", &change),
            "30 Nov 2026 05:27:35 UTC    +1.50000000 BTC  balance is 2.50000000 BTC, +1.50000000 of it unconfirmed"
        );
        for (coverage, words) in [
            (json!({ "complete": true }), "complete"),
            (
                json!({ "complete": false, "pending": true }),
                "not complete yet: what it had before is being looked for",
            ),
            (
                json!({ "complete": false, "pending": false }),
                "not complete: what it had before it was watched was not asked for",
            ),
            (
                json!({ "complete": false, "note": "too much" }),
                "not complete: too much",
            ),
        ] {
            let shape = json!({ "address": "a", "balance": 1, "unconfirmed_balance": 0, "coverage": coverage });
            assert_eq!(balance(&shape), format!("a has 0.00000001 BTC ({words})"));
        }
    }

    #[test]
    fn lines_say_whom_they_are_about_and_what_is_not_known_is_told_by_its_fields() {
        let new = json!({
            "timestamp": TIME, "descriptor_id": "0123456789abcdef", "cups": 2, "milk": null,
            "tip": { "height": 1 }, "cursor": "a-1",
        });
        assert_eq!(
            event("tea_time", &new, true),
            ["30 Nov 2026 05:27:35 UTC  tea time: cups 2, milk null  wallet 0123456789ab…"]
        );
        let mut known = new;
        known[WALLET_LABEL] = json!("till");
        assert_eq!(
            event("tea_time", &known, true),
            ["30 Nov 2026 05:27:35 UTC  tea time: cups 2, milk null  wallet \"till\""]
        );
        assert_eq!(line("tea_time", &json!({})), "tea time");
        assert_eq!(
            event("unwatched", &json!({ "address": "a" }), true),
            ["is watched no more  a"]
        );
        let owned = json!({ "address": "a", "owners": [{ "descriptor_id": "d0" }] });
        let words = "is watched no more by itself, but for a wallet, so it goes on  a";
        assert_eq!(event("unwatched", &owned, true), [words]);
    }

    #[test]
    fn a_label_that_changes_is_told_with_the_one_before() {
        for (before, now, words) in [
            ("", "rent", "is called \"rent\" now"),
            ("rent", "", "is not called \"rent\" any more"),
            (
                "rent",
                "till",
                "is called \"till\" now, before that \"rent\"",
            ),
        ] {
            let change = json!({
                "descriptor_id": "0123456789abcdef", "label": now, "previous_label": before,
            });
            assert_eq!(line("label_change", &change), words);
        }
    }

    #[test]
    fn a_confirmed_transaction_with_other_amounts_is_told_as_corrected() {
        let mut update = json!({
            "txid": "ab", "net": 5, "status": "confirmed", "previous_status": "confirmed",
            "confirmations": 6, "block_height": 7,
        });
        let words = |update: &Value| line("transaction_update", update);
        assert!(words(&update).contains("BTC  6 confirmations"));
        update[IS_CORRECTED] = json!(true);
        assert!(words(&update).contains("BTC  corrected, 6 confirmations"));
        update[IS_CORRECTED] = json!(false);
        update["confirmations"] = json!(1);
        assert!(words(&update).contains("BTC  corrected, confirmed in block 7"));
        update["confirmations"] = json!(1000);
        assert!(words(&update).contains("BTC  corrected, 1000 confirmations"));
    }

    #[test]
    fn text_of_others_stands_in_its_own_order() {
        let text = "a\u{202e}b\u{2066}c\u{2069}\u{202a}d\u{1b}e";
        assert_eq!(plain(text), "abcd\u{fffd}e");
    }

    #[test]
    fn amounts_are_exact() {
        for (amount, text) in [
            (0, "0.00000000"),
            (-1, "-0.00000001"),
            (i64::MAX, "+92233720368.54775807"),
            (i64::MIN, "-92233720368.54775808"),
        ] {
            assert_eq!(signed(amount), text);
        }
    }

    fn arbitrary() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,5}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 5, |inner| {
            let names = prop_oneof![
                Just("transactions"),
                Just("timestamp"),
                Just("net"),
                Just("status"),
                Just("cause"),
                Just("descriptor_id"),
                Just("coverage"),
                Just("new_balance"),
            ];
            let entry = (names.prop_map(str::to_owned), inner.clone());
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{1,3}", entry, 0..5)
                    .prop_map(|all| Value::Object(all.into_values().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_data_are_too_strange(data in arbitrary()) {
            for name in [
                "new_transactions", "balance_change", "transaction_update", "scan_complete", "unwatched",
                "label_change", "x",
            ] {
                let lines = event(name, &data, true);
                prop_assert!(lines.iter().all(|line| !plain(line).contains(char::is_control)));
            }
            balance(&data);
        }
    }
}
