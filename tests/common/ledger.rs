//! The daemon's event log, read whole over REST and held against its laws: numbers without a hole,
//! balances that fold, every transaction announced once, statuses that follow the table in
//! `satwatch::tracker::event`. What a history scan found is in the history of its address without a
//! word about it.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::Daemon;
use super::status_changes::is_legal;

/// Every event from the first on, as `{cursor, event, data}`.
pub fn read(daemon: &Daemon) -> Vec<Value> {
    let mut events: Vec<Value> = Vec::new();
    loop {
        let after = events.last().map_or(String::new(), |event| {
            format!(
                "&after={}",
                event["cursor"].as_str().expect("a cursor is text")
            )
        });
        let page = daemon.get(&format!("/events?limit=1000{after}"));
        assert_eq!(page.status, 200, "{}", page.text);
        let page = page.json["events"]
            .as_array()
            .cloned()
            .expect("a list of events");
        if page.is_empty() {
            return events;
        }
        events.extend(page);
    }
}

/// Reads the log, checks its laws and that its last words on every address are the daemon's present
/// answers. Call it when nothing is on its way. Returns the events.
pub fn check(daemon: &Daemon) -> Vec<Value> {
    let events = read(daemon);
    let mut balances: HashMap<String, Value> = HashMap::new();
    let mut statuses: HashMap<(String, String), String> = HashMap::new();
    let mut amounts: HashMap<(String, String), [Value; 2]> = HashMap::new();
    let scanned: HashSet<String> = events
        .iter()
        .filter(|event| event["event"] == "scan_complete")
        .map(|event| word(&event["data"]["address"]))
        .collect();
    let mut last = 0;
    for event in &events {
        last += 1;
        assert_eq!(
            number(&event["cursor"]),
            last,
            "numbers rise by one: {event}"
        );
        let data = &event["data"];
        let address = word(&data["address"]);
        match event["event"].as_str().expect("an event has a name") {
            "new_transactions" => {
                for transaction in data["transactions"].as_array().expect("a list") {
                    let key = (address.clone(), word(&transaction["txid"]));
                    amounts.insert(key.clone(), moved(transaction));
                    let before = statuses.insert(key, word(&transaction["status"]));
                    assert_eq!(before, None, "announced once: {event}");
                }
            }
            "transaction_update" => {
                let (previous, status) = (word(&data["previous_status"]), word(&data["status"]));
                let found = previous == "confirmed" && scanned.contains(&address);
                let key = (address, word(&data["txid"]));
                let corrected = amounts.insert(key.clone(), moved(data)) != Some(moved(data));
                let before = statuses
                    .insert(key, status.clone())
                    .or(found.then(|| previous.clone()));
                assert_eq!(
                    before,
                    Some(previous.clone()),
                    "starts where the one before ended: {event}"
                );
                assert!(
                    is_legal(&previous, &status, corrected),
                    "{previous} cannot become {status}: {event}"
                );
            }
            "balance_change" => {
                let before = balances.insert(address, data["new_balance"].clone());
                assert_eq!(
                    before.unwrap_or(Value::from(0)),
                    data["old_balance"],
                    "starts where the one before ended: {event}"
                );
                assert_ne!(
                    data["old_balance"], data["new_balance"],
                    "a change changes: {event}"
                );
            }
            // If it comes back, it is new.
            "unwatched" => {
                balances.remove(&address);
                statuses.retain(|(other, _), _| *other != address);
                amounts.retain(|(other, _), _| *other != address);
            }
            _ => {}
        }
    }
    for (address, balance) in &balances {
        assert_eq!(
            daemon.balance(address)["balance"],
            *balance,
            "the last balance told of {address} is its balance"
        );
    }
    check_history(daemon, &statuses, &scanned);
    events
}

fn check_history(
    daemon: &Daemon,
    statuses: &HashMap<(String, String), String>,
    scanned: &HashSet<String>,
) {
    let mut addresses: Vec<&String> = statuses.keys().map(|(address, _)| address).collect();
    addresses.sort();
    addresses.dedup();
    for address in addresses {
        let mut before = String::new();
        let mut listed = 0;
        loop {
            let page = daemon.get(&format!("/transactions/{address}?limit=1000{before}"));
            assert_eq!(page.status, 200, "{}", page.text);
            for transaction in page.json["transactions"].as_array().expect("a list") {
                let told = statuses.get(&(address.clone(), word(&transaction["txid"])));
                let found = told.is_none()
                    && transaction["status"] == "confirmed"
                    && scanned.contains(address);
                assert!(
                    found || told == Some(&word(&transaction["status"])),
                    "the last status told is the status: {told:?} {transaction}"
                );
                listed += usize::from(!found);
            }
            match page.json["next"].as_str() {
                Some(next) => before = format!("&before={next}"),
                None => break,
            }
        }
        assert_eq!(
            listed,
            statuses
                .keys()
                .filter(|(other, _)| other == address)
                .count(),
            "all that was told of {address} is listed"
        );
    }
}

/// The number in a cursor.
pub fn number(cursor: &Value) -> u64 {
    let cursor = cursor.as_str().expect("a cursor is text");
    cursor
        .rsplit('-')
        .next()
        .and_then(|number| number.parse().ok())
        .expect("a cursor ends with a number")
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What a transaction is known to move for the address.
fn moved(transaction: &Value) -> [Value; 2] {
    [transaction["received"].clone(), transaction["sent"].clone()]
}
