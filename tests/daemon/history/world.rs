//! A random chain of coins that anybody can spend: every address is the hash of a script that needs
//! no signature, so blocks are built here, without a wallet, and as wild as one likes.

use std::collections::HashMap;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode;
use bitcoin::opcodes::all::OP_ADD;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::transaction::Version;
use bitcoin::{
    Address, Amount, Block, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut,
    Witness,
};
use serde_json::{Value, json};

use crate::common::Node;

/// Owners of coins. Those that a test does not watch are strangers.
pub const OWNERS: usize = 96;
/// Confirmations before a coinbase can be spent.
const MATURITY: usize = 100;
const FEE: u64 = 1_000;

/// Random numbers that are the same for the same seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Rng(pub u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }
}

#[derive(Debug, Clone)]
struct Coin {
    outpoint: OutPoint,
    value: u64,
    owner: usize,
    /// First height at which it can be spent.
    ripe: usize,
}

/// A node's chain as the test made it, with the coins that there were at each height.
#[derive(Clone)]
pub struct World {
    pub rng: Rng,
    /// [`Self::live`] takes nothing back up to here.
    pub floor: usize,
    watched: usize,
    owners: HashMap<ScriptBuf, usize>,
    hashes: Vec<String>,
    coins: Vec<Vec<Coin>>,
}

/// Two small numbers whose sum is not 0.
fn redeem(owner: usize) -> ScriptBuf {
    Builder::new()
        .push_int(1 + owner as i64 % 16)
        .push_int(1 + owner as i64 / 16)
        .push_opcode(OP_ADD)
        .into_script()
}

fn is_segwit(owner: usize) -> bool {
    owner.is_multiple_of(2)
}

pub fn script(owner: usize) -> ScriptBuf {
    if is_segwit(owner) {
        redeem(owner).to_p2wsh()
    } else {
        redeem(owner).to_p2sh()
    }
}

pub fn address(owner: usize) -> String {
    Address::from_script(&script(owner), Network::Regtest)
        .expect("a standard script")
        .to_string()
}

fn input(coin: &Coin) -> TxIn {
    let redeem = redeem(coin.owner);
    let mut input = TxIn {
        previous_output: coin.outpoint,
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        ..TxIn::default()
    };
    if is_segwit(coin.owner) {
        input.witness = Witness::from_slice(&[redeem.as_bytes()]);
    } else {
        let push = PushBytesBuf::try_from(redeem.into_bytes()).expect("short");
        input.script_sig = Builder::new().push_slice(push).into_script();
    }
    input
}

impl World {
    /// Begins on a node that has only its first block. The first `watched` owners are those that
    /// matter.
    pub fn begin(node: &Node, seed: u64, watched: usize) -> Self {
        assert_eq!(node.height(), 0);
        let owners = (0..OWNERS).map(|owner| (script(owner), owner)).collect();
        let mut world = Self {
            rng: Rng(seed),
            floor: 110,
            watched,
            owners,
            hashes: vec![node.tip()],
            coins: vec![Vec::new()],
        };
        for _ in 0..11 {
            let owner = world.owner();
            world.mine_to(node, owner, 10);
        }
        world
    }

    pub fn height(&self) -> usize {
        self.hashes.len() - 1
    }

    /// Half of everything concerns somebody who is watched.
    fn owner(&mut self) -> usize {
        if self.rng.one_in(2) {
            self.rng.below(self.watched)
        } else {
            self.watched + self.rng.below(OWNERS - self.watched)
        }
    }

