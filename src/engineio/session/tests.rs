//! The machine without network or sleep. Times are milliseconds since the opening; pings are due every 300, answers within 200.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::error::Refused;
use super::super::outbox::Group;
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
        let now = Instant::now();
        Self { session: Session::polling(now, LIMITS), start: now, now }
    }

    fn websocket() -> Self {
        let now = Instant::now();
        let mut rig = Self { session: Session::websocket(now, LIMITS, "0{}".into()), start: now, now };
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
        self.session.deadline().map(|at| u64::try_from((at - self.start).as_millis()).expect("small"))
    }

    fn poll(&mut self) -> bool {
        self.session.poll_opened(self.now).is_ok()
    }

    fn post(&mut self, body: &str) -> Vec<String> {
        assert_eq!(self.session.post_opened(self.now, false), Ok(()));
        self.session.post_body(self.now, Bytes::copy_from_slice(body.as_bytes()));
        self.out()
    }

    fn socket(&mut self) -> bool {
        self.session.socket_opened(self.now)
    }

    fn frame(&mut self, which: Which, text: &str) {
        self.session.frame(self.now, which, Frame::Text(text.into()));
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
        std::iter::from_fn(|| self.session.next_output(self.now)).map(|output| shown(&output)).collect()
    }
}

fn shown(output: &Output) -> String {
    let which = |which: &Which| if *which == Which::Main { "main" } else { "probe" };
    match output {
        Output::Poll(PollAnswer::Payload(body)) => format!("poll {}", String::from_utf8_lossy(body).replace('\x1e', "|")),
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
    assert_eq!(rig.due(), Some(500), "a ping that is queued a little late counts from when it was due");
    assert_eq!(rig.at(500), ["closed ping timeout", "close main"]);

    let mut rig = Rig::polling();
    rig.now = rig.start + Duration::from_millis(300);
    rig.session.tick(rig.now);
    rig.now = rig.start + Duration::from_millis(500);
    assert!(!rig.poll(), "no timer fired between, the poll finds the session over");
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
    assert_eq!((rig.main("3"), rig.main("3x"), rig.due()), (vec![], vec![], Some(300)));
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
    rig.session.frame(rig.now, Which::Main, Frame::Binary(Bytes::from_static(&[1])));
    assert_eq!(rig.out(), [r#"deliver b"\x01""#]);
}

#[test]
fn a_websocket_that_ends_ends_the_session() {
    let table = [
        (SocketEnd::Closed, "closed transport close", "close main"),
        (SocketEnd::Failed(1002), "closed transport error", "close main 1002"),
        (SocketEnd::TooLarge, "closed transport error", "close main 1009"),
    ];
    for (end, closed, close) in table {
        let mut rig = Rig::websocket();
        rig.session.socket_ended(rig.now, Which::Main, end);
        assert_eq!(rig.out(), [closed, close]);
    }
}

#[test]
fn one_frame_is_written_at_a_time_and_one_that_stalls_ends_the_session() {
    let mut rig = Rig::websocket();
    assert!(rig.session.wants_message() && rig.session.is_idle());
    rig.send("a");
    assert!(!rig.session.wants_message());
    assert_eq!(rig.out(), ["main 4a"]);
    assert!(!rig.session.wants_message(), "not before the frame is out");
    assert_eq!(rig.at(300), [""; 0], "the ping waits behind it");
    rig.session.write_progressed(rig.now, Which::Main);
    assert_eq!(rig.at(400), [""; 0], "a client that reads slowly is not one that does not read");
    assert_eq!(rig.main("3"), [""; 0]);
    assert_eq!(rig.at(700), ["closed transport error", "close main"]);
}

#[test]
fn a_group_stays_together() {
    let mut rig = Rig::websocket();
    let group: Arc<[Message]> = [Message::text("51-[]"), Message::Binary(Bytes::from_static(&[7]))].into();
    rig.session.send(Group::Many(group));
    assert_eq!(rig.out(), ["main 451-[]"]);
    assert!(!rig.session.wants_message());
    rig.at(300);
    rig.written();
    assert_eq!(rig.out(), [r#"main b"\x07""#], "the ping does not come between");
    rig.written();
    assert_eq!(rig.out(), ["main 2"]);
}

// Polling

#[test]
fn a_poll_waits_for_packets_and_takes_all_of_them() {
    let mut rig = Rig::polling();
    assert!(!rig.session.wants_message(), "nothing is taken from the outbox while no poll waits");
    assert!(rig.poll());
    assert_eq!(rig.out(), [""; 0]);
    assert!(rig.session.is_idle());
    rig.send("a");
    rig.session.send(Group::One(Message::Binary(Bytes::from_static(&[1, 2, 3, 4]))));
    assert_eq!(rig.out(), ["poll 4a|bAQIDBA=="]);
    assert!(!rig.session.wants_message());
}

#[test]
fn an_answer_is_bounded_and_the_rest_comes_with_the_next_one() {
    let mut rig = Rig::polling();
    rig.poll();
    let group: Vec<_> = (0..20).map(|_| Message::text("x")).collect();
    rig.session.send(Group::Many(group.into()));
    assert!(!rig.session.wants_message(), "sixteen packets are the limit");
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
    assert_eq!(rig.session.poll_opened(rig.now), Err(Refused::SessionUnknown));
}

#[test]
fn two_posts_at_once_end_the_session() {
    let mut rig = Rig::polling();
    rig.poll();
    assert_eq!(rig.session.post_opened(rig.now, false), Ok(()));
    assert_eq!(rig.session.post_opened(rig.now, false), Err(Refused::BadRequest));
    assert_eq!(rig.out(), ["closed transport error", "poll 400"]);
    rig.session.post_body(rig.now, Bytes::from_static(b"4a"));
    assert_eq!(rig.out(), ["post Gone"]);
}

#[test]
fn posts_one_after_the_other_are_handled() {
    let table: &[(&str, &[&str])] = &[
        ("4a\x1e4b", &["deliver a", "deliver b", "post Ok"]),
        ("4é\x1ebAQ==", &["deliver é", r#"deliver b"\x01""#, "post Ok"]),
        ("0\x1e5\x1e6\x1e3", &["post Ok"]),
        ("4a\x1eabc\x1e4b", &["deliver a", "closed parse error", "post Bad"]),
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
    assert_eq!(rig.post("1"), ["closed transport close", "poll 6", "post Ok"]);
}

#[test]
fn a_goodbye_waits_a_little_for_a_poll_that_crosses_it() {
    let mut rig = Rig::polling();
    assert_eq!(rig.post("4a\x1e1\x1e4b"), ["deliver a"], "what comes behind a goodbye is not heard");
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
    rig.session.post_too_large(rig.now);
    assert_eq!(rig.out(), ["closed transport error"]);
    let mut rig = Rig::polling();
    assert_eq!(rig.session.post_opened(rig.now, true), Err(Refused::BadRequest));
    assert_eq!(rig.out(), ["closed transport error"]);
    let mut rig = Rig::websocket();
    rig.session.request_lost(rig.now);
    assert_eq!((rig.poll(), rig.session.post_opened(rig.now, true)), (false, Err(Refused::BadRequest)));
    assert_eq!(rig.main("4a"), ["deliver a"], "a session on a WebSocket does not care");
}

// Upgrade

#[test]
fn an_upgrade_moves_the_session_and_what_is_queued() {
    let mut rig = Rig::polling();
    rig.poll();
    assert!(rig.socket());
    rig.frame(Which::Probe, "2probe");
    assert_eq!(rig.out(), ["probe 3probe", "poll 6"]);
    assert!(!rig.session.wants_frame(Which::Probe), "not before the answer is out");
    rig.session.written(rig.now, Which::Probe);
    rig.at(300);
    rig.frame(Which::Probe, "5");
    assert_eq!(rig.out(), ["promote", "main 2"], "the ping that no poll took");
    rig.written();
    assert_eq!(rig.main("4hello"), ["deliver hello"]);
    assert!(!rig.poll());
    assert_eq!(rig.session.post_opened(rig.now, false), Err(Refused::BadRequest));
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
    rig.session.socket_ended(rig.now, Which::Probe, SocketEnd::TooLarge);
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
    assert_eq!(rig.out(), ["probe 3probe"], "a second probe is answered too");
    rig.frame(Which::Probe, "5");
    assert_eq!(rig.out(), ["promote"]);
}

#[test]
fn an_upgrade_without_a_probe_is_taken_and_none_when_upgrades_are_off() {
    let mut rig = Rig::polling();
    rig.socket();
    rig.frame(Which::Probe, "5");
    assert_eq!(rig.out(), ["promote"]);
    let now = Instant::now();
    assert!(!Session::polling(now, Limits { upgrades: false, ..LIMITS }).socket_opened(now));
}

#[test]
fn a_session_that_ends_closes_its_probing_socket() {
    let mut rig = Rig::probed();
    rig.poll();
    assert_eq!(rig.post("1"), ["closed transport close", "poll 6", "post Ok", "close probe"]);
}

// Closing

#[test]
fn a_goodbye_to_a_polling_session() {
    let mut rig = Rig::polling();
    rig.poll();
    assert_eq!(rig.close(CloseReason::ForcedClose), ["closed forced close", "poll 1"]);

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
        assert_eq!(rig.close(reason), [format!("closed {reason}"), "poll 400".into()]);
        let mut rig = Rig::polling();
        rig.poll();
        rig.send("a");
        assert_eq!(rig.close(reason), ["poll 4a".into(), format!("closed {reason}")], "what can go goes");
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
    assert_eq!(rig.close(CloseReason::ServerShuttingDown), ["closed server shutting down", "close main 1001"]);
}

#[test]
fn the_first_reason_counts() {
    let mut rig = Rig::websocket();
    rig.send("a");
    rig.out();
    rig.close(CloseReason::ForcedClose);
    rig.close(CloseReason::SlowConsumer);
    rig.session.socket_ended(rig.now, Which::Main, SocketEnd::Closed);
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
    assert_eq!((rig.at(5000), rig.due()), (vec![], None), "the pong may be waiting behind the work");
    rig.session.resume(rig.now);
    assert_eq!((rig.out(), rig.due()), (vec!["deliver b".into()], Some(5200)));
}

#[test]
fn a_post_is_answered_when_its_packets_are_handled_or_work_begins() {
    let mut rig = Rig::polling();
    assert_eq!(rig.session.post_opened(rig.now, false), Ok(()));
    rig.session.post_body(rig.now, Bytes::from_static(b"4a\x1e4b"));
    assert_eq!(rig.session.next_output(rig.now).as_ref().map(shown), Some("deliver a".into()));
    rig.session.pause();
    assert_eq!(rig.out(), ["post Ok"]);
    assert_eq!(rig.post("4c\x1e1"), [""; 0], "the next one waits for the work");
    rig.session.resume(rig.now);
    assert_eq!(rig.out(), ["deliver b", "deliver c"]);
    assert_eq!(rig.at(50), ["closed transport close", "post Ok"]);
}

// Any sequence

#[derive(Debug, Clone)]
enum Step {
    Poll,
    PostOpened(bool),
    PostBody(Vec<u8>),
    PostTooLarge,
    Lost,
    Socket,
    Frame(bool, String),
    Binary(bool),
    Written(bool),
    Progressed(bool),
    Ended(bool, u8),
    Send(usize, usize),
    Pause,
    Resume,
    Close(u8),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let text = prop_oneof![
        prop::sample::select(vec!["", "0", "1", "2", "2probe", "3", "4a", "5", "6", "b", "bAQ==", "abc", "é"]).prop_map(String::from),
        any::<String>(),
    ];
    let body = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..30),
        prop::sample::select(vec!["3", "4a\x1e4b", "1", "4a\x1e", "3\x1e3"]).prop_map(|body| body.as_bytes().to_vec()),
    ];
    prop_oneof![
        4 => Just(Step::Poll),
        3 => prop::sample::select(vec![false, false, false, false, true]).prop_map(Step::PostOpened),
        2 => body.prop_map(Step::PostBody),
        1 => Just(Step::PostTooLarge),
        1 => Just(Step::Lost),
        3 => Just(Step::Socket),
        6 => (any::<bool>(), text).prop_map(|(main, text)| Step::Frame(main, text)),
        1 => any::<bool>().prop_map(Step::Binary),
        5 => any::<bool>().prop_map(Step::Written),
        1 => any::<bool>().prop_map(Step::Progressed),
        1 => (any::<bool>(), any::<u8>()).prop_map(|(main, end)| Step::Ended(main, end)),
        5 => (0usize..20, 0usize..200).prop_map(|(count, len)| Step::Send(count, len)),
        1 => Just(Step::Pause),
        2 => Just(Step::Resume),
        1 => any::<u8>().prop_map(Step::Close),
        6 => (0u16..700).prop_map(Step::Wait),
    ]
}

/// What a driver would know; checks what must hold for any sequence.
#[derive(Default)]
struct Checked {
    poll: bool,
    post_reading: bool,
    post: bool,
    main: bool,
    main_writing: bool,
    probe: bool,
    closed: bool,
}

impl Checked {
    fn input(&mut self, rig: &mut Rig, step: Step) {
        let which = |main| if main { Which::Main } else { Which::Probe };
        let has = |main| if main { self.main } else { self.probe };
        let (session, now) = (&mut rig.session, rig.now);
        match step {
            Step::Poll => {
                // A refused poll is answered apart from the waiting one.
                self.poll |= session.poll_opened(now).is_ok();
            }
            Step::PostOpened(octets) => self.post_reading = session.post_opened(now, octets).is_ok(),
            Step::PostBody(body) if std::mem::take(&mut self.post_reading) => {
                self.post = true;
                session.post_body(now, body.into());
            }
            Step::PostTooLarge if std::mem::take(&mut self.post_reading) => session.post_too_large(now),
            Step::Lost => session.request_lost(now),
            Step::Socket => self.probe |= session.socket_opened(now),
            Step::Frame(main, text) if has(main) && session.wants_frame(which(main)) => {
                session.frame(now, which(main), Frame::Text(text.into()));
            }
            Step::Binary(main) if has(main) && session.wants_frame(which(main)) => {
                session.frame(now, which(main), Frame::Binary(Bytes::new()));
            }
            Step::Written(main) => {
                self.main_writing &= !main;
                session.written(now, which(main));
            }
            Step::Progressed(main) => session.write_progressed(now, which(main)),
            Step::Ended(main, end) if has(main) => {
                let end = [SocketEnd::Closed, SocketEnd::Failed(1002), SocketEnd::TooLarge][usize::from(end % 3)];
                session.socket_ended(now, which(main), end);
            }
            Step::Send(count, len) if session.wants_message() => {
                let message = Message::text(&"x".repeat(len));
                session.send(Group::Many(vec![message; count].into()));
            }
            Step::Pause => session.pause(),
            Step::Resume => session.resume(now),
            Step::Close(reason) => session.close(
                now,
                [CloseReason::ForcedClose, CloseReason::SlowConsumer, CloseReason::ServerShuttingDown][usize::from(reason % 3)],
            ),
            Step::Wait(ms) => {
                rig.now += Duration::from_millis(ms.into());
                session.tick(rig.now);
            }
            _ => {}
        }
    }

    fn output(&mut self, output: Output) {
        if self.closed {
            assert!(matches!(output, Output::Poll(_) | Output::Post(_) | Output::CloseSocket(..)), "{output:?} after the end");
        }
        match output {
            Output::Poll(_) => assert!(std::mem::take(&mut self.poll), "a poll is waiting"),
            Output::Post(_) => assert!(std::mem::take(&mut self.post), "a POST is waiting"),
            Output::Write(Which::Main, frame) => {
                assert!(self.main && !std::mem::replace(&mut self.main_writing, true), "one frame at a time");
                let text = if let Frame::Text(text) = &frame { text.as_str() } else { "" };
                assert!(!text.starts_with(['1', '6']), "never a close or noop on a WebSocket");
            }
            Output::Write(Which::Probe, frame) => assert_eq!((self.probe, frame), (true, Frame::Text("3probe".into()))),
            Output::CloseSocket(Which::Main, _) => assert!(std::mem::take(&mut self.main)),
            Output::CloseSocket(Which::Probe, _) => assert!(std::mem::take(&mut self.probe)),
            Output::Promote => {
                assert!(std::mem::take(&mut self.probe) && !self.main);
                self.main = true;
            }
            Output::Deliver(_) => {}
            Output::Closed(_) => self.closed = true,
        }
    }
}

proptest! {
    #[test]
    fn any_sequence_is_survived_answered_and_ended(websocket in any::<bool>(), steps in proptest::collection::vec(step(), 0..80)) {
        let mut rig = if websocket { Rig::websocket() } else { Rig::polling() };
        let mut checked = Checked { main: websocket, ..Checked::default() };
        for step in steps {
            checked.input(&mut rig, step);
            while let Some(output) = rig.session.next_output(rig.now) {
                checked.output(output);
            }
            prop_assert!(rig.session.is_closed() == checked.closed);
            prop_assert!(rig.session.inbox.len() <= 2 && rig.session.queue.len() <= 40 && rig.session.outputs.is_empty());
        }
        // Left alone, every session ends.
        rig.session.resume(rig.now);
        for _ in 0..20 {
            if let Some(deadline) = rig.session.deadline() {
                rig.now = rig.now.max(deadline);
                rig.session.tick(rig.now);
            }
            while let Some(output) = rig.session.next_output(rig.now) {
                checked.output(output);
            }
        }
        prop_assert!(checked.closed && !checked.poll && !checked.post && !checked.main && !checked.probe);
    }
}
