//! What a block means for the scripts of open scans, found in its raw bytes; nothing but the finds
//! is made an object. Pure.
//!
//! Outputs are matched against fingerprints of the scripts, inputs against fingerprints of the
//! outputs that such scripts own, which are learned on the way (so a spend inside the block works).
//! A fingerprint may take another script for one of ours once in an age: one transaction too many,
//! which the tracker leaves aside.

use std::collections::HashSet;
use std::ops::ControlFlow;

use bitcoin::consensus::encode;
use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Script, Transaction, Txid};
use bitcoin_slices::{Visit, Visitor, bsl};

use crate::tracker::filter::{BuildIdentity, Filter, Fingerprints};

/// Bytes that are no block, or not what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct MalformedBlock(pub(super) &'static str);

/// A transaction that concerns one of the scripts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) position: u32,
    pub(super) tx: Transaction,
    /// Outputs of our scripts that it spends and whose creation was not met: only the node can say
    /// what they were.
    pub(super) unknown_prevouts: Vec<OutPoint>,
}

/// Which of a block's inputs spend from one of the scripts, numbered through in block order without
/// the coinbase's.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Spends {
    inputs: usize,
    /// Ascending.
    ours: Vec<usize>,
}

pub(super) struct BlockMatcher {
    prints: Fingerprints,
    scripts: HashSet<u64, BuildIdentity>,
    script_prefixes: PrefixBitmap,
    /// Outputs of the scripts that are not spent in a block so far.
    outpoints: Filter,
    outpoint_prefixes: PrefixBitmap,
}

/// Says of nearly everything in no time that it is not ours, by four of its bytes; a fingerprint
/// takes ten times longer. It is small enough to stay near the processor, and lets more and more
/// through above some hundred thousand entries.
struct PrefixBitmap(Box<[u64]>);

impl PrefixBitmap {
    const BITS: usize = 1 << 20;

    fn new() -> Self {
        Self(vec![0; Self::BITS / 64].into_boxed_slice())
    }

    fn place(bytes: [u8; 4]) -> (usize, u64) {
        let bit = u32::from_le_bytes(bytes) as usize % Self::BITS;
        (bit / 64, 1 << (bit % 64))
    }

    fn insert(&mut self, bytes: [u8; 4]) {
        let (at, bit) = Self::place(bytes);
        self.0[at] |= bit;
    }

    fn may_contain(&self, bytes: [u8; 4]) -> bool {
        let (at, bit) = Self::place(bytes);
        self.0[at] & bit != 0
    }
}

/// In all common kinds of scripts these are part of a hash or key.
fn prefix(script: &Script) -> [u8; 4] {
    script
        .as_bytes()
        .get(3..7)
        .and_then(|bytes| bytes.try_into().ok())
        .unwrap_or_default()
}

impl BlockMatcher {
    /// `key` must be random: whoever writes blocks must not be able to prepare collisions.
    pub(super) fn new(key: &[u8; 16]) -> Self {
        let (scripts, script_prefixes) = (HashSet::default(), PrefixBitmap::new());
        Self {
            prints: Fingerprints::new(key),
            scripts,
            script_prefixes,
            outpoints: Filter::default(),
            outpoint_prefixes: PrefixBitmap::new(),
        }
    }

    pub(super) fn watch(&mut self, spk: &Script) {
        self.scripts.insert(self.prints.script(spk));
        self.script_prefixes.insert(prefix(spk));
    }

    /// An output of a script that was created earlier.
    pub(super) fn track_output(&mut self, outpoint: &OutPoint) {
        self.outpoints.insert(self.prints.outpoint(outpoint));
        let [a, b, c, d, ..] = outpoint.txid.to_byte_array();
        self.outpoint_prefixes.insert([a, b, c, d]);
    }

    pub(super) fn watches(&self, spk: &Script) -> bool {
        self.script_prefixes.may_contain(prefix(spk))
            && self.scripts.contains(&self.prints.script(spk))
    }

    /// Which inputs spend from our scripts, from the node's list of the outputs that a block
    /// spends: for each transaction a list.
    pub(super) fn spends(&self, raw: &[u8]) -> Result<Spends, MalformedBlock> {
        let mut consumed = 0;
        let count = bsl::scan_len(raw, &mut consumed).map_err(|_| CUT)?;
        let mut looked = SpentVisitor {
            matcher: self,
            spends: Spends::default(),
        };
        let mut rest = raw.get(consumed..).ok_or(CUT)?;
        for _ in 0..count {
            rest = bsl::TxOuts::visit(rest, &mut looked)
                .map_err(|_| CUT)?
                .remaining();
        }
        if rest.is_empty() {
            Ok(looked.spends)
        } else {
            Err(MalformedBlock(
                "bytes after the list of what a block spends",
            ))
        }
    }

