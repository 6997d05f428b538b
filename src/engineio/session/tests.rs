//! The machine without network or sleep. Times are milliseconds since the opening; pings are due
//! every 300, answers within 200. Any sequence of inputs is `contrib/fuzz`'s, which
//! `tests/protocol/fuzzed.rs` runs too.

mod ends;

use std::sync::Arc;

use bytes::Bytes;

use super::super::error::Refused;
use super::super::message::Group;
use super::*;

const LIMITS: Limits = Limits {
    ping_interval: Duration::from_millis(300),
    ping_timeout: Duration::from_millis(200),
    upgrade_timeout: Duration::from_millis(1000),
    write_timeout: Duration::from_millis(400),
    close_timeout: Duration::from_millis(3000),
    max_payload: 100,
    upgrades: true,
};

struct Rig {
    session: Session,
    start: Instant,
    now: Instant,
}

impl Rig {
    fn polling() -> Self {
        Self::polling_in(Dialect::Four)
    }

    fn polling_in(dialect: Dialect) -> Self {
        let now = Instant::now();
        Self {
            session: Session::polling(now, LIMITS, dialect),
            start: now,
            now,
        }
    }

    fn websocket() -> Self {
        Self::websocket_in(Dialect::Four)
    }

    fn websocket_in(dialect: Dialect) -> Self {
        let now = Instant::now();
        let mut rig = Self {
            session: Session::websocket(now, LIMITS, dialect, "0{}".into()),
            start: now,
            now,
        };
        assert_eq!(rig.out(), ["main 0{}"]);
        rig.written();
        rig
    }

    /// A polling session with a WebSocket that has been probed.
    fn probed() -> Self {
        let mut rig = Self::polling();
        assert!(rig.socket());
        rig.frame(Which::Probe, "2probe");
        assert_eq!(rig.out(), ["probe 3probe"]);
        rig.session.written(rig.now, Which::Probe);
        rig
    }

    /// Moves the clock and does what is due.
    fn at(&mut self, ms: u64) -> Vec<String> {
        self.now = self.start + Duration::from_millis(ms);
        self.session.tick(self.now);
        self.out()
    }

    /// When the next deadline is.
    fn due(&self) -> Option<u64> {
        self.session
            .deadline()
            .map(|at| u64::try_from((at - self.start).as_millis()).expect("small"))
    }

    fn poll(&mut self) -> bool {
        self.session.poll_opened(self.now).is_ok()
    }

    fn post(&mut self, body: &str) -> Vec<String> {
        assert_eq!(self.session.post_opened(self.now, false), Ok(()));
        self.session
            .post_body(self.now, Bytes::copy_from_slice(body.as_bytes()));
        self.out()
    }

    fn socket(&mut self) -> bool {
        self.session.socket_opened(self.now)
    }

    fn frame(&mut self, which: Which, text: &str) {
        self.session
            .frame(self.now, which, Frame::Text(text.into()));
    }

    fn main(&mut self, text: &str) -> Vec<String> {
        self.frame(Which::Main, text);
        self.out()
    }

    fn send(&mut self, text: &str) {
        self.session.send(Group::One(Message::text(text)));
    }

    fn written(&mut self) {
        self.session.written(self.now, Which::Main);
    }

    fn close(&mut self, reason: CloseReason) -> Vec<String> {
        self.session.close(self.now, reason);
        self.out()
    }

    fn out(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.session.next_output(self.now))
            .map(|output| shown(&output))
            .collect()
    }
}

