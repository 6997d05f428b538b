//! From polling to a WebSocket.

use super::*;

#[test]
fn an_upgrade_moves_the_session_and_what_is_queued() {
    let mut rig = Rig::polling();
    rig.poll();
    assert!(rig.socket());
    rig.frame(SocketRole::Probe, "2probe");
    assert_eq!(rig.out(), ["probe 3probe", "poll 6"]);
    assert!(
        !rig.session.wants_frame(SocketRole::Probe),
        "not before the answer is out"
    );
    rig.session.written(rig.now, SocketRole::Probe);
    rig.at(300);
    rig.frame(SocketRole::Probe, "5");
    assert_eq!(
        rig.out(),
        ["promote", "main 2"],
        "the ping that no poll took"
    );
    rig.written();
    assert_eq!(rig.main("4hello"), ["deliver hello"]);
    assert!(!rig.poll());
    assert_eq!(
        rig.session.post_opened(rig.now, false),
        Err(Refused::BadRequest)
    );
    assert!(!rig.socket(), "a second WebSocket is closed");
    assert_eq!(rig.main("4still here"), ["deliver still here"]);
}

#[test]
fn polls_go_on_while_probing_and_are_sent_home() {
    let mut rig = Rig::probed();
    rig.at(50);
    assert!(rig.poll());
    assert_eq!((rig.out(), rig.due()), (vec![], Some(150)));
    assert_eq!(rig.at(150), ["poll 6"]);
    assert!(rig.poll());
    rig.send("a");
    assert_eq!(rig.out(), ["poll 4a"], "messages still go by polling");
    assert_eq!(rig.at(250), [""; 0]);
    assert!(rig.poll());
    rig.frame(SocketRole::Probe, "5");
    assert_eq!(rig.out(), ["poll 6", "promote"]);
    assert_eq!(rig.at(299), [""; 0], "no noop on the WebSocket");
}

#[test]
fn an_upgrade_that_fails_leaves_polling_alive() {
    let table: &[(&str, &[&str])] = &[
        ("4a", &["close probe"]),
        ("abc", &["close probe"]),
        ("", &["close probe"]),
        ("2", &["close probe"]),
        ("1", &["close probe"]),
        ("3probe", &["close probe"]),
    ];
    for (packet, expected) in table {
        let mut rig = Rig::polling();
        rig.socket();
        rig.frame(SocketRole::Probe, packet);
        assert_eq!(&rig.out(), expected, "{packet}");
        rig.poll();
        rig.send("a");
        assert_eq!(rig.out(), ["poll 4a"]);
        assert!(rig.socket(), "another attempt is welcome");
    }
    let mut rig = Rig::probed();
    rig.session
        .socket_ended(rig.now, SocketRole::Probe, SocketEnd::TooLarge);
    assert_eq!(rig.out(), ["close probe 1009"]);
    rig.poll();
    assert_eq!(rig.at(300), ["poll 2"]);
}

#[test]
fn an_upgrade_has_its_own_time_and_the_heartbeat_goes_on() {
    let mut rig = Rig::probed();
    rig.poll();
    assert_eq!(rig.at(300), ["poll 6"], "the poll was due first");
    rig.poll();
    assert_eq!(rig.out(), ["poll 2"]);
    assert_eq!(rig.post("3"), ["post Ok"]);
    for ms in [600, 900] {
        rig.at(ms);
        rig.poll();
        assert_eq!(rig.out(), ["poll 2"]);
        assert_eq!(rig.post("3"), ["post Ok"]);
    }
    assert_eq!(rig.at(1000), ["close probe"]);
    rig.poll();
    rig.send("a");
    assert_eq!(rig.out(), ["poll 4a"]);
}

#[test]
fn a_second_websocket_is_closed_while_the_first_is_probing() {
    let mut rig = Rig::probed();
    assert!(!rig.socket());
    rig.frame(SocketRole::Probe, "2probe");
    assert_eq!(
        rig.out(),
        ["probe 3probe"],
        "a second probe is answered too"
    );
    rig.frame(SocketRole::Probe, "5");
    assert_eq!(rig.out(), ["promote"]);
}

#[test]
fn a_websocket_that_comes_when_the_first_ones_time_is_up_is_not_taken_for_it() {
    let mut rig = Rig::probed();
    rig.session.pause();
    rig.now = rig.start + Duration::from_millis(1000);
    assert!(!rig.socket(), "no timer fired between");
    assert_eq!(rig.out(), ["close probe"]);
    assert!(rig.socket());
}

#[test]
fn an_upgrade_without_a_probe_is_taken_and_none_when_upgrades_are_off() {
    let mut rig = Rig::polling();
    rig.socket();
    rig.frame(SocketRole::Probe, "5");
    assert_eq!(rig.out(), ["promote"]);
    let now = Instant::now();
    assert!(
        !Session::polling(
            now,
            Limits {
                upgrades: false,
                ..LIMITS
            },
            Encoding::Four
        )
        .socket_opened(now)
    );
}

#[test]
fn a_session_that_ends_closes_its_probing_socket() {
    let mut rig = Rig::probed();
    rig.poll();
    assert_eq!(
        rig.post("1"),
        ["closed transport close", "poll 6", "post Ok", "close probe"]
    );
}
