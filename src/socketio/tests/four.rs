//! Clients of protocol revision 4.

use super::*;

#[tokio::test]
async fn it_is_in_the_main_namespace_at_once_and_its_messages_wait_for_that() {
    let mut client = Client::four();
    client.text(r#"20["ack",1]"#).await;
    client.text(r#"2["echo",1]"#).await;
    assert_eq!(
        client.raw(),
        ["0", r#"2["hello",1]"#, "30[1]", r#"2["echo",1]"#]
    );
    assert_eq!(
        client.logged(),
        ["connected / {}", "event / ack 1 +0", "event / echo 1 +0"]
    );
    client.text("0").await;
    assert_eq!(
        client.closing(),
        Some(CloseReason::ForcedClose),
        "it is there already"
    );
}

#[tokio::test]
async fn the_query_of_a_namespace_is_its_payload() {
    let mut client = Client::four();
    client
        .text("0/custom?token=a%20b+%C3%A9&x=1&x=&x=3&flag,")
        .await;
    client.text(r#"2/custom,["echo"]"#).await;
    client.text("1/custom?token=1").await;
    client.text(r#"0/n1,{"token":"ignored"}"#).await;
    assert_eq!(
        client.raw(),
        [
            "0",
            r#"2["hello",1]"#,
            "0/custom,",
            r#"2/custom,["hello",1]"#,
            r#"2/custom,["echo"]"#,
            "0/n1,",
            r#"2/n1,["hello",1]"#
        ]
    );
    let log = client.logged();
    assert_eq!(
        log[1],
        r#"connected /custom {"flag":"","token":"a b é","x":["1","","3"]}"#
    );
    assert_eq!(
        log[3..],
        [
            "disconnected /custom client namespace disconnect",
            "connected /n1 {}"
        ]
    );
}

#[tokio::test]
async fn a_refusal_is_bare() {
    let mut client = Client::four();
    for namespace in ["0/unknown,", "0/n1?refuse=1,", "0/private?a=1,"] {
        client.text(namespace).await;
    }
    assert_eq!(
        client.raw()[2..],
        [
            r#"4/unknown,{"message":"Invalid namespace"}"#,
            r#"4/n1,"refused""#,
            r#"4/private,{"auth":{"a":"1"}}"#
        ]
    );
    assert_eq!(client.closing(), None);
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_before_it_is_let_in_was_never_there() {
    let mut client = Client::four();
    client.end(CloseReason::TransportClose);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!((client.raw(), client.logged()), (Vec::new(), Vec::new()));
}