fn shown(output: &Output) -> String {
    let which = |which: &Which| {
        if *which == Which::Main {
            "main"
        } else {
            "probe"
        }
    };
    match output {
        Output::Poll(PollAnswer::Payload(Body::Octets(body))) => format!("poll {body:?}"),
        Output::Poll(PollAnswer::Payload(Body::Text(body))) => format!(
            "poll {}",
            String::from_utf8_lossy(body).replace('\x1e', "|")
        ),
        Output::Poll(PollAnswer::Gone) => "poll 400".into(),
        Output::Post(answer) => format!("post {answer:?}"),
        Output::Write(to, Frame::Text(text)) => format!("{} {text}", which(to)),
        Output::Write(to, Frame::Binary(bytes)) => format!("{} {bytes:?}", which(to)),
        Output::CloseSocket(of, Some(code)) => format!("close {} {code}", which(of)),
        Output::CloseSocket(of, None) => format!("close {}", which(of)),
        Output::Promote => "promote".into(),
        Output::Deliver(Message::Text(text)) => format!("deliver {}", text.as_str()),
        Output::Deliver(Message::Binary(bytes)) => format!("deliver {bytes:?}"),
        Output::Closed(reason) => format!("closed {reason}"),
    }
}

// Heartbeat

#[test]
fn the_first_ping_comes_one_interval_after_the_opening_and_the_next_after_the_pong() {
    let mut rig = Rig::websocket();
    assert_eq!(rig.due(), Some(300));
    assert_eq!(rig.at(299), [""; 0]);
    assert_eq!(rig.at(300), ["main 2"]);
    rig.written();
    assert_eq!(rig.due(), Some(500));
    rig.at(350);
    assert_eq!(rig.main("3"), [""; 0]);
    assert_eq!(rig.due(), Some(650));
    assert_eq!(rig.at(650), ["main 2"]);
}

#[test]
fn a_silent_session_is_over_at_interval_plus_timeout_whether_or_not_its_timer_fired() {
    let mut rig = Rig::websocket();
    rig.at(302);
    rig.written();
    assert_eq!(
        rig.due(),
        Some(500),
        "a ping that is queued a little late counts from when it was due"
    );
    assert_eq!(rig.at(500), ["closed ping timeout", "close main"]);

    let mut rig = Rig::polling();
    rig.now = rig.start + Duration::from_millis(300);
    rig.session.tick(rig.now);
    rig.now = rig.start + Duration::from_millis(500);
    assert!(
        !rig.poll(),
        "no timer fired between, the poll finds the session over"
    );
    assert_eq!(rig.out(), ["closed ping timeout"]);
}

#[test]
fn a_machine_that_slept_gives_its_clients_the_whole_timeout() {
    let mut rig = Rig::websocket();
    assert_eq!(rig.at(60_000), ["main 2"]);
    rig.written();
    assert_eq!(rig.due(), Some(60_200));
}

#[test]
fn a_ping_answers_the_waiting_poll_and_counts_even_when_no_poll_takes_it() {
    let mut rig = Rig::polling();
    assert!(rig.poll());
    assert_eq!(rig.at(300), ["poll 2"]);
    assert_eq!(rig.post("3"), ["post Ok"]);
    assert_eq!(rig.at(600), [""; 0], "queued, but nobody polls");
    assert_eq!(rig.at(800), ["closed ping timeout"]);
}

#[test]
fn other_packets_prolong_the_wait_for_a_pong_once() {
    let mut rig = Rig::websocket();
    rig.at(300);
    rig.written();
    rig.at(400);
    assert_eq!(rig.main("4a"), ["deliver a"]);
    assert_eq!(rig.due(), Some(600));
    rig.at(550);
    rig.main("4b");
    assert_eq!(rig.due(), Some(600));
    assert_eq!(rig.at(600), ["closed ping timeout", "close main"]);
}

#[test]
fn pongs_out_of_turn_change_nothing() {
    let mut rig = Rig::websocket();
    rig.at(100);
    assert_eq!(
        (rig.main("3"), rig.main("3x"), rig.due()),
        (vec![], vec![], Some(300))
    );
}

// WebSocket

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
        Which::Main,
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
        rig.session.socket_ended(rig.now, Which::Main, end);
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
    rig.session.write_progressed(rig.now, Which::Main);
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
    rig.session.send(Group::Many(group));
    assert_eq!(
        rig.at(300),
        ["main 451-[]", r#"main b"\x07""#, "main 2"],
        "the ping does not come between"
    );
}

// Polling

