//! Transactions and blocks as the node gives them, read in place: what concerns no watched script
//! never becomes an object. Live traffic, blocks and history scans all go through [`walk`].

use std::borrow::Cow;
use std::ops::ControlFlow;

use bitcoin::block::Header;
use bitcoin::consensus::encode;
use bitcoin::hashes::{Hash, HashEngine};
use bitcoin::{Block, BlockHash, OutPoint, Transaction, Txid};
use bitcoin_slices::{Parse, Visit, Visitor, bsl};
use bytes::Bytes;

use super::fingerprints::{Fingerprints, TxFingerprints};

/// No block has room for a larger transaction.
const LARGEST: usize = 4_000_000;

/// A part of a transaction, in the order of its bytes.
pub enum TxPart<'a> {
    Input(&'a bsl::TxIn<'a>),
    /// With its number.
    Output(u32, &'a bsl::TxOut<'a>),
}

struct PartVisitor<F>(F);

impl<F: FnMut(TxPart)> Visitor for PartVisitor<F> {
    fn visit_tx_in(&mut self, _: usize, input: &bsl::TxIn) -> ControlFlow<()> {
        (self.0)(TxPart::Input(input));
        ControlFlow::Continue(())
    }

    fn visit_tx_out(&mut self, vout: usize, output: &bsl::TxOut) -> ControlFlow<()> {
        let vout = u32::try_from(vout).unwrap_or(u32::MAX);
        (self.0)(TxPart::Output(vout, output));
        ControlFlow::Continue(())
    }
}

/// Takes one transaction from the front of `bytes`; `None` where [`encode::deserialize`] finds none
/// either. `each` may have seen parts of it then.
pub fn walk<'b>(bytes: &mut &'b [u8], each: impl FnMut(TxPart)) -> Option<bsl::Transaction<'b>> {
    let walked = bsl::Transaction::visit(bytes, &mut PartVisitor(each)).ok()?;
    *bytes = walked.remaining();
    Some(walked.parsed_owned())
}

/// How many transactions a block says that it has, and their bytes.
pub fn body(block: &[u8]) -> Option<(u32, &[u8])> {
    let (after_header, mut consumed) = (block.get(80..)?, 0);
    let count = bsl::scan_len(after_header, &mut consumed).ok()?;
    Some((u32::try_from(count).ok()?, after_header.get(consumed..)?))
}

pub fn txid(tx: &bsl::Transaction) -> Txid {
    let mut engine = Txid::engine();
    let (version, parts, lock_time) = tx.txid_preimage();
    for bytes in [version, parts, lock_time] {
        engine.input(bytes);
    }
    Txid::from_engine(engine)
}

/// Of bytes that were walked.
pub fn object(tx: &[u8]) -> Option<Transaction> {
    encode::deserialize(tx).ok()
}

/// Any 36 bytes are one.
pub fn outpoint(raw: &bsl::OutPoint) -> OutPoint {
    encode::deserialize(raw.as_ref()).unwrap_or_default()
}

/// How many inputs a transaction says that it has, and the bytes from the first one on.
fn inputs(tx: &[u8]) -> (u64, &[u8]) {
    let after_version = tx.get(4..).unwrap_or_default();
    // What marks a witness; no transaction has 0 inputs without one.
    let inputs = after_version.strip_prefix(&[0, 1]).unwrap_or(after_version);
    let mut consumed = 0;
    let count = bsl::scan_len(inputs, &mut consumed).unwrap_or(0);
    (count, inputs.get(consumed..).unwrap_or_default())
}

