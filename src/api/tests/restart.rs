//! A daemon that dies between a commit and the sending: whoever comes back with a cursor gets what
//! was committed.

use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn what_was_committed_and_never_sent_is_sent_to_who_comes_back_with_a_cursor() {
    // Nobody runs this dispatch: after the commit nothing is sent, as when the process is killed
    // there.
    let (first, dispatch) = Daemon::on(StoreFolder::new(), config::Config::default());
    first
        .apply(Input::Start {
            first_height: 100,
            blocks: vec![(BlockHash::from_byte_array([1; 32]), 1_600_000_000)],
            now: NOW,
        })
        .await;
    let (_, added) = first
        .post(
            "/add_address",
            &json!({ "address": address(1).to_string() }).to_string(),
        )
        .await;
    let cursor = added["cursor"].clone();
    first.pay(&address(1), 5_000, 9).await;
    first.pay(&address(1), 7_000, 10).await;
    let (_, log) = first
        .get(&format!("/events?after={}", cursor.as_str().unwrap()))
        .await;
    drop(dispatch);
    let folder = first.kill().await;

    let (second, dispatch) = Daemon::on(folder, config::Config::default());
    tokio::spawn(dispatch.run(second.stop.clone()));
    let mut client = second.client().await;
    client
        .emit(
            "subscribe_address",
            json!({ "address": address(1).to_string(), "after": cursor }),
        )
        .await;
    client.expect("subscribed").await;
    let logged: Vec<_> = log["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["event"].clone(), entry["data"].clone()))
        .collect();
    assert_eq!(logged.len(), 4, "two transactions and two balances: {log}");
    for (name, data) in logged {
        assert_eq!(
            client.event().await,
            (name.as_str().unwrap().to_owned(), data)
        );
    }
    assert_eq!(client.expect("caught_up").await["cursor"], log["head"]);
    second.pay(&address(1), 9_000, 11).await;
    assert_eq!(
        client.expect("new_transactions").await["transactions"][0]["received"],
        Value::from(9_000)
    );
}
