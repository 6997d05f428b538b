//! Which outputs count: every kind of script that can be watched, and what is left alone.

use bitcoin::hashes::{Hash, hash160};
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::{
    Amount, OutPoint, PubkeyHash, ScriptBuf, ScriptHash as P2sh, Transaction, TxOut, WPubkeyHash,
    WScriptHash, opcodes,
};
use satwatch::tracker::{Balance, Baseline, Coverage, Input, ScriptHash, Seen, WatchRequest};

use crate::shorthand::{coin, out, told, watching};
use crate::world::{World, script, tx};

const KEY: [u8; 33] = [2; 33];

fn key_hash() -> [u8; 20] {
    hash160::Hash::hash(&KEY).to_byte_array()
}

fn witness_program(version: opcodes::Opcode, program: &[u8]) -> ScriptBuf {
    let program = PushBytesBuf::try_from(program.to_vec()).expect("a program is short");
    Builder::new()
        .push_opcode(version)
        .push_slice(program)
        .into_script()
}

/// One of each kind that has an address.
fn with_address() -> Vec<(&'static str, ScriptBuf)> {
    vec![
        (
            "P2PKH",
            ScriptBuf::new_p2pkh(&PubkeyHash::from_byte_array(key_hash())),
        ),
        ("P2SH", ScriptBuf::new_p2sh(&P2sh::from_byte_array([3; 20]))),
        (
            "P2WPKH",
            ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array(key_hash())),
        ),
        (
            "P2WSH",
            ScriptBuf::new_p2wsh(&WScriptHash::from_byte_array([4; 32])),
        ),
        (
            "P2TR",
            witness_program(opcodes::all::OP_PUSHNUM_1, &[5; 32]),
        ),
        (
            "P2A",
            witness_program(opcodes::all::OP_PUSHNUM_1, &[0x4e, 0x73]),
        ),
        (
            "witness version 2",
            witness_program(opcodes::all::OP_PUSHNUM_2, &[6; 32]),
        ),
        (
            "witness version 16",
            witness_program(opcodes::all::OP_PUSHNUM_16, &[7; 40]),
        ),
    ]
}

/// Scripts that name a watched key, or none, but are other scripts.
fn without_address() -> Vec<(&'static str, ScriptBuf)> {
    let key = PushBytesBuf::from(KEY);
    let multisig = Builder::new()
        .push_int(1)
        .push_slice(&key)
        .push_int(1)
        .push_opcode(opcodes::all::OP_CHECKMULTISIG)
        .into_script();
    let bare_key = Builder::new()
        .push_slice(&key)
        .push_opcode(opcodes::all::OP_CHECKSIG)
        .into_script();
    vec![
        ("P2PK", bare_key),
        ("bare multisig", multisig),
        ("empty", ScriptBuf::new()),
        ("OP_RETURN", ScriptBuf::new_op_return(key_hash())),
        ("truncated push", ScriptBuf::from_bytes(vec![0x4c])),
        ("anybody can spend", ScriptBuf::from_bytes(vec![0x51])),
    ]
}

fn paying(from: OutPoint, scripts: &[(&str, ScriptBuf)], value: u64) -> Transaction {
    let mut payment = tx(&[from], &[]);
    let output = |(_, spk): &(&str, ScriptBuf)| TxOut {
        value: Amount::from_sat(value),
        script_pubkey: spk.clone(),
    };
    payment.output = scripts.iter().map(output).collect();
    payment
}

/// A world in which one script of every kind is watched.
fn watching_all() -> World {
    let mut world = World::new();
    let request = |(_, spk): (&str, ScriptBuf)| WatchRequest {
        spk,
        label: None,
        depths: Vec::new(),
        baseline: Baseline::Skip,
    };
    let _ = world.send(Input::Watch {
        scripts: with_address().into_iter().map(request).collect(),
        now: 1,
    });
    world
}

#[test]
fn every_kind_of_address_is_watched_through_mempool_block_and_spend() {
    let mut world = watching_all();
    let payment = paying(coin(&world, 0), &with_address(), 700);
    let _ = world.accept(&payment);
    let balances = |world: &World| -> Vec<Balance> {
        with_address()
            .iter()
            .map(|(_, spk)| world.view.watches[&ScriptHash::of(spk)].balance)
            .collect()
    };
    assert_eq!(
        balances(&world),
        [Balance {
            confirmed: 0,
            unconfirmed: 700
        }; 8]
    );
    let _ = world.mine(9, std::slice::from_ref(&payment));
    assert_eq!(
        balances(&world),
        [Balance {
            confirmed: 700,
            unconfirmed: 0
        }; 8]
    );
    let inputs: Vec<OutPoint> = (0..8).map(|vout| out(&payment, vout)).collect();
    let _ = world.mine(9, &[tx(&inputs, &[(9, 1)])]);
    assert_eq!(balances(&world), [Balance::default(); 8]);
}

#[test]
fn scripts_that_name_a_watched_key_without_being_its_address_are_left_alone() {
    let mut world = watching_all();
    let payment = paying(coin(&world, 0), &without_address(), 700);
    assert_eq!(told(&world.accept(&payment).events), [""; 0]);
    assert_eq!(told(&world.mine(9, &[payment]).events), ["block"]);
    assert!(world.view.outputs.is_empty() && world.view.txs.is_empty());
}

