//! The bodies of the fuzz targets (`contrib/fuzz`) with random bytes: purely random ones, and ones
//! made of what the protocols are made of. `PROPTEST_CASES` makes it longer.

#[path = "../../contrib/fuzz/bodies.rs"]
mod bodies;

use proptest::prelude::*;
use proptest::sample::select;

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

proptest! {
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
}
