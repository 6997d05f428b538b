use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::consensus::encode::serialize;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, ScriptBuf, Sequence, TxIn, TxMerkleNode, TxOut, Txid,
    VarInt, Witness, transaction,
};
use proptest::prelude::*;

use super::*;

fn spk(n: u8) -> ScriptBuf {
    ScriptBuf::from_bytes([&[0, 20][..], &[n; 20]].concat())
}

/// `n` keeps transactions with the same inputs and outputs apart.
fn tx(n: u32, spends: &[OutPoint], pays: &[u8]) -> Transaction {
    let input = |outpoint: &OutPoint| TxIn {
        previous_output: *outpoint,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::from_slice(&[[7; 64]]),
    };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::from_consensus(n),
        input: spends.iter().map(input).collect(),
        output: pays
            .iter()
            .map(|n| TxOut {
                value: Amount::from_sat(1),
                script_pubkey: spk(*n),
            })
            .collect(),
    }
}

fn block(mut txs: Vec<Transaction>) -> Vec<u8> {
    txs.insert(0, tx(0, &[OutPoint::null()], &[200]));
    let header = Header {
        version: Version::TWO,
        prev_blockhash: BlockHash::all_zeros(),
        merkle_root: TxMerkleNode::all_zeros(),
        time: 9,
        bits: CompactTarget::from_consensus(0),
        nonce: 0,
    };
    serialize(&Block {
        header,
        txdata: txs,
    })
}

fn of(tx: &Transaction, vout: u32) -> OutPoint {
    OutPoint {
        txid: tx.compute_txid(),
        vout,
    }
}

fn foreign(n: u8) -> OutPoint {
    OutPoint {
        txid: Txid::from_byte_array([n; 32]),
        vout: 0,
    }
}

fn matcher(watched: &[u8]) -> BlockMatcher {
    let mut matcher = BlockMatcher::new(&[3; 16]);
    watched.iter().for_each(|n| matcher.watch(&spk(*n)));
    matcher
}

fn positions(hits: &[Hit]) -> Vec<u32> {
    hits.iter().map(|hit| hit.position).collect()
}

/// As the node tells what a block spends; the coinbase's list is empty.
fn spent(lists: &[&[u8]]) -> Vec<u8> {
    let mut raw = serialize(&VarInt(lists.len() as u64 + 1));
    raw.push(0);
    for list in lists {
        raw.extend(serialize(&VarInt(list.len() as u64)));
        list.iter().for_each(|n| {
            raw.extend(serialize(&TxOut {
                value: Amount::from_sat(5),
                script_pubkey: spk(*n),
            }))
        });
    }
    raw
}

#[test]
fn payments_and_later_spends_are_found_and_nothing_else() {
    let pays = tx(1, &[foreign(1)], &[50, 1, 51]);
    let mut matcher = matcher(&[1]);
    let hits = matcher
        .scan(
            &block(vec![tx(2, &[foreign(2)], &[60]), pays.clone()]),
            None,
        )
        .unwrap();
    assert_eq!((positions(&hits), &hits[0].tx), (vec![2], &pays));
    let other_output = tx(3, &[of(&pays, 0)], &[61]);
    let spends = tx(4, &[foreign(3), of(&pays, 1)], &[62]);
    assert_eq!(
        positions(
            &matcher
                .scan(&block(vec![other_output, spends]), None)
                .unwrap()
        ),
        [2]
    );
    assert!(matcher.outpoints.is_empty());
}

#[test]
fn an_output_that_is_spent_in_its_own_block_is_found_twice() {
    let pays = tx(1, &[foreign(1)], &[1]);
    let spends = tx(2, &[of(&pays, 0)], &[1]);
    let again = tx(3, &[of(&spends, 0)], &[70]);
    let mut matcher = matcher(&[1]);
    assert_eq!(
        positions(
            &matcher
                .scan(&block(vec![pays, spends, again]), None)
                .unwrap()
        ),
        [1, 2, 3]
    );
    assert!(matcher.outpoints.is_empty());
}

#[test]
fn a_coinbase_that_pays_is_found() {
    assert_eq!(
        positions(&matcher(&[200]).scan(&block(vec![]), None).unwrap()),
        [0]
    );
}

