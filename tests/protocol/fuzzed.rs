//! The bodies of the fuzz targets (`contrib/fuzz`): with random bytes, purely random ones and ones
//! made of what is read there, and with the inputs that long runs of the fuzzer have left.
//! `PROPTEST_CASES` makes it longer.

#[path = "../../contrib/fuzz/src/lib.rs"]
mod bodies;

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use proptest::prelude::*;
use proptest::sample::select;
use satwatch::api::internals::SAID;

fn bytes(length: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..length)
}

/// Pieces put together, behind a byte that says which of several things is meant.
fn pieces(among: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![6 => select(among).prop_map(<[u8]>::to_vec), 1 => bytes(6)];
    (any::<u8>(), proptest::collection::vec(piece, 0..24))
        .prop_map(|(first, pieces)| [vec![first], pieces.concat()].concat())
}

const PACKETS: &[&[u8]] = &[
    b"4",
    b"b",
    b"b4",
    b"AQ==",
    b"AQI=",
    b"\x1e",
    b"2",
    b"3",
    b"probe",
    b"1:",
    b"3:",
    b"0:",
    b":",
    b"\x00",
    b"\x01",
    b"\x02",
    b"\x03",
    b"\xff",
    b"\x04",
    "é".as_bytes(),
    "\u{1f4b0}".as_bytes(),
    b"6",
    b"1",
    b"99999999999999999999:",
];

const SOCKET_IO: &[&[u8]] = &[
    b"0",
    b"1",
    b"2",
    b"3",
    b"4",
    b"5",
    b"6",
    b"-",
    b"/",
    b"/a,",
    b"/no,",
    b",",
    b"7",
    b"10",
    b"11",
    b"99999999999999999999",
    b"[",
    b"]",
    b"{",
    b"}",
    br#""e""#,
    br#""connect""#,
    br#""me\u0061""#,
    br#""\ud83d""#,
    br#"{"_placeholder":true,"num":0}"#,
    br#"{"_placeholder":true,"num":1}"#,
    br#"{"_placeholder":true,"num":-1}"#,
    b"null",
    b"1e400",
    b"NaN",
    b"\n",
    b"\n",
    b"\n!",
    b"0\n",
    b"2[\"e\",1]\n",
    b"21[\"e\"]\n",
    b"51-[\"e\",{\"_placeholder\":true,\"num\":0}]\n!x\n",
    b"61-1[{\"_placeholder\":true,\"num\":0}]\n!x\n",
    b"?a=b",
    "é".as_bytes(),
];

const HTTP: &[&[u8]] = &[
    b"GET ",
    b"POST ",
    b"PUT ",
    b"OPTIONS ",
    b"/e/",
    b"?",
    b"&",
    b"EIO=4",
    b"EIO=3",
    b"transport=polling",
    b"transport=websocket",
    b"sid=",
    b"b64=1",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"host: x\r\n",
    b"connection: close\r\n",
    b"connection: upgrade\r\n",
    b"upgrade: websocket\r\n",
    b"sec-websocket-version: 13\r\n",
    b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
    b"content-length: 5\r\n",
    b"content-length: 5000\r\n",
    b"transfer-encoding: chunked\r\n",
    b"\r\n",
    b"5\r\n4aaaa\r\n0\r\n\r\n",
    b"4aaaa",
    b"%C3%A9",
    b"\x81\x82\0\0\0\x004a",
    b"GET /e/?EIO=4&transport=polling HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /e/?EIO=4&transport=websocket HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
      sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
];

const REST: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"&",
    b"=",
    b"?",
    b"/",
    b"%",
    b"%00",
    b"\x01",
    b"\x02",
    b"null",
    b"true",
    b"1",
    b"0",
    b"-1",
    b"1.5",
    b"1e3",
    b"18446744073709551616",
    b"\\u0000",
    b"\"address\":",
    b"\"addresses\":",
    b"\"label\":",
    b"\"history\":",
    b"\"from_height\":",
    b"\"confirmations\":",
    b"\"after\":",
    b"\"cursor\":",
    b"\"cursors\":",
    b"\"token\":",
    b"\"url\":",
    b"\"secret\":",
    b"\"secrets\":",
    b"\"headers\":",
    b"\"expires\":",
    b"\"snapshot\":",
    b"\"blocks_back\":",
    b"\"to_height\":",
    b"\"consumer\":",
    b"\"blocks\":",
    b"\"all\"",
    b"\"utxo\"",
    b"{\"address\":\"1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa\"}",
    b"\"x\"",
    b"1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
    b"bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
    b"bitcoin:",
    b"https://shop.example/",
    b"whsec_",
    b"limit=",
    b"after=",
    b"before=",
    b"wait=",
    b"consumer=",
    b"address=",
    b"include_spent=",
    b"since=",
    b"a-0",
    b"a-1",
    b"b-100",
    b"b-7",
    b"/balance",
    b"/events",
    b"/consumers",
    b"/scan_history",
    b"/dead_letters",
    b"/status",
    b"for=",
    b"proto=",
    b"10.0.0.1",
    b"192.0.2.7",
    b"[::1]",
    b":80",
    b";",
    b"\n",
    b"!",
    b"Bearer ",
    "\u{200b}".as_bytes(),
    "é".as_bytes(),
];