/// Takes a transaction from the front of `bytes` like [`walk`], with its fingerprints.
fn take<'b>(
    bytes: &mut &'b [u8],
    fingerprints: &Fingerprints,
) -> Option<(bsl::Transaction<'b>, TxFingerprints)> {
    // Most have at most two outputs.
    let room = inputs(bytes).0.min(1000) as usize + 2;
    let (mut all, mut spends, mut signals) = (Vec::with_capacity(room), 0, false);
    let tx = walk(bytes, |part| match part {
        TxPart::Input(input) => {
            spends += 1;
            signals |= input.sequence() < 0xffff_fffe;
            all.push(fingerprints.of(input.prevout().as_ref()));
        }
        TxPart::Output(_, output) => all.push(fingerprints.of(output.script_pubkey())),
    })?;
    let signals = signals || tx.version() == 3;
    Some((tx, TxFingerprints::new(all, spends, signals)))
}

/// The bytes of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawTx {
    bytes: Vec<u8>,
    txid: Txid,
}

impl RawTx {
    /// `None` if the bytes are anything else.
    pub fn parse(bytes: Vec<u8>) -> Option<Self> {
        let mut rest = &bytes[..];
        let tx = walk(&mut rest, |_| {}).filter(|_| bytes.len() <= LARGEST)?;
        let txid = rest.is_empty().then(|| txid(&tx))?;
        Some(Self { bytes, txid })
    }

