//! What a block means for the scripts of open scans, found in its raw bytes; nothing but the finds
//! is made an object. Pure.
//!
//! Outputs are matched against fingerprints of the scripts, inputs against fingerprints of the
//! outputs that such scripts own, which are learned on the way (so a spend inside the block works).
//! A fingerprint may take another script for one of ours once in an age: one transaction too many,
//! which the tracker leaves aside.

use std::ops::ControlFlow;

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Script, Transaction};
use bitcoin_slices::{Visit, Visitor, bsl};

use crate::tracker::fingerprints::{FingerprintSet, Fingerprints};
use crate::tracker::raw::{TxPart, body, object, outpoint, txid, walk};

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

pub(super) struct BlockMatcher {
    prints: Fingerprints,
    scripts: FingerprintSet,
    script_prefixes: PrefixBitmap,
    /// Outputs of the scripts that are not spent in a block so far.
    outpoints: FingerprintSet,
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
        Self {
            prints: Fingerprints::new(key),
            scripts: FingerprintSet::default(),
            script_prefixes: PrefixBitmap::new(),
            outpoints: FingerprintSet::default(),
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
            && self.scripts.contains(self.prints.script(spk))
    }

    /// Which of a block's inputs spend from our scripts, in block order without the coinbase's, by
    /// the node's list of the outputs that the block spends: for each transaction a list.
    pub(super) fn spends(&self, raw: &[u8]) -> Result<Vec<bool>, MalformedBlock> {
        let mut consumed = 0;
        let count = bsl::scan_len(raw, &mut consumed).map_err(|_| CUT)?;
        let mut looked = SpentVisitor {
            matcher: self,
            spends: Vec::new(),
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

    /// What concerns our scripts in the next block. `spends`: which of its inputs do, where that is
    /// known ([`Self::spends`]). After an error nothing is certain any more.
    pub(super) fn scan(
        &mut self,
        block: &[u8],
        spends: Option<&[bool]>,
    ) -> Result<Vec<Hit>, MalformedBlock> {
        let (count, mut rest) = body(block).ok_or(DAMAGED)?;
        let (mut inputs, mut hits) = (0, Vec::new());
        for position in 0..count {
            let mut found = TxMatch::default();
            let tx = walk(&mut rest, |part| match part {
                TxPart::Input(_) if position == 0 => {}
                TxPart::Input(input) => {
                    let told = spends.and_then(|spends| spends.get(inputs));
                    inputs += 1;
                    self.spend(input, told == Some(&true), &mut found);
                }
                TxPart::Output(vout, output) => {
                    if self.watches(Script::from_bytes(output.script_pubkey())) {
                        found.paid.push(vout);
                    }
                }
            });
            let tx = tx.ok_or(DAMAGED)?;
            if !found.spends && found.paid.is_empty() {
                continue;
            }
            let txid = txid(&tx);
            for vout in found.paid {
                self.track_output(&OutPoint { txid, vout });
            }
            hits.push(Hit {
                position,
                tx: object(tx.as_ref()).ok_or(DAMAGED)?,
                unknown_prevouts: found.unknown_prevouts,
            });
        }
        match rest.is_empty() {
            true if spends.is_some_and(|spends| spends.len() != inputs) => Err(OTHER),
            true => Ok(hits),
            false => Err(DAMAGED),
        }
    }

    fn spend(&mut self, input: &bsl::TxIn, told: bool, found: &mut TxMatch) {
        let raw = input.prevout();
        let prefix = raw.txid().first_chunk().copied().unwrap_or_default();
        if !told && !self.outpoint_prefixes.may_contain(prefix) {
            return;
        }
        let print = self.prints.of(raw.as_ref());
        let known = self.outpoints.contains(print);
        if known {
            self.outpoints.remove(print);
        } else if told {
            found.unknown_prevouts.push(outpoint(raw));
        }
        found.spends |= known || told;
    }
}

const DAMAGED: MalformedBlock = MalformedBlock("a block that is damaged or none at all");
const CUT: MalformedBlock = MalformedBlock("a list of what a block spends that is cut off");
const OTHER: MalformedBlock = MalformedBlock("a list of what another block spends");

struct SpentVisitor<'f> {
    matcher: &'f BlockMatcher,
    spends: Vec<bool>,
}

impl Visitor for SpentVisitor<'_> {
    fn visit_tx_out(&mut self, _: usize, output: &bsl::TxOut) -> ControlFlow<()> {
        self.spends.push(
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

#[cfg(test)]
mod tests;