#[test]
fn an_output_from_before_is_known_when_it_was_told() {
    let mut matcher = matcher(&[1]);
    matcher.track_output(&foreign(8));
    let hits = matcher
        .scan(&block(vec![tx(1, &[foreign(8)], &[70])]), None)
        .unwrap();
    assert_eq!(
        (positions(&hits), hits[0].unknown_prevouts.len()),
        (vec![1], 0)
    );
}

#[test]
fn spends_of_outputs_that_were_never_met_are_seen_in_what_the_block_spends() {
    let pays = tx(1, &[foreign(1), foreign(2)], &[1]);
    let spends = tx(2, &[of(&pays, 0), foreign(4)], &[70]);
    let raw = block(vec![pays, spends]);
    let mut matcher = matcher(&[1]);
    let told = matcher.spends(&spent(&[&[80, 1], &[1, 81]])).unwrap();
    assert_eq!(told, [false, true, true, false]);
    let hits = matcher.scan(&raw, Some(&told)).unwrap();
    let unknown_prevouts: Vec<_> = hits
        .iter()
        .map(|hit| hit.unknown_prevouts.clone())
        .collect();
    assert_eq!(
        unknown_prevouts,
        [vec![foreign(2)], vec![]],
        "what was created in the scan is no stranger"
    );
}

#[test]
fn what_another_block_spends_is_refused() {
    let mut matcher = matcher(&[1]);
    let told = matcher.spends(&spent(&[&[80]])).unwrap();
    assert_eq!(
        matcher.scan(
            &block(vec![tx(1, &[foreign(1), foreign(2)], &[1])]),
            Some(&told)
        ),
        Err(OTHER)
    );
}

#[test]
fn every_cut_of_a_block_and_of_its_spends_is_refused() {
    let raw = block(vec![
        tx(1, &[foreign(1)], &[1, 2]),
        tx(2, &[foreign(2)], &[1]),
    ]);
    let list = spent(&[&[1], &[2, 1]]);
    for end in 0..raw.len() {
        assert!(matcher(&[1]).scan(&raw[..end], None).is_err(), "{end}");
    }
    for end in 0..list.len() {
        assert!(matcher(&[1]).spends(&list[..end]).is_err(), "{end}");
    }
    assert!(
        matcher(&[1])
            .scan(&[&raw[..], &[0]].concat(), None)
            .is_err()
    );
    assert!(matcher(&[1]).spends(&[&list[..], &[0]].concat()).is_err());
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), at in 0_usize..400, with in any::<[u8; 4]>()) {
        let _ = matcher(&[1]).scan(&bytes, None);
        let _ = matcher(&[1]).spends(&bytes);
        let mut raw = block(vec![tx(1, &[foreign(1)], &[1, 2]), tx(2, &[foreign(2)], &[1])]);
        let at = at % (raw.len() - 4);
        raw[at..at + 4].copy_from_slice(&with);
        let _ = matcher(&[1]).scan(&raw, None);
    }

    /// Chains of random payments between few scripts: the same transactions as by looking at every
    /// output and what each input spends.
    #[test]
    fn equals_a_plain_look_at_every_transaction(
        plan in prop::collection::vec(prop::collection::vec((prop::collection::vec(any::<prop::sample::Index>(), 0..3), prop::collection::vec(0_u8..5, 1..4)), 0..5), 1..6),
        watched in prop::collection::hash_set(0_u8..5, 1..3),
    ) {
        let mut matcher = matcher(&watched.iter().copied().collect::<Vec<_>>());
        let mut unspent: Vec<(OutPoint, u8)> = Vec::new();
        let mut n = 0;
        for txs in plan {
            let (mut made, mut expected) = (Vec::new(), Vec::new());
            for (spends, pays) in txs {
                n += 1;
                let mut ours = pays.iter().any(|n| watched.contains(n));
                let mut inputs = vec![OutPoint { txid: Txid::all_zeros(), vout: n }];
                for index in spends {
                    if !unspent.is_empty() {
                        let (outpoint, n) = unspent.swap_remove(index.index(unspent.len()));
                        ours |= watched.contains(&n);
                        inputs.push(outpoint);
                    }
                }
                let tx = tx(n, &inputs, &pays);
                unspent.extend((0..).zip(&pays).map(|(vout, n)| (of(&tx, vout), *n)));
                made.push(tx);
                if ours {
                    expected.push(made.len() as u32);
                }
            }
            prop_assert_eq!(positions(&matcher.scan(&block(made), None).unwrap()), expected);
        }
    }
}