    pub fn txid(&self) -> Txid {
        self.txid
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn is_coinbase(&self) -> bool {
        let (count, first) = inputs(&self.bytes);
        let null = first.strip_prefix(&[0; 32]);
        count == 1 && null.is_some_and(|rest| rest.starts_with(&[0xff; 4]))
    }

    /// The transactions that it spends from, maybe more than once.
    pub fn parents(&self) -> impl Iterator<Item = Txid> {
        let (count, mut rest) = inputs(&self.bytes);
        (0..count).map_while(move |_| {
            let input = bsl::TxIn::parse(rest).ok()?;
            rest = input.remaining();
            Txid::from_slice(input.parsed().prevout().txid()).ok()
        })
    }

    pub(super) fn fingerprints(&self, fingerprints: &Fingerprints) -> TxFingerprints {
        let taken = take(&mut &self.bytes[..], fingerprints);
        taken.expect("the bytes are a transaction").1
    }
}

impl From<&Transaction> for RawTx {
    fn from(tx: &Transaction) -> Self {
        Self {
            bytes: encode::serialize(tx),
            txid: tx.compute_txid(),
        }
    }
}

/// The bytes of one block. Only its header is known to be one.
#[derive(Debug, Clone)]
pub struct RawBlock {
    bytes: Bytes,
    header: Header,
    hash: BlockHash,
    /// Once they were asked for by [`RawBlock::with_txids`].
    txids: Option<Vec<Txid>>,
}

impl PartialEq for RawBlock {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for RawBlock {}

/// A transaction of a block.
pub(super) struct BlockTx<'b> {
    pub tx: bsl::Transaction<'b>,
    pub txid: Txid,
    pub prints: TxFingerprints,
}

impl RawBlock {
    /// `None` if the bytes do not begin with a header.
    pub fn parse(bytes: Bytes) -> Option<Self> {
        let header: Header = encode::deserialize(bytes.get(..80)?).ok()?;
        let hash = header.block_hash();
        Some(Self {
            bytes,
            header,
            hash,
            txids: None,
        })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    pub fn hash(&self) -> BlockHash {
        self.hash
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Hashes the block now, which is most of what it costs to connect it.
    pub fn with_txids(mut self) -> Self {
        self.txids = self.read_txids();
        self
    }

    /// `None` if the bytes are no whole block, or not the one that the header commits to.
    pub fn txids(&self) -> Option<Cow<'_, [Txid]>> {
        match &self.txids {
            Some(txids) => Some(Cow::Borrowed(txids)),
            None => self.read_txids().map(Cow::Owned),
        }
    }

    fn read_txids(&self) -> Option<Vec<Txid>> {
        let (count, mut rest) = body(&self.bytes)?;
        let mut txids = Vec::new();
        for _ in 0..count {
            txids.push(txid(&walk(&mut rest, |_| {})?));
        }
        // Transactions that are doubled at the end leave the root as it is (CVE-2012-2459).
        let (last, others) = txids.split_last()?;
        if others.contains(last) {
            return None;
        }
        let hashes = txids.iter().map(|txid| txid.to_raw_hash());
        let root = bitcoin::merkle_tree::calculate_root(hashes);
        (rest.is_empty() && root == Some(self.header.merkle_root.to_raw_hash())).then_some(txids)
    }

    /// `None` as with [`RawBlock::txids`].
    pub(super) fn transactions(&self, fingerprints: &Fingerprints) -> Option<Vec<BlockTx<'_>>> {
        let (txids, (_, mut rest)) = (self.txids()?, body(&self.bytes)?);
        let txs = txids.iter().map(|txid| {
            let (tx, prints) = take(&mut rest, fingerprints)?;
            let txid = *txid;
            Some(BlockTx { tx, txid, prints })
        });
        txs.collect()
    }
}

impl From<&Block> for RawBlock {
    fn from(block: &Block) -> Self {
        Self {
            bytes: encode::serialize(block).into(),
            header: block.header,
            hash: block.block_hash(),
            txids: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::absolute::LockTime;
    use bitcoin::hashes::Hash;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, CompactTarget, ScriptBuf, Sequence, TxIn, TxMerkleNode, TxOut, Witness};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::super::rows::signals_replacement;
    use super::*;

    fn script(length: usize) -> impl Strategy<Value = ScriptBuf> {
        vec(any::<u8>(), 0..length).prop_map(ScriptBuf::from_bytes)
    }

    fn transaction() -> impl Strategy<Value = Transaction> {
        let outpoint = prop_oneof![
            Just(OutPoint::null()),
            (any::<[u8; 32]>(), 0_u32..3)
                .prop_map(|(txid, vout)| OutPoint::new(Txid::from_byte_array(txid), vout)),
        ];
        let sequence = prop_oneof![0xffff_fffc_u32..=0xffff_ffff, any::<u32>()];
        let witness = vec(vec(any::<u8>(), 0..4), 0..3);
        let input = (outpoint, script(20), sequence, witness).prop_map(
            |(previous_output, script_sig, sequence, witness)| TxIn {
                previous_output,
                script_sig,
                sequence: Sequence(sequence),
                witness: Witness::from_slice(&witness),
            },
        );
        let output = (any::<u64>(), script(300)).prop_map(|(value, script_pubkey)| TxOut {
            value: Amount::from_sat(value),
            script_pubkey,
        });
        (1_i32..4, vec(input, 0..4), vec(output, 0..4)).prop_map(|(version, input, output)| {
            Transaction {
                version: Version(version),
                lock_time: LockTime::ZERO,
                input,
                output,
            }
        })
    }

    fn block(txdata: Vec<Transaction>) -> Block {
        let header = Header {
            version: bitcoin::block::Version::TWO,
            prev_blockhash: BlockHash::all_zeros(),
            merkle_root: TxMerkleNode::all_zeros(),
            time: 9,
            bits: CompactTarget::from_consensus(0),
            nonce: 0,
        };
        let mut block = Block { header, txdata };
        if let Some(root) = block.compute_merkle_root() {
            block.header.merkle_root = root;
        }
        block
    }

    /// Bytes put in place of others.
    fn damage() -> impl Strategy<Value = Vec<(Index, usize, Vec<u8>)>> {
        let bytes = prop_oneof![
            vec(any::<u8>(), 0..4),
            vec(prop::sample::select(vec![0, 1, 2, 0xfd, 0xfe, 0xff]), 0..9)
        ];
        vec((any::<Index>(), 0_usize..4, bytes), 0..3)
    }

    fn damaged(mut bytes: Vec<u8>, damage: Vec<(Index, usize, Vec<u8>)>) -> Vec<u8> {
        for (at, gone, new) in damage {
            let at = at.index(bytes.len() + 1);
            let end = (at + gone).min(bytes.len());
            bytes.splice(at..end, new);
        }
        bytes
    }

    fn is_doubled(block: &Block) -> bool {
        let last = block.txdata.split_last();
        last.is_some_and(|(last, others)| others.contains(last))
    }

    #[test]
    fn transactions_that_are_doubled_at_the_end_are_not_of_the_block() {
        let tx = |n| Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(n),
            input: vec![TxIn::default()],
            output: Vec::new(),
        };
        let key = Fingerprints::new(&[7; 16]);
        let mut block = block(vec![tx(1), tx(2), tx(3)]);
        assert!(RawBlock::from(&block).transactions(&key).is_some());
        block.txdata.push(tx(3));
        assert!(block.check_merkle_root(), "the header does not tell");
        assert!(RawBlock::from(&block).transactions(&key).is_none());
    }