#[test]
fn a_poll_waits_for_packets_and_takes_all_of_them() {
    let mut rig = Rig::polling();
    assert!(
        !rig.session.wants_message(),
        "nothing is taken from the outbox while no poll waits"
    );
    assert!(rig.poll());
    assert_eq!(rig.out(), [""; 0]);
    assert!(rig.session.wants_message());
    rig.send("a");
    rig.session
        .send(Group::One(Message::Binary(Bytes::from_static(&[
            1, 2, 3, 4,
        ]))));
    assert_eq!(rig.out(), ["poll 4a|bAQIDBA=="]);
    assert!(!rig.session.wants_message());
}

#[test]
fn an_answer_is_bounded_and_the_rest_comes_with_the_next_one() {
    let mut rig = Rig::polling();
    rig.poll();
    let group: Vec<_> = (0..20).map(|_| Message::text("x")).collect();
    rig.session.send(Group::Many(group.into()));
    assert!(
        !rig.session.wants_message(),
        "sixteen packets are the limit"
    );
    assert_eq!(rig.out(), [format!("poll {}", ["4x"; 16].join("|"))]);
    rig.poll();
    assert_eq!(rig.out(), [format!("poll {}", ["4x"; 4].join("|"))]);
    let long = "y".repeat(60);
    rig.poll();
    rig.send(&long);
    assert!(rig.session.wants_message());
    rig.send(&long);
    assert!(!rig.session.wants_message(), "the bytes are the limit");
    assert_eq!(rig.out(), [format!("poll 4{long}")]);
}

#[test]
fn two_polls_at_once_end_the_session() {
    let mut rig = Rig::polling();
    assert!(rig.poll());
    assert_eq!(rig.session.poll_opened(rig.now), Err(Refused::BadRequest));
    assert_eq!(rig.out(), ["closed transport error", "poll 1"]);
    assert_eq!(
        rig.session.poll_opened(rig.now),
        Err(Refused::SessionUnknown)
    );
}

#[test]
fn two_polls_at_once_are_two_even_when_the_first_is_due_an_answer() {
    let mut rig = Rig::probed();
    assert!(rig.poll());
    rig.now = rig.start + Duration::from_millis(150);
    assert_eq!(
        rig.session.poll_opened(rig.now),
        Err(Refused::BadRequest),
        "no timer fired between"
    );
    assert_eq!(
        rig.out(),
        ["poll 6", "closed transport error", "close probe"],
        "the answer is the first one's"
    );
}

#[test]
fn a_session_that_is_over_answers_no_poll_twice() {
    let mut rig = Rig::probed();
    assert!(rig.poll() && !rig.poll());
    assert_eq!(
        rig.out(),
        ["closed transport error", "poll 1", "close probe"]
    );
    assert_eq!(rig.at(150), [""; 0], "the noop that was due is not");
}

#[test]
fn two_posts_at_once_end_the_session() {
    let mut rig = Rig::polling();
    rig.poll();
    assert_eq!(rig.session.post_opened(rig.now, false), Ok(()));
    assert_eq!(
        rig.session.post_opened(rig.now, false),
        Err(Refused::BadRequest)
    );
    assert_eq!(rig.out(), ["closed transport error", "poll 400"]);
    rig.session.post_body(rig.now, Bytes::from_static(b"4a"));
    assert_eq!(rig.out(), ["post Gone"]);
}