const SETTINGS: &[&[u8]] = &[
    b"[server]\n",
    b"[server.tls]\n",
    b"[bitcoind]\n",
    b"[webhooks]\n",
    b"[limits]\n",
    b"[log]\n",
    b"[auth]\n",
    b"[[",
    b"[",
    b"]",
    b"\n",
    b" = ",
    b"=",
    b"\"",
    b"'",
    b"\"\"\"",
    b"#",
    b".",
    b",",
    b"true",
    b"1",
    b"-1",
    b"99999999999999999999",
    b"1.5",
    b"inf",
    b"1979-05-27",
    b"{",
    b"}",
    b"listen",
    b"allowed_origins",
    b"trusted_proxies",
    b"hsts",
    b"cert",
    b"key",
    b"rpc_url",
    b"rpc_user",
    b"rpc_password",
    b"proxy",
    b"allowed_targets",
    b"requests_per_second",
    b"level",
    b"127.0.0.1:5005",
    b"0.0.0.0:1",
    b"10.0.0.0/8",
    b"https://a.example",
    b"socks5h://u:p@a:1",
    b"SATWATCH__",
    b"SATWATCH_",
    b"SERVER__",
    b"BITCOIND__",
    b"RPC_PASSWORD",
    b"TLS__",
    b"HOME=/h",
    b"LISTEN",
    b"__",
    "é".as_bytes(),
    b"\x00",
    b"~",
    b"~/a",
];

const TOKENS: &[&[u8]] = &[
    b"serial = 7\n",
    b"authentication = \"on\"\n",
    b"authentication = \"off\"\n",
    b"[[token]]\n",
    b"id = \"0011223344556677\"\n",
    b"name = \"shop\"\n",
    b"scope = \"read\"\n",
    b"scope = \"admin\"\n",
    b"created = 1\n",
    b"expires = 2\n",
    b"expires = -2\n",
    b"hash = \"1111111111111111111111111111111111111111111111111111111111111111\"\n",
    b"\x01",
    b"\x02",
    b"\x01 = 1\n",
    b"name = \"\x01\"\n",
    b"serial = \"\x01\"\n",
    b"[\x01]\n",
    b"\"",
    b"\n",
    b"# Written by satwatch token; do not edit.\ncheck = \"",
];

const ZMQ: &[&[u8]] = &[
    b"\x05rawtx", b"\x08rawblock", b"\x08sequence", b"\x06rawtx2", b"\x04\x01\x00\x00\x00", b"\x03abc",
    b"\x21CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC", b"\x29AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    b"\x28AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", b"\x00",
    b"\x3c\x02\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff\0\xff\xff\xff\xff\x01\0\0\0\0\0\0\0\0\0\0\0\0\0",
];

const DESCRIPTORS: &[&[u8]] = &[
    b"wpkh(",
    b"pkh(",
    b"sh(",
    b"wsh(",
    b"tr(",
    b"pk(",
    b"multi(2,",
    b"sortedmulti(2,",
    b"and_v(v:pk(",
    b"or_d(pk(",
    b"older(",
    b")",
    b",",
    b"{",
    b"}",
    b"\x02",
    b"\x03",
    b"\x03",
    b"\x03/<0;1>/*",
    b"\x03/<2;3>/*",
    b"\x04/<0;1>/*",
    b"\x05",
    b"\x06",
    b"\x07",
    b"/0/*",
    b"/*",
    b"/<0;1>/*",
    b"/<1;0>",
    b"/0h",
    b"/*h",
    b"[d34db33f/84h/0h/0h]",
    b"#",
    b"#qqqqqqqq",
    b"1",
    b" ",
    b"\n",
    "é".as_bytes(),
    b"wpkh(\x03/<0;1>/*)",
    b"tr(\x03/<0;1>/*,pk(\x05))",
    b"wsh(sortedmulti(2,\x03/<0;1>/*,\x03/<2;3>/*))",
    b"sh(wsh(or_d(pk(\x03/<0;1>/*),and_v(v:pk(\x05),older(9)))))",
];