    #[test]
    fn a_transaction_that_no_block_has_room_for_is_refused() {
        let tx = |length| Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn::default()],
            output: vec![TxOut {
                value: Amount::ZERO,
                script_pubkey: ScriptBuf::from_bytes(vec![0; length]),
            }],
        };
        let rest = tx(LARGEST / 2).total_size() - LARGEST / 2;
        let parse = |size| RawTx::parse(encode::serialize(&tx(size - rest)));
        assert!(parse(LARGEST).is_some());
        assert!(parse(LARGEST + 1).is_none());
    }

    proptest! {
        #[test]
        fn what_is_read_in_place_is_what_the_object_says(tx in transaction()) {
            let raw = RawTx::parse(encode::serialize(&tx)).unwrap();
            prop_assert_eq!(&raw, &RawTx::from(&tx));
            prop_assert_eq!(object(raw.bytes()), Some(tx.clone()));
            prop_assert_eq!(raw.is_coinbase(), tx.is_coinbase());
            let spends = || tx.input.iter().map(|input| input.previous_output);
            prop_assert_eq!(raw.parents().collect::<Vec<_>>(), spends().map(|it| it.txid).collect::<Vec<_>>());
            let key = Fingerprints::new(&[7; 16]);
            let prints = raw.fingerprints(&key);
            prop_assert_eq!(prints.spends(), spends().map(|it| key.outpoint(&it)).collect::<Vec<_>>());
            let pays = tx.output.iter().map(|output| key.script(&output.script_pubkey));
            prop_assert_eq!(prints.pays(), pays.collect::<Vec<_>>());
            prop_assert_eq!(prints.signals, signals_replacement(&tx));
        }

        #[test]
        fn bytes_that_are_no_transaction_are_refused(tx in transaction(), damage in damage()) {
            let bytes = damaged(encode::serialize(&tx), damage);
            let object: Option<Transaction> = encode::deserialize(&bytes).ok();
            let raw = RawTx::parse(bytes);
            prop_assert_eq!(&raw, &object.as_ref().map(RawTx::from));
        }

        #[test]
        fn bytes_that_are_not_the_block_of_their_header_are_refused(
            txdata in vec(transaction(), 0..4),
            damage in damage(),
        ) {
            let bytes = damaged(encode::serialize(&block(txdata)), damage);
            let object: Option<Block> = encode::deserialize(&bytes).ok();
            let raw = RawBlock::parse(bytes.into());
            let key = Fingerprints::new(&[7; 16]);
            let read = raw.as_ref().and_then(|raw| raw.transactions(&key));
            let whole = object.filter(|block| block.check_merkle_root() && !is_doubled(block));
            prop_assert_eq!(
                read.map(|txs| txs.iter().map(|it| (it.txid, super::object(it.tx.as_ref()))).collect()),
                whole.as_ref().map(|block| {
                    let txs = block.txdata.iter();
                    txs.map(|tx| (tx.compute_txid(), Some(tx.clone()))).collect::<Vec<_>>()
                })
            );
            if let Some(block) = whole {
                prop_assert_eq!(raw, Some(RawBlock::from(&block)));
            }
        }
    }
}
