//! Calls about blocks of the past: their bytes, what they spend, and which of them block filters
//! name.

use std::collections::HashMap;

use bitcoin::{BlockHash, ScriptBuf, Txid};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::client::{Rpc, shape};
use super::method::Method;
use crate::bitcoind::http::Limit;
use crate::bitcoind::{NodeError, NodeErrorKind};
use crate::remedy::Remedy;
use crate::tracker::RawBlock;

/// The index of compact block filters, as `getindexinfo` describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct FilterIndex {
    #[serde(default)]
    pub synced: bool,
    #[serde(default)]
    pub best_block_height: u32,
}

/// An input of a block's transactions with the output that it spends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prevout {
    pub outpoint: bitcoin::OutPoint,
    pub spk: ScriptBuf,
    pub value: bitcoin::Amount,
    pub height: u32,
    pub coinbase: bool,
}

#[derive(Deserialize)]
struct VerboseBlock {
    tx: Vec<VerboseTx>,
}

#[derive(Deserialize)]
struct VerboseTx {
    vin: Vec<VerboseInput>,
}

/// A coinbase's input has neither.
#[derive(Deserialize)]
struct VerboseInput {
    txid: Option<Txid>,
    #[serde(default)]
    vout: u32,
    prevout: Option<VerbosePrevout>,
}

#[derive(Deserialize)]
struct VerbosePrevout {
    #[serde(default)]
    generated: bool,
    height: u32,
    /// In bitcoin, kept as text so that no floating point comes between.
    value: Box<RawValue>,
    #[serde(rename = "scriptPubKey")]
    script: VerboseScript,
}

#[derive(Deserialize)]
struct VerboseScript {
    hex: ScriptBuf,
}

impl VerboseInput {
    /// `None`: a coinbase's. An error: the node does not tell.
    fn read(self) -> Result<Option<Prevout>, NodeError> {
        let Some(txid) = self.txid else {
            return Ok(None);
        };
        let told = self.prevout.ok_or_else(|| {
            NodeError::new(
                NodeErrorKind::Shape,
                "bitcoind does not tell what a block spends (getblock with verbosity 3)",
            )
            .advise(Remedy::ScanFromZero)
        })?;
        let value = bitcoin::Amount::from_str_in(told.value.get(), bitcoin::Denomination::Bitcoin);
        Ok(Some(Prevout {
            outpoint: bitcoin::OutPoint {
                txid,
                vout: self.vout,
            },
            spk: told.script.hex,
            value: value.map_err(|error| shape(Method::Block, &error))?,
            height: told.height,
            coinbase: told.generated,
        }))
    }
}

impl Rpc {
    /// One block, over REST where a node on this machine offers it (ten times cheaper than hex in
    /// JSON).
    pub async fn block(&self, hash: BlockHash) -> Result<RawBlock, NodeError> {
        let parse = |raw| RawBlock::parse(raw).filter(|block| block.hash() == hash);
        let rest = self.rest(&format!("block/{hash}.bin")).await?;
        if let Some(block) = rest.and_then(parse) {
            return Ok(block);
        }
        // Any bytes in hex.
        let raw: ScriptBuf = self
            .call(Method::Block, json!([hash, 0]), Limit::BLOCK)
            .await?;
        parse(raw.into_bytes().into())
            .ok_or_else(|| NodeError::no_node(&format!("another block than {hash}")))
    }

    /// The outputs that a block spends, as bytes: for each of its transactions a list, empty for
    /// the coinbase. `None`: the node does not offer it (Bitcoin Core does since 30, over REST).
    pub async fn raw_spent_outputs(&self, hash: BlockHash) -> Result<Option<Bytes>, NodeError> {
        self.rest(&format!("spenttxouts/{hash}.bin")).await
    }

    /// Over REST, which has no authentication, so a node on this machine only is asked. `None`: RPC
    /// gets through, or says better what is wrong. A node that is too busy or too slow for REST
    /// must not be asked over RPC, which costs it far more. What REST does not offer costs a tenth
    /// of a millisecond, so that is not remembered.
    async fn rest(&self, path: &str) -> Result<Option<Bytes>, NodeError> {
        if !self.url().is_loopback() {
            return Ok(None);
        }
        match self.http.get(path).await {
            Err(error) if matches!(error.kind, NodeErrorKind::Busy | NodeErrorKind::TimedOut) => {
                Err(error)
            }
            Err(error) => {
                tracing::debug!("asking over RPC: {error}");
                Ok(None)
            }
            answer => answer,
        }
    }

    /// All inputs of a block, but for the coinbase's, in block order with what they spend.
    /// Expensive: half a second for a full block.
    pub async fn prevouts(&self, hash: BlockHash) -> Result<Vec<Prevout>, NodeError> {
        let block: VerboseBlock = self
            .call(Method::Block, json!([hash, 3]), Limit::HEAVY)
            .await?;
        let inputs = block
            .tx
            .into_iter()
            .flat_map(|tx| tx.vin)
            .map(VerboseInput::read);
        inputs.filter_map(Result::transpose).collect()
    }