    /// The same from the outputs themselves.
    pub(super) fn spends_of<'a>(&self, spent: impl Iterator<Item = &'a Script>) -> Spends {
        let mut spends = Spends::default();
        for spk in spent {
            spends.add(self.watches(spk));
        }
        spends
    }

    /// What concerns our scripts in the next block. `spends`: what is known of its inputs. After an
    /// error nothing is certain any more.
    pub(super) fn scan(
        &mut self,
        block: &[u8],
        spends: Option<&Spends>,
    ) -> Result<Vec<Hit>, MalformedBlock> {
        let mut look = BlockVisitor {
            matcher: self,
            spends,
            input: 0,
            next_ours: 0,
            tx: TxMatch::default(),
            position: 0,
            hits: Vec::new(),
            error: None,
        };
        let parsed =
            bsl::Block::visit(block, &mut look).map(|parsed| parsed.remaining().is_empty());
        let (inputs, hits, error) = (look.input, look.hits, look.error);
        match (parsed, error) {
            (_, Some(error)) => Err(error),
            (Err(_), None) => Err(MalformedBlock("a block that is cut off or none at all")),
            (Ok(false), None) => Err(MalformedBlock("bytes after a block")),
            (Ok(true), None) if spends.is_some_and(|spends| spends.inputs != inputs) => Err(OTHER),
            (Ok(true), None) => Ok(hits),
        }
    }
}

const CUT: MalformedBlock = MalformedBlock("a list of what a block spends that is cut off");
const OTHER: MalformedBlock = MalformedBlock("a list of what another block spends");

impl Spends {
    fn add(&mut self, ours: bool) {
        if ours {
            self.ours.push(self.inputs);
        }
        self.inputs += 1;
    }
}

struct SpentVisitor<'f> {
    matcher: &'f BlockMatcher,
    spends: Spends,
}

impl Visitor for SpentVisitor<'_> {
    fn visit_tx_out(&mut self, _: usize, output: &bsl::TxOut) -> ControlFlow<()> {
        self.spends.add(
            self.matcher
                .watches(Script::from_bytes(output.script_pubkey())),
        );
        ControlFlow::Continue(())
    }
}

/// What the transaction that is being looked at has shown so far.
#[derive(Default)]
struct TxMatch {
    spends: bool,
    unknown_prevouts: Vec<OutPoint>,
    /// Outputs that pay one of our scripts.
    paid: Vec<u32>,
}

struct BlockVisitor<'f> {
    matcher: &'f mut BlockMatcher,
    spends: Option<&'f Spends>,
    /// Number of the next input, and place in the list of ours that it may be.
    input: usize,
    next_ours: usize,
    tx: TxMatch,
    position: u32,
    hits: Vec<Hit>,
    error: Option<MalformedBlock>,
}

impl BlockVisitor<'_> {
    /// Whether the node's list says that this input spends from one of our scripts.
    fn is_told(&mut self) -> bool {
        let told = self
            .spends
            .is_some_and(|spends| spends.ours.get(self.next_ours) == Some(&self.input));
        self.input += 1;
        self.next_ours += usize::from(told);
        told
    }

    fn hit(&mut self, raw: &[u8], look: TxMatch) -> Result<(), MalformedBlock> {
        let tx: Transaction =
            encode::deserialize(raw).map_err(|_| MalformedBlock("a transaction that is none"))?;
        if !look.paid.is_empty() {
            let txid = tx.compute_txid();
            for vout in look.paid {
                self.matcher.track_output(&OutPoint { txid, vout });
            }
        }
        self.hits.push(Hit {
            position: self.position,
            tx,
            unknown_prevouts: look.unknown_prevouts,
        });
        Ok(())
    }
}

impl Visitor for BlockVisitor<'_> {
    fn visit_tx_in(&mut self, _: usize, input: &bsl::TxIn) -> ControlFlow<()> {
        if self.position == 0 {
            return ControlFlow::Continue(());
        }
        let told = self.is_told();
        let prefix = input
            .prevout()
            .txid()
            .first_chunk()
            .copied()
            .unwrap_or_default();
        if !told && !self.matcher.outpoint_prefixes.may_contain(prefix) {
            return ControlFlow::Continue(());
        }
        let Some(outpoint) = outpoint(input.prevout()) else {
            return ControlFlow::Break(());
        };
        let print = self.matcher.prints.outpoint(&outpoint);
        let known = self.matcher.outpoints.contains(print);
        if known {
            self.matcher.outpoints.remove(print);
        } else if told {
            self.tx.unknown_prevouts.push(outpoint);
        }
        self.tx.spends |= known || told;
        ControlFlow::Continue(())
    }

    fn visit_tx_out(&mut self, vout: usize, output: &bsl::TxOut) -> ControlFlow<()> {
        if self
            .matcher
            .watches(Script::from_bytes(output.script_pubkey()))
        {
            self.tx.paid.extend(u32::try_from(vout));
        }
        ControlFlow::Continue(())
    }

    fn visit_transaction(&mut self, tx: &bsl::Transaction) -> ControlFlow<()> {
        let look = std::mem::take(&mut self.tx);
        if look.spends || !look.paid.is_empty() {
            self.error = self.hit(tx.as_ref(), look).err();
        }
        self.position = self.position.saturating_add(1);
        if self.error.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

fn outpoint(raw: &bsl::OutPoint) -> Option<OutPoint> {
    let txid = raw.txid().try_into().ok()?;
    Some(OutPoint {
        txid: Txid::from_byte_array(txid),
        vout: raw.vout(),
    })
}

#[cfg(test)]
mod tests;
