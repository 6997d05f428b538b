//! Messages of the node's ZMQ feed, and what is in them.

use bitcoin::consensus::encode;
use bitcoin::{Block, Transaction};
use bytes::Bytes;
use satwatch::bitcoind::zmq::internals::{Order, SequenceCounter, parse};
use satwatch::bitcoind::zmq::{MessageBody, Sequence, SequenceEvent, ZmqMessage};
use satwatch::tracker::{RawBlock, RawTx};

/// Frames, each behind a byte that says its length; one of 255 is all the rest. Exactly those that
/// the node would send are a message.
pub fn zmq(data: &[u8]) {
    let frames = frames(data);
    let message = parse(frames.clone());
    assert_eq!(message.is_some(), is_message(&frames), "{frames:?}");
    let Some(message) = message else {
        return;
    };
    assert_eq!(written(&message), frames);
    count(message.number);
    match message.body {
        MessageBody::Tx(bytes) => transaction(bytes),
        MessageBody::Block(bytes) => block(bytes),
        MessageBody::Sequence(_) => {}
    }
}

fn frames(data: &[u8]) -> Vec<Vec<u8>> {
    let (mut frames, mut rest) = (Vec::new(), data);
    while let Some((length, behind)) = rest.split_first() {
        let length = match length {
            255 => behind.len(),
            length => usize::from(*length).min(behind.len()),
        };
        let (frame, behind) = behind.split_at(length);
        frames.push(frame.to_vec());
        rest = behind;
    }
    frames
}

fn is_message(frames: &[Vec<u8>]) -> bool {
    let [topic, body, number] = frames else {
        return false;
    };
    let is_body = match topic.as_slice() {
        b"rawtx" | b"rawblock" => true,
        b"sequence" => match body.get(32) {
            Some(b'C' | b'D') => body.len() == 33,
            Some(b'A' | b'R') => body.len() == 41,
            _ => false,
        },
        _ => false,
    };
    is_body && number.len() == 4
}

fn written(message: &ZmqMessage) -> Vec<Vec<u8>> {
    let body = match &message.body {
        MessageBody::Tx(bytes) | MessageBody::Block(bytes) => bytes.clone(),
        MessageBody::Sequence(Sequence { hash, what }) => {
            let (label, number) = match what {
                SequenceEvent::BlockConnected => (b'C', None),
                SequenceEvent::BlockDisconnected => (b'D', None),
                SequenceEvent::Accepted(number) => (b'A', Some(number)),
                SequenceEvent::Removed(number) => (b'R', Some(number)),
            };
            let mut body: Vec<u8> = hash.iter().rev().copied().collect();
            body.push(label);
            body.extend(number.iter().flat_map(|number| number.to_le_bytes()));
            body
        }
    };
    let number = message.number.to_le_bytes().to_vec();
    vec![message.topic.name().as_bytes().to_vec(), body, number]
}

/// The next number follows, whatever the one before it was; the same one again does not.
fn count(number: u32) {
    let mut counter = SequenceCounter::default();
    let told = [number, number.wrapping_add(1), number.wrapping_add(1)];
    let told = told.map(|number| counter.observe(number));
    assert_eq!(told, [Order::Next, Order::Next, Order::Restarted]);
}

/// Read in place, a transaction is what it is for the library that makes an object of it.
fn transaction(bytes: Vec<u8>) {
    let object: Option<Transaction> = encode::deserialize(&bytes).ok();
    let raw = RawTx::parse(bytes);
    let known = (
        raw.as_ref().map(RawTx::txid),
        object.as_ref().map(Transaction::compute_txid),
    );
    assert_eq!(known.0, known.1);
    if let (Some(raw), Some(object)) = (raw, object) {
        let parents = object.input.iter().map(|input| input.previous_output.txid);
        assert!(raw.parents().eq(parents));
        assert_eq!(raw.is_coinbase(), object.is_coinbase());
        assert_eq!(raw, RawTx::from(&object));
    }
}

/// What is taken for a whole block is one, with the transactions that its header commits to.
fn block(bytes: Vec<u8>) {
    let Some(raw) = RawBlock::parse(Bytes::from(bytes)) else {
        return;
    };
    let Some(txids) = raw.txids() else {
        return;
    };
    let block: Block = encode::deserialize(raw.bytes()).expect("a whole block");
    assert_eq!(
        (raw.hash(), raw.header()),
        (block.block_hash(), &block.header)
    );
    assert!(block.check_merkle_root());
    assert!(
        block
            .txdata
            .iter()
            .map(Transaction::compute_txid)
            .eq(txids.iter().copied())
    );
}
