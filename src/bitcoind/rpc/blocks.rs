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
    /// A block as bytes, which are not looked at. Over REST where a node on this machine offers it.
    pub(super) async fn raw_block(&self, hash: BlockHash) -> Result<Bytes, NodeError> {
        if let Some(raw) = self.rest(&format!("block/{hash}.bin")).await {
            return Ok(raw);
        }
        // Any bytes in hex.
        let raw: ScriptBuf = self
            .call(Method::Block, json!([hash, 0]), Limit::BLOCK)
            .await?;
        Ok(raw.into_bytes().into())
    }

    /// The outputs that a block spends, as bytes: for each of its transactions a list, empty for
    /// the coinbase. `None`: the node does not offer it (Bitcoin Core does since 30, over REST).
    pub async fn raw_spent_outputs(&self, hash: BlockHash) -> Option<Bytes> {
        self.rest(&format!("spenttxouts/{hash}.bin")).await
    }

    /// Over REST, which has no authentication, so a node on this machine only is asked. `None` for
    /// whatever reason: RPC gets through, or says better what is wrong. What REST does not offer
    /// costs a tenth of a millisecond, so that is not remembered.
    async fn rest(&self, path: &str) -> Option<Bytes> {
        if !self.url().is_loopback() {
            return None;
        }
        let answer = self.http.get(path, Limit::BLOCK).await;
        answer.unwrap_or_else(|error| {
            tracing::debug!("asking over RPC: {error}");
            None
        })
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

    use super::*;
    use crate::bitcoind::Credentials;
    use crate::bitcoind::url::NodeUrl;
    use crate::config::Secret;

    /// A node that gives each connection one answer: this to REST (nothing: it breaks the
    /// connection), and a block of two bytes over RPC.
    fn node(rest: &'static str) -> Rpc {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.expect("a connection"));
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).unwrap_or(0) > 0 {}
                let mut answer = rest.to_owned();
                if !head.starts_with("GET /rest/block/") {
                    let head = head.to_ascii_lowercase();
                    let length = head
                        .lines()
                        .find_map(|line| line.strip_prefix("content-length: "));
                    let length = length.and_then(|length| length.parse().ok());
                    let mut body = vec![0; length.expect("a body has a length")];
                    stream.read_exact(&mut body).expect("it has come");
                    let call: Value = serde_json::from_slice(&body).expect("a call");
                    let text = json!({ "result": "0102", "error": null, "id": call["id"] });
                    let text = text.to_string();
                    answer = format!(
                        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}",
                        text.len()
                    );
                }
                let _ = stream.get_mut().write_all(answer.as_bytes());
            }
        });
        let credentials = Credentials::User {
            user: "user".into(),
            password: Secret("password".into()),
            conf: None,
        };
        let url = NodeUrl::parse(&address.to_string()).expect("an address");
        Rpc::new(url, credentials)
    }

    #[tokio::test]
    async fn a_block_comes_over_rpc_where_rest_is_not_offered_or_fails_however() {
        let hash = "0000000000000000000000000000000000000000000000000000000000000001";
        let hash: BlockHash = hash.parse().expect("a hash");
        let absent = "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let busy = "HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let half = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\nR";
        let endless = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n99999999\r\nR";
        let offered = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nR";
        for (rest, block) in [
            (absent, &b"\x01\x02"[..]),
            ("", b"\x01\x02"),
            (busy, b"\x01\x02"),
            (half, b"\x01\x02"),
            (endless, b"\x01\x02"),
            (offered, b"R"),
        ] {
            let node = node(rest);
            for _ in 0..2 {
                let got = node.raw_block(hash).await;
                assert_eq!(got.as_deref(), Ok(block), "{rest}");
            }
        }
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
