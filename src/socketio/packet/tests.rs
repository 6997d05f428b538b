//! What is accepted, what is refused, and that what we write is read back.

use proptest::prelude::*;

use super::*;

/// What was understood, in one line.
fn shown(text: &str) -> String {
    fn joined(args: &[Box<RawValue>]) -> String {
        args.iter()
            .map(|arg| arg.get())
            .collect::<Vec<_>>()
            .join(" ")
    }
    let packet = match parse(text) {
        Ok(packet) => packet,
        Err(error) => return format!("refused: {error}"),
    };
    let (namespace, n) = (packet.namespace, packet.attachments);
    match packet.body {
        PacketBody::Connect(auth) => format!(
            "connect {namespace} {}",
            auth.map_or("-".to_owned(), |auth| auth.get().to_owned())
        ),
        PacketBody::Disconnect => format!("disconnect {namespace}"),
        PacketBody::Event { name, args, id } => {
            format!("event {namespace} {n} {id:?} {name:?} {}", joined(&args))
        }
        PacketBody::EmptyEvent => format!("empty {namespace}"),
        PacketBody::Ack => format!("ack {namespace} {n}"),
    }
}

#[test]
fn accepts_what_the_grammar_allows() {
    for (text, expected) in [
        ("0", "connect / -"),
        ("0{}", "connect / {}"),
        (r#"0{"token":"ü"}"#, r#"connect / {"token":"ü"}"#),
        ("0/,", "connect / -"),
        ("0/custom", "connect /custom -"),
        ("0/custom,", "connect /custom -"),
        (r#"0/custom,{"a":1}"#, r#"connect /custom {"a":1}"#),
        ("0/custom?x=1,", "connect /custom?x=1 -"),
        ("0/é€😀,{}", "connect /é€😀 {}"),
        ("1", "disconnect /"),
        ("1/custom,", "disconnect /custom"),
        ("1/custom", "disconnect /custom"),
        (r#"2["a"]"#, r#"event / 0 None "a" "#),
        (
            r#"2["a",1,null,"x",{"b":[]}]"#,
            r#"event / 0 None "a" 1 null "x" {"b":[]}"#,
        ),
        (r#"212["a"]"#, r#"event / 0 Some(12) "a" "#),
        (r#"20["a"]"#, r#"event / 0 Some(0) "a" "#),
        (r#"2007["a"]"#, r#"event / 0 Some(7) "a" "#),
        (r#"2/custom,5["a",1]"#, r#"event /custom 0 Some(5) "a" 1"#),
        (r#"2["mess\u0061ge"]"#, r#"event / 0 None "message" "#),
        (r#"2["名前","é1234"]"#, r#"event / 0 None "名前" "é1234""#),
        (r#"2[1,2]"#, r#"event / 0 None "1" 2"#),
        (r#"2[-1.5e3]"#, r#"event / 0 None "-1.5e3" "#),
        // Whatever JSON.parse takes between the parts.
        ("0 {} ", "connect / {}"),
        ("2 [ \"a\" , 1 ] \n", r#"event / 0 None "a" 1"#),
        ("31 [ ]", "ack / 0"),
        // An id that no answer goes to means nothing.
        ("07{}", "connect / {}"),
        ("17", "disconnect /"),
        // The namespace ends at the first comma, whatever it is called.
        ("0/", "connect / -"),
        ("1/", "disconnect /"),
        (r#"2/,["a"]"#, r#"event / 0 None "a" "#),
        ("0//a//,", "connect //a// -"),
        ("0/a-1[{\"", r#"connect /a-1[{" -"#),
        (
            r#"218446744073709551615["a"]"#,
            r#"event / 0 Some(18446744073709551615) "a" "#,
        ),
        ("30000000000000000000000000000000[]", "ack / 0"),
        // Names that mean something only inside of programs.
        (r#"2["error"]"#, r#"event / 0 None "error" "#),
        (r#"2["__proto__"]"#, r#"event / 0 None "__proto__" "#),
        (r#"2[""]"#, r#"event / 0 None "" "#),
        (r#"2["Connect"]"#, r#"event / 0 None "Connect" "#),
        ("2", "empty /"),
        ("27", "empty /"),
        ("2/custom,", "empty /custom"),
        // Values reach the application as they were written.
        (
            r#"2["a","\ud83d",1e400,1.0,-0,12345678901234567890]"#,
            r#"event / 0 None "a" "\ud83d" 1e400 1.0 -0 12345678901234567890"#,
        ),
        (
            r#"2["a",{"_placeholder":true,"num":7}]"#,
            r#"event / 0 None "a" {"_placeholder":true,"num":7}"#,
        ),
        ("31[]", "ack / 0"),
        ("31", "ack / 0"),
        (r#"3/custom,12["ok"]"#, "ack /custom 0"),
        (
            r#"51-["a",{"_placeholder":true,"num":0}]"#,
            r#"event / 1 None "a" {"_placeholder":true,"num":0}"#,
        ),
        (r#"502-["a"]"#, r#"event / 2 None "a" "#),
        (r#"510-/custom,3["a"]"#, r#"event /custom 10 Some(3) "a" "#),
        (r#"61-9[{"_placeholder":true,"num":0}]"#, "ack / 1"),
    ] {
        assert_eq!(shown(text), expected, "{text}");
    }
}

#[test]
fn refuses_everything_else() {
    let deep = format!("2[\"a\",{}{}]", "[".repeat(127), "]".repeat(127));
    let many = format!("2[\"a\"{}]", ",1".repeat(MAX_ARGS + 1));
    let long = format!("0/{},", "n".repeat(MAX_NAMESPACE_BYTES));
    for text in [
        "",
        "7",
        "9[]",
        "a",
        "é",
        "é1234",
        "é12345",
        "-1",
        " 2[\"a\"]",
        // CONNECT: an object or nothing. DISCONNECT: nothing.
        "0[]",
        "0null",
        "0\"x\"",
        "01.5",
        "0{",
        "0{}{}",
        "0/custom,[]",
        "0/a\u{1e}b,",
        &long,
        "1{}",
        "1[]",
        "1/custom,x",
        // EVENT: an array with a name.
        "2[]",
        "2[null]",
        "2[{}]",
        "2[[]]",
        "2[true]",
        "2{}",
        "2\"x\"",
        "2null",
        "2x",
        "2[\"a\"",
        "2[\"a\"]]",
        "2[\"a\",]",
        "2[\"a\",é]",
        "2[\"\\ud83d\"]",
        "2[NaN]",
        "2[\"a\",NaN]",
        "2[\"a\",Infinity]",
        "2[\"a\",\"\u{1}\"]",
        &deep,
        &many,
        "2[\"connect\"]",
        "2[\"connect_error\"]",
        "2[\"disconnect\"]",
        "2[\"disconnecting\"]",
        "2[\"newListener\"]",
        "2[\"removeListener\"]",
        "2[\"conn\\u0065ct\"]",
        "51-[\"disconnect\"]",
        // Ids: digits that fit.
        "2-1[\"a\"]",
        "218446744073709551616[\"a\"]",
        "21.5[\"a\"]",
        "2abc[\"a\"]",
        "299999999999999999999[\"a\"]",
        "3[]",
        "3",
        "3x[]",
        "3-1[]",
        "31{}",
        "31\"x\"",
        "31[",
        // CONNECT_ERROR is the server's.
        "4",
        "4{}",
        "4{\"message\":\"x\"}",
        "4/custom,{}",
        // Attachments: 1 to 10, a hyphen, placeholders within.
        "5",
        "5[\"a\"]",
        "5-[\"a\"]",
        "50-[\"a\"]",
        "511-[\"a\"]",
        "5-1-[\"a\"]",
        "51.0-[\"a\"]",
        "51",
        "51-",
        "5x-[\"a\"]",
        "599999999999999999999999999-[\"a\"]",
        "6-1[]",
        "60-1[]",
        "61-[]",
        "51-[\"a\",{\"_placeholder\":true,\"num\":1}]",
        "51-[\"a\",{\"_placeholder\":true,\"num\":-1}]",
        "51-[\"a\",{\"_placeholder\":true}]",
    ] {
        assert!(
            shown(text).starts_with("refused"),
            "{text}: {}",
            shown(text)
        );
    }
}

#[test]
fn heads_are_written_by_the_same_grammar() {
    for (kind, attachments, namespace, id, expected) in [
        (PacketType::Connect, 0, "/", None, "0"),
        (PacketType::Disconnect, 0, "/custom", None, "1/custom,"),
        (PacketType::Event, 0, "/", Some(0), "20"),
        (PacketType::Ack, 0, "/é", Some(12), "3/é,12"),
        (PacketType::ConnectError, 0, "/x", None, "4/x,"),
        (PacketType::BinaryEvent, 2, "/", None, "52-"),
        (
            PacketType::BinaryAck,
            10,
            "/custom",
            Some(u64::MAX),
            "610-/custom,18446744073709551615",
        ),
    ] {
        let mut text = String::new();
        push_head(&mut text, kind, attachments, namespace, id);
        assert_eq!(text, expected);
    }
}

#[test]
fn a_value_that_is_no_json_leaves_the_text_alone() {
    let mut text = "before".to_owned();
    let bad = std::collections::HashMap::from([((1, 2), 3)]);
    assert!(push_json(&mut text, &bad).is_err());
    assert_eq!(text, "before");
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::hash_map(any::<String>(), inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_accepted_or_refused(text in any::<String>()) {
        let _ = parse(&text);
    }

    #[test]
    fn any_text_that_looks_like_a_packet_is_accepted_or_refused(text in "[0-7]{1,3}-?(/[a-zé]{0,3},?)?[0-9]{0,3}[\\[{\"a,:é\\\\}\\]0-9_true]{0,24}") {
        let _ = parse(&text);
    }

    #[test]
    fn what_is_written_is_read_back(
        binary in 0_usize..=MAX_ATTACHMENTS, is_ack in any::<bool>(), namespace in "(/|/[^,\u{1e}]{1,12})", id in any::<Option<u64>>(),
        name in any::<String>(), args in prop::collection::vec(json(), 0..5),
    ) {
        prop_assume!(!is_reserved(&name) && (!is_ack || id.is_some()));
        let kind = match (is_ack, binary) {
            (true, 0) => PacketType::Ack,
            (true, _) => PacketType::BinaryAck,
            (false, 0) => PacketType::Event,
            (false, _) => PacketType::BinaryEvent,
        };
        let mut text = String::new();
        push_head(&mut text, kind, binary, &namespace, id);
        let name_first = (!is_ack).then(|| serde_json::Value::from(name.clone()));
        push_json(&mut text, &name_first.into_iter().chain(args.iter().cloned()).collect::<Vec<_>>()).unwrap();
        let packet = parse(&text).unwrap();
        prop_assert_eq!(packet.namespace, &namespace);
        prop_assert_eq!(packet.attachments, binary);
        let (got, got_id) = match packet.body {
            PacketBody::Event { name: got, args, id } => { prop_assert_eq!(got, name); (args, id) }
            PacketBody::Ack => return Ok(()),
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        };
        prop_assert_eq!(got_id, id);
        let got: Vec<serde_json::Value> = got.iter().map(|raw| serde_json::from_str(raw.get()).unwrap()).collect();
        prop_assert_eq!(got, args);
    }
}
