//! The end by the layer above or the service.

use super::*;

#[test]
fn close_of_a_polling_session() {
    let mut rig = Rig::polling();
    rig.poll();
    assert_eq!(
        rig.close(CloseReason::ForcedClose),
        ["closed forced close", "poll 1"]
    );

    let mut rig = Rig::polling();
    rig.send("a");
    rig.send("b");
    assert_eq!(rig.close(CloseReason::ForcedClose), [""; 0]);
    assert_eq!(rig.due(), Some(3000));
    assert_eq!(rig.post("4ignored"), ["post Ok"]);
    rig.poll();
    assert_eq!(rig.out(), ["poll 4a|4b"]);
    rig.poll();
    assert_eq!(rig.out(), ["closed forced close", "poll 6|1"]);

    let mut rig = Rig::polling();
    rig.close(CloseReason::ForcedClose);
    assert!(!rig.socket(), "no upgrade any more");
    assert_eq!(rig.at(2999), [""; 0], "and no heartbeat");
    assert_eq!(rig.at(3000), ["closed forced close"]);
}

#[test]
fn a_polling_session_that_should_come_back_is_forgotten() {
    for reason in [CloseReason::ServerShuttingDown, CloseReason::SlowConsumer] {
        let mut rig = Rig::polling();
        assert_eq!(rig.close(reason), [format!("closed {reason}")]);
        let mut rig = Rig::polling();
        rig.poll();
        assert_eq!(
            rig.close(reason),
            [format!("closed {reason}"), "poll 400".into()]
        );
        let mut rig = Rig::polling();
        rig.poll();
        rig.send("a");
        assert_eq!(
            rig.close(reason),
            ["poll 4a".into(), format!("closed {reason}")],
            "what can go goes"
        );
    }
}

#[test]
fn close_of_a_websocket_sends_what_is_queued_and_never_a_1() {
    let mut rig = Rig::websocket();
    rig.send("a");
    assert_eq!(rig.out(), ["main 4a"]);
    rig.send("b");
    assert_eq!(rig.close(CloseReason::ForcedClose), [""; 0]);
    rig.written();
    assert_eq!(rig.out(), ["main 4b"]);
    assert_eq!(rig.main("4ignored"), [""; 0]);
    rig.written();
    assert_eq!(rig.out(), ["closed forced close", "close main"]);
    let mut rig = Rig::websocket();
    assert_eq!(
        rig.close(CloseReason::ServerShuttingDown),
        ["closed server shutting down", "close main 1001"]
    );
}

#[test]
fn a_client_that_does_not_read_is_sent_nothing_more() {
    let mut rig = Rig::websocket();
    rig.send("a");
    assert_eq!(
        (rig.out(), rig.session.held_bytes()),
        (vec!["main 4a".into()], 2)
    );
    rig.send("bc");
    assert_eq!(rig.session.held_bytes(), 5);
    rig.session.abandon(CloseReason::SlowConsumer);
    assert_eq!(
        (rig.out(), rig.session.held_bytes()),
        (vec!["closed slow consumer".into(), "close main".into()], 0)
    );
    let mut rig = Rig::websocket();
    rig.send("a");
    rig.out();
    rig.close(CloseReason::ForcedClose);
    rig.session.abandon(CloseReason::SlowConsumer);
    assert_eq!(
        rig.out(),
        ["closed forced close", "close main"],
        "the end is not waited for"
    );
}

#[test]
fn the_first_reason_counts() {
    let mut rig = Rig::websocket();
    rig.send("a");
    rig.out();
    rig.close(CloseReason::ForcedClose);
    rig.close(CloseReason::SlowConsumer);
    rig.session
        .socket_ended(rig.now, SocketRole::Main, SocketEnd::Closed);
    assert_eq!(rig.out(), ["closed forced close", "close main"]);
    assert_eq!(rig.at(10_000), [""; 0]);
    assert_eq!(rig.due(), None);
}