    /// Spends one to three of `coins`, and adds the outputs to them: what comes next may build on
    /// it.
    fn spend(&mut self, coins: &mut Vec<Coin>, height: usize) -> Option<Transaction> {
        let mut spent: Vec<Coin> = Vec::new();
        for _ in 0..=self.rng.below(3) {
            let ripe: Vec<usize> = (0..coins.len())
                .filter(|place| coins[*place].ripe <= height)
                .collect();
            if !ripe.is_empty() {
                spent.push(coins.swap_remove(ripe[self.rng.below(ripe.len())]));
            }
        }
        let mut left = spent
            .iter()
            .map(|coin| coin.value)
            .sum::<u64>()
            .checked_sub(FEE)?;
        let mut owners: Vec<usize> = Vec::new();
        for _ in 0..=self.rng.below(4) {
            // To itself, several times to the same one, to anybody.
            owners.push(match (self.rng.below(6), owners.last()) {
                (0, _) => spent[0].owner,
                (1, Some(again)) => *again,
                _ => self.owner(),
            });
        }
        let mut output = Vec::new();
        for (place, owner) in owners.iter().enumerate() {
            let last = place + 1 == owners.len();
            let value = if last {
                left
            } else {
                left / 8 + self.rng.next() % (left / 4 + 1)
            };
            left -= value;
            output.push(TxOut {
                value: Amount::from_sat(value),
                script_pubkey: script(*owner),
            });
        }
        if output.iter().any(|output| output.value.to_sat() < 2 * FEE) {
            return None;
        }
        let tx = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: spent.iter().map(input).collect(),
            output,
        };
        let txid = tx.compute_txid();
        for ((vout, output), owner) in (0..).zip(&tx.output).zip(owners) {
            coins.push(Coin {
                outpoint: OutPoint { txid, vout },
                value: output.value.to_sat(),
                owner,
                ripe: height,
            });
        }
        Some(tx)
    }

    /// One block of up to `most` random transactions, whatever the mempool holds.
    pub fn block(&mut self, node: &Node, most: usize) {
        let mut coins = self.coins[self.height()].clone();
        let height = self.hashes.len();
        let count = self.rng.below(most + 1);
        let all: Vec<_> = (0..count)
            .filter_map(|_| self.spend(&mut coins, height))
            .map(|tx| encode::serialize_hex(&tx))
            .collect();
        let owner = self.owner();
        let block = node.rpc("generateblock", json!([address(owner), all]));
        self.take(node, text(&block["hash"]));
    }

    /// A block of what the mempool holds.
    pub fn mine(&mut self, node: &Node) {
        let owner = self.owner();
        self.mine_to(node, owner, 1);
    }

    pub fn mine_to(&mut self, node: &Node, owner: usize, blocks: u32) {
        for hash in node.mine_to(&address(owner), blocks) {
            self.take(node, hash);
        }
    }

    /// Blocks to nobody, the first of them with what the mempool holds.
    pub fn idle(&mut self, node: &Node, blocks: u32) {
        let mut hashes = node.mine_to_nobody(blocks).into_iter();
        hashes
            .next()
            .into_iter()
            .for_each(|first| self.take(node, first));
        self.hashes.extend(hashes);
        let coins = self.coins.last().expect("there is a first block").clone();
        self.coins.resize(self.hashes.len(), coins);
    }

    /// A random payment to the mempool; one that conflicts with another or is otherwise refused is
    /// none.
    pub fn pay(&mut self, node: &Node) -> Option<Transaction> {
        let mut coins = self.coins[self.height()].clone();
        let tx = self.spend(&mut coins, self.hashes.len())?;
        node.try_rpc("sendrawtransaction", json!([encode::serialize_hex(&tx), 0]))
            .ok()
            .map(|_| tx)
    }

    /// Takes the last `depth` blocks back.
    pub fn back(&mut self, node: &Node, depth: usize) {
        let height = self.height() - depth;
        node.rpc("invalidateblock", json!([self.hashes[height + 1]]));
        self.hashes.truncate(height + 1);
        self.coins.truncate(height + 1);
        assert_eq!(node.tip(), self.hashes[height]);
    }

    /// Some time of random life, with small reorganizations.
    pub fn live(&mut self, node: &Node, blocks: usize) {
        let goal = self.height() + blocks;
        while self.height() < goal {
            if self.rng.one_in(3) {
                self.pay(node);
            }
            match self.rng.below(16) {
                0 if self.height() >= self.floor + 4 => {
                    let depth = 1 + self.rng.below(4);
                    self.back(node, depth);
                }
                1..4 => self.mine(node),
                _ => self.block(node, 5),
            }
        }
    }

    fn take(&mut self, node: &Node, hash: String) {
        let block: Block = encode::deserialize_hex(&text(&node.rpc("getblock", json!([hash, 0]))))
            .expect("a block");
        let mut coins = self.coins[self.height()].clone();
        let height = self.hashes.len();
        for tx in &block.txdata {
            coins.retain(|coin| {
                tx.input
                    .iter()
                    .all(|input| input.previous_output != coin.outpoint)
            });
            let (txid, ripe) = (
                tx.compute_txid(),
                if tx.is_coinbase() {
                    height + MATURITY
                } else {
                    height
                },
            );
            for (vout, output) in (0..).zip(&tx.output) {
                if let Some(owner) = self.owners.get(&output.script_pubkey) {
                    coins.push(Coin {
                        outpoint: OutPoint { txid, vout },
                        value: output.value.to_sat(),
                        owner: *owner,
                        ripe,
                    });
                }
            }
        }
        self.hashes.push(hash);
        self.coins.push(coins);
    }
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("a text was expected, not {value}"))
        .to_owned()
}