#[test]
fn posts_one_after_the_other_are_handled() {
    let table: &[(&str, &[&str])] = &[
        ("4a\x1e4b", &["deliver a", "deliver b", "post Ok"]),
        (
            "4é\x1ebAQ==",
            &["deliver é", r#"deliver b"\x01""#, "post Ok"],
        ),
        ("0\x1e5\x1e6\x1e3", &["post Ok"]),
        (
            "4a\x1eabc\x1e4b",
            &["deliver a", "closed parse error", "post Bad"],
        ),
        ("abc", &["closed parse error", "post Bad"]),
        ("", &["closed parse error", "post Bad"]),
        ("2", &["closed transport error", "post Bad"]),
    ];
    for (body, expected) in table {
        let mut rig = Rig::polling();
        assert_eq!(&rig.post(body), expected, "{body}");
        if rig.session.is_closed() {
            assert!(!rig.poll());
        } else {
            assert_eq!(rig.post("4z"), ["deliver z", "post Ok"]);
        }
    }
}

#[test]
fn a_client_that_says_goodbye_gets_its_poll_answered() {
    let mut rig = Rig::polling();
    rig.poll();
    assert_eq!(
        rig.post("1"),
        ["closed transport close", "poll 6", "post Ok"]
    );
}

#[test]
fn a_goodbye_waits_a_little_for_a_poll_that_crosses_it() {
    let mut rig = Rig::polling();
    assert_eq!(
        rig.post("4a\x1e1\x1e4b"),
        ["deliver a"],
        "what comes behind a goodbye is not heard"
    );
    assert_eq!(rig.due(), Some(50));
    rig.at(49);
    assert!(rig.poll());
    assert_eq!(rig.out(), ["closed transport close", "poll 6", "post Ok"]);
    assert!(!rig.poll());

    let mut rig = Rig::polling();
    assert_eq!(rig.post("1"), [""; 0]);
    assert!(!rig.socket(), "no upgrade any more");
    assert_eq!(rig.close(CloseReason::ForcedClose), [""; 0]);
    assert_eq!(rig.at(50), ["closed transport close", "post Ok"]);
    assert!(!rig.poll(), "one that is sent behind the answer");
}

#[test]
fn lost_requests_large_bodies_and_octets_end_a_polling_session() {
    let mut rig = Rig::polling();
    rig.poll();
    rig.session.request_lost(rig.now);
    assert_eq!(rig.out(), ["closed transport close", "poll 400"]);
    let mut rig = Rig::polling();
    assert_eq!(rig.session.post_opened(rig.now, false), Ok(()));
    rig.session.post_refused(rig.now);
    assert_eq!(rig.out(), ["closed transport error"]);
    let mut rig = Rig::polling();
    assert_eq!(
        rig.session.post_opened(rig.now, true),
        Err(Refused::BadRequest)
    );
    assert_eq!(rig.out(), ["closed transport error"]);
    let mut rig = Rig::websocket();
    rig.session.request_lost(rig.now);
    assert_eq!(
        (rig.poll(), rig.session.post_opened(rig.now, true)),
        (false, Err(Refused::BadRequest))
    );
    assert_eq!(
        rig.main("4a"),
        ["deliver a"],
        "a session on a WebSocket does not care"
    );
}

// Upgrade

#[test]
fn an_upgrade_moves_the_session_and_what_is_queued() {
    let mut rig = Rig::polling();
    rig.poll();
    assert!(rig.socket());
    rig.frame(Which::Probe, "2probe");
    assert_eq!(rig.out(), ["probe 3probe", "poll 6"]);
    assert!(
        !rig.session.wants_frame(Which::Probe),
        "not before the answer is out"
    );
    rig.session.written(rig.now, Which::Probe);
    rig.at(300);
    rig.frame(Which::Probe, "5");
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
    rig.frame(Which::Probe, "5");
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
        rig.frame(Which::Probe, packet);
        assert_eq!(&rig.out(), expected, "{packet}");
        rig.poll();
        rig.send("a");
        assert_eq!(rig.out(), ["poll 4a"]);
        assert!(rig.socket(), "another attempt is welcome");
    }
    let mut rig = Rig::probed();
    rig.session
        .socket_ended(rig.now, Which::Probe, SocketEnd::TooLarge);
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
    rig.frame(Which::Probe, "2probe");
    assert_eq!(
        rig.out(),
        ["probe 3probe"],
        "a second probe is answered too"
    );
    rig.frame(Which::Probe, "5");
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
    rig.frame(Which::Probe, "5");
    assert_eq!(rig.out(), ["promote"]);
    let now = Instant::now();
    assert!(
        !Session::polling(
            now,
            Limits {
                upgrades: false,
                ..LIMITS
            },
            Dialect::Four
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

// Closing

#[test]
fn a_goodbye_to_a_polling_session() {
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
fn a_goodbye_on_a_websocket_sends_what_is_queued_and_never_a_1() {
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
        "the goodbye is not waited for"
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
        .socket_ended(rig.now, Which::Main, SocketEnd::Closed);
    assert_eq!(rig.out(), ["closed forced close", "close main"]);
    assert_eq!(rig.at(10_000), [""; 0]);
    assert_eq!(rig.due(), None);
}

// Work

#[test]
fn nothing_is_taken_from_the_client_while_the_layer_above_works() {
    let mut rig = Rig::websocket();
    assert!(rig.session.wants_frame(Which::Main));
    assert_eq!(rig.main("4a"), ["deliver a"]);
    rig.session.pause();
    assert!(!rig.session.wants_frame(Which::Main));
    assert_eq!(rig.main("4b"), [""; 0]);
    rig.send("news");
    assert_eq!(rig.out(), ["main 4news"], "messages go out");
    rig.written();
    assert_eq!(rig.at(300), ["main 2"], "pings too");
    rig.written();
    assert_eq!(
        (rig.at(5000), rig.due()),
        (vec![], None),
        "the pong may be waiting behind the work"
    );
    rig.session.resume(rig.now);
    assert_eq!(
        (rig.out(), rig.due()),
        (vec!["deliver b".into()], Some(5200))
    );
}

#[test]
fn a_post_is_answered_when_its_packets_are_handled_or_work_begins() {
    let mut rig = Rig::polling();
    assert_eq!(rig.session.post_opened(rig.now, false), Ok(()));
    rig.session
        .post_body(rig.now, Bytes::from_static(b"4a\x1e4b"));
    assert_eq!(
        rig.session.next_output(rig.now).as_ref().map(shown),
        Some("deliver a".into())
    );
    rig.session.pause();
    assert_eq!(rig.out(), ["post Ok"]);
    assert_eq!(
        rig.post("4c\x1e1"),
        [""; 0],
        "the next one waits for the work"
    );
    rig.session.resume(rig.now);
    assert_eq!(rig.out(), ["deliver b", "deliver c"]);
    assert_eq!(rig.at(50), ["closed transport close", "post Ok"]);
}

#[test]
fn packets_wait_while_there_is_no_room_for_answers() {
    let mut rig = Rig::websocket();
    rig.send("a");
    assert_eq!(rig.out(), ["main 4a"]);
    rig.session.hold_back(rig.now, true);
    assert!(!rig.session.wants_frame(Which::Main));
    assert_eq!(rig.main("4b"), [""; 0]);
    rig.written();
    assert_eq!(rig.at(300), ["main 2"]);
    rig.written();
    assert_eq!(rig.at(5000), [""; 0], "the pong may be waiting");
    rig.session.hold_back(rig.now, false);
    assert_eq!(
        (rig.out(), rig.due()),
        (vec!["deliver b".into()], Some(5200))
    );
}

#[test]
fn a_polling_client_that_is_held_back_has_to_poll() {
    let mut rig = Rig::polling();
    rig.session.hold_back(rig.now, true);
    assert_eq!(rig.post("4a"), [""; 0], "the body waits");
    assert_eq!(rig.at(300), [""; 0]);
    assert_eq!(rig.at(500), ["closed ping timeout", "post Gone"]);

    let mut rig = Rig::polling();
    rig.session.hold_back(rig.now, true);
    rig.send("answer");
    assert_eq!(rig.post("4a"), [""; 0]);
    assert!(rig.poll());
    rig.session.hold_back(rig.now, false);
    assert_eq!(rig.out(), ["deliver a", "post Ok", "poll 4answer"]);
}

// Revision 3

const THREE: Dialect = Dialect::Three { base64: false };

#[test]
fn a_client_of_revision_3_pings_and_anything_it_sends_shows_that_it_lives() {
    let mut rig = Rig::websocket_in(THREE);
    assert_eq!(rig.due(), Some(500));
    rig.at(400);
    assert_eq!(rig.main("2"), ["main 3"]);
    rig.written();
    assert_eq!(rig.due(), Some(900));
    assert_eq!(
        rig.main("2probe"),
        ["main 3"],
        "a probe is one only on a probing WebSocket"
    );
    rig.written();
    rig.at(600);
    assert_eq!(
        (rig.main("4a"), rig.due()),
        (vec!["deliver a".into()], Some(1100))
    );
    assert_eq!(rig.at(1099), [""; 0], "the server does not ping");
    assert_eq!(rig.at(1100), ["closed ping timeout", "close main"]);
    assert_eq!(
        Rig::websocket_in(THREE).main("3"),
        ["closed transport error", "close main"]
    );
}

#[test]
fn pings_that_are_not_read_do_not_pile_up() {
    let mut rig = Rig::polling_in(THREE);
    assert_eq!(rig.post(&"1:2".repeat(1000)), ["post Ok"]);
    assert_eq!(rig.session.queue.len(), 1);
    rig.poll();
    assert_eq!(rig.out(), ["poll 1:3"]);
    assert_eq!(rig.post("1:2"), ["post Ok"]);
    rig.poll();
    assert_eq!(rig.out(), ["poll 1:3"]);
}

#[test]
fn the_time_of_work_is_no_silence_in_revision_3() {
    let mut rig = Rig::websocket_in(THREE);
    assert_eq!(rig.main("4a"), ["deliver a"]);
    rig.session.pause();
    assert_eq!((rig.at(5000), rig.due()), (vec![], None));
    rig.session.resume(rig.now);
    assert_eq!(rig.due(), Some(5200));
}

#[test]
fn polling_bodies_of_revision_3_say_how_long_their_packets_are() {
    let bytes = || Group::One(Message::Binary(Bytes::from_static(&[1, 2])));
    let mut rig = Rig::polling_in(THREE);
    rig.poll();
    assert_eq!(rig.post("1:23:4é€"), ["deliver é€", "post Ok", "poll 1:3"]);
    rig.send("é");
    rig.session.send(bytes());
    rig.poll();
    assert_eq!(
        rig.out(),
        [r#"poll b"\0\x03\xff4\xc3\xa9\x01\x03\xff\x04\x01\x02""#]
    );
    assert_eq!(
        rig.session.post_opened(rig.now, true),
        Ok(()),
        "binary bodies are legal"
    );
    rig.session.post_body(
        rig.now,
        Bytes::from_static(&[1, 2, 255, 4, 9, 0, 1, 255, b'1']),
    );
    assert_eq!(rig.out(), [r#"deliver b"\t""#]);
    assert!(rig.poll());
    assert_eq!(rig.out(), ["closed transport close", "poll 1:6", "post Ok"]);

    let mut rig = Rig::polling_in(Dialect::Three { base64: true });
    rig.session.send(bytes());
    rig.poll();
    assert_eq!(rig.out(), ["poll 6:b4AQI="]);
    rig.poll();
    assert_eq!(rig.session.poll_opened(rig.now), Err(Refused::BadRequest));
    assert_eq!(rig.out(), ["closed transport error", "poll 1:1"]);
    assert_eq!(
        Rig::polling_in(THREE).post("4a"),
        ["closed parse error", "post Bad"]
    );
}

#[test]
fn a_session_of_revision_3_upgrades_and_keeps_its_base64() {
    let mut rig = Rig::polling_in(Dialect::Three { base64: true });
    rig.poll();
    assert!(rig.socket());
    rig.frame(Which::Probe, "2probe");
    assert_eq!(rig.out(), ["probe 3probe", "poll 1:6"]);
    rig.session.written(rig.now, Which::Probe);
    rig.frame(Which::Probe, "5");
    assert_eq!(rig.out(), ["promote"]);
    rig.session
        .send(Group::One(Message::Binary(Bytes::from_static(&[1, 2]))));
    assert_eq!(rig.out(), ["main b4AQI="]);
}