#[test]
fn an_output_of_nothing_is_history_and_an_unspent_output_but_no_balance_change() {
    let mut world = watching();
    let payment = tx(&[coin(&world, 0)], &[(1, 0), (0, 0)]);
    assert_eq!(told(&world.accept(&payment).events), ["new 1"]);
    assert_eq!(
        told(&world.mine(9, std::slice::from_ref(&payment)).events),
        ["mempool>confirmed 1", "block"]
    );
    let row = &world.view.watches[&script(1)];
    assert_eq!(
        (row.balance, row.utxo_count, row.tx_count),
        (Balance::default(), 1, 1)
    );
    let spend = tx(&[out(&payment, 0)], &[(9, 0)]);
    assert_eq!(told(&world.accept(&spend).events), ["new 1"]);
    assert_eq!(world.view.watches[&script(1)].utxo_count, 0);
    world.check();
}

#[test]
fn one_transaction_that_pays_an_address_several_times_and_others_besides_is_one_entry_for_each() {
    let mut world = watching();
    world.watch(2, &[]);
    let payment = tx(
        &[coin(&world, 0)],
        &[(1, 100), (2, 7), (1, 0), (0, 0), (1, 300), (9, 50)],
    );
    assert_eq!(
        told(&world.accept(&payment).events).len(),
        4,
        "a new transaction and a balance for each of two scripts"
    );
    let row = &world.view.txs[&payment.compute_txid()];
    let amounts: Vec<_> = row
        .touches
        .iter()
        .map(|touch| (touch.script, touch.received, touch.sent))
        .collect();
    assert_eq!(amounts, [(script(1), 400, 0), (script(2), 7, 0)]);
    assert_eq!(world.view.watches[&script(1)].utxo_count, 3);
    world.check();
}

#[test]
fn a_transaction_that_pays_the_address_it_spends_from_counts_both_sides() {
    let mut world = watching();
    let payment = tx(&[coin(&world, 0)], &[(1, 700), (1, 50)]);
    let _ = world.mine(9, std::slice::from_ref(&payment));
    let to_self = tx(&[out(&payment, 0), out(&payment, 1)], &[(1, 750)]);
    assert_eq!(
        told(&world.accept(&to_self).events),
        ["new 1"],
        "the balance as a whole did not move"
    );
    assert_eq!(
        world.view.watches[&script(1)].balance,
        Balance {
            confirmed: 750,
            unconfirmed: 0
        }
    );
    let touch = world.view.txs[&to_self.compute_txid()].touches[0];
    assert_eq!((touch.received, touch.sent), (750, 750));
    world.check();
}

#[test]
fn a_coinbase_pays_at_once_and_carries_the_height_that_makes_it_mature() {
    let mut world = watching();
    assert_eq!(
        told(&world.mine(1, &[]).events),
        ["new 1", "balance 0>5000", "block"]
    );
    let coinbase = world.chain[1].txdata[0].clone();
    let row = world.view.outputs[&out(&coinbase, 0)].clone();
    assert_eq!(
        (row.coinbase, row.height, row.value),
        (true, Some(1), 5_000)
    );
    let spend = tx(&[out(&coinbase, 0)], &[(1, 4_000)]);
    let _ = world.mine(9, std::slice::from_ref(&spend));
    assert!(
        !world.view.outputs[&out(&spend, 0)].coinbase,
        "what a coinbase is spent to is not immature"
    );
    world.check();
}

#[test]
fn a_coinbase_that_comes_over_rawtx_is_never_unconfirmed() {
    let mut world = watching();
    let coinbase = world.coinbase(&[(1, 5_000)]);
    for seen in [Seen::Rawtx, Seen::Accepted, Seen::Fetched] {
        let transition = world.send(Input::TxSeen {
            tx: (&coinbase).into(),
            seen,
            now: 1,
        });
        assert!(
            transition.changes.is_empty()
                && transition.events.is_empty()
                && transition.follow_ups.is_empty()
        );
    }
}

#[test]
fn transactions_of_a_block_stand_in_its_order_and_a_spend_inside_it_counts() {
    let mut world = watching();
    let first = tx(&[coin(&world, 0)], &[(1, 700), (1, 40)]);
    let spend = tx(&[out(&first, 0)], &[(1, 600), (9, 90)]);
    let other = tx(&[coin(&world, 1)], &[(1, 5)]);
    let txs = [other.clone(), first.clone(), spend.clone()];
    assert_eq!(
        told(&world.mine(9, &txs).events),
        ["new 3", "balance 0>645", "block"]
    );
    let orders: Vec<u64> = txs
        .iter()
        .map(|tx| world.view.txs[&tx.compute_txid()].order)
        .collect();
    assert_eq!(orders, [(1 << 32) + 1, (1 << 32) + 2, (1 << 32) + 3]);
    assert_eq!(
        world.view.watches[&script(1)].coverage,
        Coverage {
            from_height: 1,
            utxos_complete: true,
            pending: false,
            ..Coverage::default()
        }
    );
    assert_eq!(
        world.view.blocks[&1].touched,
        txs.map(|tx| tx.compute_txid())
    );
    world.check();
}