    /// The node's index of compact block filters, if it has one.
    pub async fn filter_index(&self) -> Result<Option<FilterIndex>, NodeError> {
        let mut indexes: HashMap<String, Value> = self
            .call(Method::IndexInfo, json!([]), Limit::LIGHT)
            .await?;
        let index = indexes
            .remove("basic block filter index")
            .map(serde_json::from_value)
            .transpose();
        index.map_err(|error| shape(Method::IndexInfo, &error))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::bitcoind::Credentials;
    use crate::bitcoind::url::NodeUrl;
    use crate::config::Secret;

    /// A block of nothing but its header.
    const BLOCK: [u8; 80] = [7; 80];

    /// A node that gives each connection one answer: this to REST (nothing: it breaks the
    /// connection), and the block over RPC. With how often it was asked over RPC.
    fn node(rest: Vec<u8>) -> (Rpc, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.expect("a connection"));
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).unwrap_or(0) > 0 {}
                let mut answer = rest.clone();
                if !head.starts_with("GET /rest/") {
                    count.fetch_add(1, Ordering::Relaxed);
                    let head = head.to_ascii_lowercase();
                    let length = head
                        .lines()
                        .find_map(|line| line.strip_prefix("content-length: "));
                    let length = length.and_then(|length| length.parse().ok());
                    let mut body = vec![0; length.expect("a body has a length")];
                    stream.read_exact(&mut body).expect("it has come");
                    let call: Value = serde_json::from_slice(&body).expect("a call");
                    let block = ScriptBuf::from_bytes(BLOCK.into()).to_hex_string();
                    let text = json!({ "result": block, "error": null, "id": call["id"] });
                    answer = http("200 OK", text.to_string().as_bytes());
                }
                let _ = stream.get_mut().write_all(&answer);
            }
        });
        let credentials = Credentials::User {
            user: "user".into(),
            password: Secret("password".into()),
            conf: None,
        };
        let url = NodeUrl::parse(&address.to_string()).expect("an address");
        (Rpc::new(url, credentials), asked)
    }

    fn http(status: &str, body: &[u8]) -> Vec<u8> {
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        [head.as_bytes(), body].concat()
    }

    fn hash() -> BlockHash {
        let block = RawBlock::parse(Bytes::from_static(&BLOCK));
        block.expect("a header").hash()
    }

    #[tokio::test]
    async fn a_block_comes_over_rpc_where_rest_is_not_offered_or_not_good() {
        let half = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 90\r\n\r\nR".to_vec();
        let endless =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n99999999\r\nR".to_vec();
        let starting = http(
            "503 Starting",
            b"Service temporarily unavailable: Loading\r\n",
        );
        for (rest, over_rpc) in [
            (http("404 Not Found", b""), 1),
            (Vec::new(), 1),
            (half, 1),
            (endless, 1),
            (starting, 1),
            (http("200 OK", b"another program's"), 1),
            (http("200 OK", &[8; 80]), 1),
            (http("200 OK", &BLOCK), 0),
        ] {
            let text = String::from_utf8_lossy(&rest).into_owned();
            let (node, asked) = node(rest);
            let got = node.block(hash()).await.expect(&text);
            assert_eq!(got.bytes(), BLOCK, "{text}");
            assert_eq!(asked.load(Ordering::Relaxed), over_rpc, "{text}");
        }
    }

    #[tokio::test]
    async fn a_node_that_has_no_room_is_not_asked_for_what_costs_it_more() {
        let (node, asked) = node(http("503 Busy", b"Work queue depth exceeded"));
        let block = node.block(hash()).await.expect_err("no room");
        let spent = node.raw_spent_outputs(hash()).await.expect_err("no room");
        assert_eq!(
            (block.kind, spent.kind),
            (NodeErrorKind::Busy, NodeErrorKind::Busy)
        );
        assert_eq!(asked.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_silent_is_given_up_soon() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port is free");
        let url = listener.local_addr().expect("it listens").to_string();
        let url = NodeUrl::parse(&url).expect("an address");
        let credentials = Credentials::User {
            user: "user".into(),
            password: Secret("password".into()),
            conf: None,
        };
        let rpc = Rpc::new(url, credentials);
        let begun = tokio::time::Instant::now();
        let error = rpc.hashes(vec![7]).await.expect_err("no answer");
        assert_eq!(error.kind, NodeErrorKind::TimedOut);
        assert!(begun.elapsed().as_secs() <= 10);
        let begun = tokio::time::Instant::now();
        let error = rpc.block(hash()).await.expect_err("no answer");
        assert_eq!(error.kind, NodeErrorKind::TimedOut);
        assert!(begun.elapsed().as_secs() <= 15);
    }

    fn input(text: &str) -> Result<Option<Prevout>, NodeError> {
        serde_json::from_str::<VerboseInput>(text).unwrap().read()
    }

    #[test]
    fn a_coinbase_spends_nothing_and_a_prevout_is_read_to_the_satoshi() {
        assert_eq!(input(r#"{"coinbase":"00","sequence":1}"#), Ok(None));
        let text = r#"{"txid":"0000000000000000000000000000000000000000000000000000000000000002","vout":3,"scriptSig":{},
            "prevout":{"generated":true,"height":7,"value":20999999.97690001,"scriptPubKey":{"asm":"1","hex":"51"}}}"#;
        let read = input(text).unwrap().unwrap();
        assert_eq!(
            (
                read.outpoint.vout,
                read.value.to_sat(),
                read.height,
                read.coinbase
            ),
            (3, 2_099_999_997_690_001, 7, true)
        );
        assert_eq!(read.spk, ScriptBuf::from_bytes(vec![0x51]));
    }

    #[test]
    fn a_node_that_does_not_tell_what_is_spent_is_named_as_the_reason() {
        let text = r#"{"txid":"0000000000000000000000000000000000000000000000000000000000000002","vout":3}"#;
        assert!(input(text).unwrap_err().message.contains("verbosity 3"));
    }
}