proptest! {
    #[test]
    fn any_descriptor(data in prop_oneof![1 => bytes(60), 9 => pieces(DESCRIPTORS)]) {
        bodies::descriptor(&data);
    }

    #[test]
    fn any_packet(data in prop_oneof![bytes(60), pieces(PACKETS)]) {
        bodies::packet(&data);
    }

    #[test]
    fn any_payload(data in prop_oneof![bytes(60), pieces(PACKETS)]) {
        bodies::payload(&data);
    }

    #[test]
    fn any_socket_io_packets(data in prop_oneof![1 => bytes(60), 5 => pieces(SOCKET_IO)]) {
        bodies::socket(&data);
    }

    #[test]
    fn any_request(data in prop_oneof![1 => bytes(60), 5 => pieces(HTTP).prop_map(|data| data[1..].to_vec())]) {
        bodies::request(&data);
    }

    #[test]
    fn any_sequence_of_inputs_to_a_session(data in bytes(400)) {
        bodies::session(&data);
    }

    #[test]
    fn anything_over_rest(data in prop_oneof![1 => bytes(60), 5 => (any::<u8>(), pieces(REST)).prop_map(behind)]) {
        bodies::rest(&data);
    }

    #[test]
    fn any_settings(data in prop_oneof![1 => bytes(60), 5 => pieces(SETTINGS)]) {
        bodies::settings(&data);
    }

    #[test]
    fn any_tokens_file(data in prop_oneof![1 => bytes(60), 2 => pieces(TOKENS)]) {
        bodies::tokens(&data);
    }

    #[test]
    fn any_zmq_message(data in prop_oneof![1 => bytes(60), 5 => pieces(ZMQ).prop_map(|data| data[1..].to_vec())]) {
        bodies::zmq(&data);
    }

    #[test]
    fn any_row(data in bytes(300)) {
        bodies::rows(&data);
    }
}

fn behind((first, rest): (u8, Vec<u8>)) -> Vec<u8> {
    [vec![first], rest].concat()
}

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/fuzz")
}

/// One input a line, in base64.
#[test]
fn what_long_runs_have_left_holds() {
    for (name, body) in bodies::TARGETS {
        let path = fuzz_folder().join("corpus").join(name);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        assert!(text.lines().count() >= 10, "{path:?} has few inputs");
        for line in text.lines() {
            let input = BASE64.decode(line).expect("base64");
            let held = catch_unwind(|| body(&input)).is_ok();
            assert!(held, "an input of {name}: {line}");
        }
    }
}

#[test]
fn every_target_has_a_program() {
    let files = fs::read_dir(fuzz_folder().join("fuzz_targets")).expect("the folder");
    let files = files.map(|file| file.expect("a file").path());
    let programs: BTreeSet<_> = files
        .map(|path| {
            path.file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    let targets = bodies::TARGETS.iter().map(|(name, _)| (*name).to_owned());
    assert_eq!(programs, targets.collect());
}

/// A type that a route or an event reads is fuzzed, too.
#[test]
fn every_type_of_a_request_is_there() {
    let named = |word: &str| word.trim_end_matches(['{', '}', ' ']).to_owned();
    let (mut types, mut folders) = (BTreeSet::new(), vec![fuzz_folder().join("../../src/api")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(path).expect("a source file");
            let of = text
                .lines()
                .filter_map(|line| line.strip_prefix("impl Request for "));
            types.extend(of.map(named));
        }
    }
    types.insert("Nothing".to_owned());
    let names = SAID.iter().map(|said| said.name);
    let names = names.map(|name| name.rsplit(':').next().unwrap_or(name).trim().to_owned());
    assert_eq!(types, names.collect());
}

// What was found.

#[test]
fn a_token_in_a_path_or_a_name_is_not_shown_again() {
    bodies::rest(b"\x02\x00/\x01");
    bodies::rest(b"\x07\x00\x01");
    bodies::rest(b"\x01\x00\x01=1");
}

/// `bech32` says where the mistyped letter is, and panicked on this one.
#[test]
fn an_address_with_letters_that_no_single_one_explains_is_refused() {
    bodies::rest(b"\x03\x01BC1QW508D6QEJXTDG4X5R3AZRVARY0C5XW7KV8F3T4");
}

#[test]
fn a_tokens_file_with_a_token_in_a_wrong_place_is_refused_without_it() {
    bodies::tokens(b"\x02serial = \"\x01\"\n");
    bodies::tokens(b"\x02\x01 = 1\n");
}
