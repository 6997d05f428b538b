//! A session on a WebSocket.

use super::*;

#[test]
fn packets_on_a_websocket() {
    let table: &[(&str, &[&str])] = &[
        ("4hellö", &["deliver hellö"]),
        ("4", &["deliver "]),
        ("bAQID", &[r#"deliver b"\x01\x02\x03""#]),
        ("0", &[]),
        ("5", &[]),
        ("6", &[]),
        ("3probe", &[]),
        ("1", &["closed transport close", "close main"]),
        ("2", &["closed transport error", "close main"]),
        ("2probe", &["closed transport error", "close main"]),
        ("abc", &["closed parse error", "close main"]),
        ("", &["closed parse error", "close main"]),
        ("7", &["closed parse error", "close main"]),
        ("b!", &["closed parse error", "close main"]),
        ("é1234", &["closed parse error", "close main"]),
    ];
    for (packet, expected) in table {
        assert_eq!(&Rig::websocket().main(packet), expected, "{packet}");
    }
    let mut rig = Rig::websocket();
    rig.session.frame(
        rig.now,
        SocketRole::Main,
        Frame::Binary(Bytes::from_static(&[1])),
    );
    assert_eq!(rig.out(), [r#"deliver b"\x01""#]);
}

#[test]
fn a_websocket_that_ends_ends_the_session() {
    let table = [
        (SocketEnd::Closed, "closed transport close", "close main"),
        (
            SocketEnd::Failed(1002),
            "closed transport error",
            "close main 1002",
        ),
        (
            SocketEnd::TooLarge,
            "closed transport error",
            "close main 1009",
        ),
    ];
    for (end, closed, close) in table {
        let mut rig = Rig::websocket();
        rig.session.socket_ended(rig.now, SocketRole::Main, end);
        assert_eq!(rig.out(), [closed, close]);
    }
}

#[test]
fn write_takes_what_fits_and_the_next_one_waits_until_it_is_out() {
    let mut rig = Rig::websocket();
    let half = "x".repeat(WRITE_SIZE / 2 - 1);
    rig.send("a");
    assert!(rig.session.wants_message(), "there is room for more");
    rig.send(&half);
    assert!(rig.session.wants_message());
    rig.send(&half);
    assert!(!rig.session.wants_message());
    let half = format!("main 4{half}");
    assert_eq!(rig.out(), ["main 4a", half.as_str()]);
    assert_eq!(rig.out(), [""; 0], "not before the write is out");
    rig.written();
    assert_eq!(rig.out(), [half.as_str()]);
    rig.written();
    let long = "x".repeat(WRITE_SIZE);
    rig.send(&long);
    rig.send("b");
    assert_eq!(
        rig.out(),
        [format!("main 4{long}")],
        "a longer one goes alone"
    );
    rig.written();
    assert_eq!(rig.out(), ["main 4b"]);
}

#[test]
fn write_that_stalls_ends_the_session() {
    let mut rig = Rig::websocket();
    assert!(rig.session.wants_message());
    rig.send("a");
    assert_eq!(rig.out(), ["main 4a"]);
    assert!(!rig.session.wants_message(), "not before it is out");
    assert_eq!(rig.at(300), [""; 0], "the ping waits behind it");
    rig.session.write_progressed(rig.now, SocketRole::Main);
    assert_eq!(
        rig.at(400),
        [""; 0],
        "a client that reads slowly is not one that does not read"
    );
    assert_eq!(rig.main("3"), [""; 0]);
    assert_eq!(rig.at(700), ["closed transport error", "close main"]);
}

#[test]
fn a_group_stays_together() {
    let mut rig = Rig::websocket();
    let group: Arc<[Message]> = [
        Message::text("51-[]"),
        Message::Binary(Bytes::from_static(&[7])),
    ]
    .into();
    rig.session.send(MessageGroup::Many(group));
    assert_eq!(
        rig.at(300),
        ["main 451-[]", r#"main b"\x07""#, "main 2"],
        "the ping does not come between"
    );
}
