//! Every kind of output script, paid and spent; and the outputs that are nobody's address.

use bitcoin::opcodes::all::{OP_CHECKMULTISIG, OP_CHECKSIG, OP_RETURN};
use bitcoin::script::Builder;
use bitcoin::{
    Address, KnownHrp, Network, PublicKey, ScriptBuf, Transaction, WitnessProgram, WitnessVersion,
};
use serde_json::{Value, json};

use super::stage::{COIN, Kind, Stage, Told, free, out, spend, stranger};
use crate::common;

const FEE: u64 = 1_000;

/// Paid, mined, spent with the owner's signature (or none), mined.
fn paid_and_spent(
    stage: &Stage,
    name: &str,
    told: &Told,
    sign: impl Fn(Transaction) -> Transaction,
) {
    let payment = spend(
        &[stage.coin()],
        &[
            (&stranger(name), COIN - 3_000_000 - FEE),
            (&told.script, 3_000_000),
        ],
    );
    let (paid, spent) = (format!("{name} in"), format!("{name} out"));
    stage.name(&paid, &payment);
    stage.mine(&[&payment]);
    let mut lines = vec![
        format!("new {paid} confirmed +3000000"),
        "balance 0>3000000".to_owned(),
    ];
    is(told, &lines);
    let onward = sign(spend(&[out(&payment, 1)], &[(&stranger(name), 2_000_000)]));
    stage.name(&spent, &onward);
    stage.mine(&[&onward]);
    lines.extend([
        format!("new {spent} confirmed -3000000"),
        "balance 3000000>0".to_owned(),
    ]);
    is(told, &lines);
}

fn is(told: &Told, lines: &[String]) {
    told.is(&lines.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn every_kind_of_address_is_paid_and_spent() {
    let stage = Stage::new(Kind::Pushed);
    let mut all = Vec::new();
    for kind in ["legacy", "p2sh-segwit", "bech32", "bech32m"] {
        let address = stage.node.owner("getnewaddress", json!(["", kind]));
        let told = stage.told(address.as_str().expect("an address"));
        paid_and_spent(&stage, kind, &told, |tx| {
            let mut tx = tx;
            tx.input[0].witness.clear();
            stage.owner_signs(&tx)
        });
        all.push(told);
    }
    let p2wsh = stage.told(&address_of(&free(4).to_p2wsh()));
    paid_and_spent(&stage, "P2WSH", &p2wsh, |mut tx| {
        tx.input[0].witness = bitcoin::Witness::from_slice(&[free(4).as_bytes()]);
        tx
    });
    // Versions without rules yet: whoever mines may spend.
    for version in [WitnessVersion::V2, WitnessVersion::V16] {
        let program = WitnessProgram::new(version, &[7; 32]).expect("32 bytes fit every version");
        let told =
            stage.told(&Address::from_witness_program(program, KnownHrp::Regtest).to_string());
        paid_and_spent(&stage, &format!("{version}"), &told, |mut tx| {
            tx.input[0].witness.clear();
            tx
        });
        all.push(told);
    }
    all.push(p2wsh);
    stage.end(&all);
}

fn address_of(script: &ScriptBuf) -> String {
    Address::from_script(script, Network::Regtest)
        .expect("it has an address")
        .to_string()
}

/// The key of an address in other scripts is not that address.
#[test]
fn bare_keys_bare_multisig_data_and_nothing_leave_an_address_alone() {
    let stage = Stage::new(Kind::Pushed);
    let legacy = stage
        .node
        .owner("getnewaddress", json!(["", "legacy"]))
        .as_str()
        .expect("an address")
        .to_owned();
    let told = stage.told(&legacy);
    let key: PublicKey = stage.node.owner("getaddressinfo", json!([legacy]))["pubkey"]
        .as_str()
        .expect("its key")
        .parse()
        .expect("a key");
    let bare = Builder::new()
        .push_key(&key)
        .push_opcode(OP_CHECKSIG)
        .into_script();
    let multisig = Builder::new()
        .push_int(1)
        .push_key(&key)
        .push_int(1)
        .push_opcode(OP_CHECKMULTISIG)
        .into_script();
    let data = Builder::new()
        .push_opcode(OP_RETURN)
        .push_slice(key.inner.serialize())
        .into_script();
    let odd = [
        (&bare, 1_000_000),
        (&multisig, 1_000_000),
        (&data, 0),
        (&ScriptBuf::new(), 5_000),
        (&stranger("x"), 1_000_000),
    ];
    stage.mine(&[&spend(&[stage.coin()], &odd)]);
    // The address itself among all of that: once for nothing, twice for something.
    let payment = spend(
        &[stage.coin()],
        &[
            &odd[..],
            &[
                (&told.script, 0),
                (&told.script, 700_000),
                (&told.script, 70_000),
            ],
        ]
        .concat(),
    );
    stage.name("payment", &payment);
    stage.mine(&[&payment]);
    told.is(&["new payment confirmed +770000", "balance 0>770000"]);
    let utxos = stage.daemon.get(&format!("/utxos/{legacy}")).json;
    let mut listed: Vec<_> = utxos["utxos"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|utxo| (utxo["output_index"].as_u64(), utxo["value"].as_u64()))
        .collect();
    listed.sort();
    assert_eq!(
        listed,
        [
            (Some(5), Some(0)),
            (Some(6), Some(700_000)),
            (Some(7), Some(70_000))
        ],
        "{utxos}"
    );

    // Nothing but nothing: announced, and no balance changes.
    let nothing = spend(
        &[stage.coin()],
        &[(&told.script, 0), (&stranger("x"), 1_000_000)],
    );
    stage.name("nothing", &nothing);
    stage.mine(&[&nothing]);
    told.is(&[
        "new payment confirmed +770000",
        "balance 0>770000",
        "new nothing confirmed +0",
    ]);
    stage.end(&[told]);
}

#[test]
fn an_address_that_pays_itself_and_spends_inside_a_block_are_told_once() {
    let stage = Stage::new(Kind::Pushed);
    let told = stage.watched();
    let payment = spend(
        &[stage.coin()],
        &[
            (&told.script, 3_000_000),
            (&told.script, 2_000_000),
            (&stranger("y"), COIN - 5_000_000 - FEE),
        ],
    );
    stage.send("payment", &payment);
    let mut lines = vec!["new payment mempool +5000000", "balance 0>5000000"];
    told.is(&lines);
    let itself = stage.owner_signs(&spend(
        &[out(&payment, 0)],
        &[(&told.script, 1_000_000), (&told.script, 2_000_000 - FEE)],
    ));
    stage.send("itself", &itself);
    lines.extend(["new itself mempool -1000", "balance 5000000>4999000"]);
    told.is(&lines);
    stage.mine(&[&payment, &itself]);
    lines.extend(["payment mempool>confirmed", "itself mempool>confirmed"]);
    told.is(&lines);

    // Parent, child and grandchild that were never in a mempool: a watched output lives and dies
    // inside the block.
    let other = stage.told(&address_of(&free(2).to_p2wsh()));
    let parent = spend(
        &[stage.coin()],
        &[
            (&other.script, 4_000_000),
            (&stranger("z"), COIN - 4_000_000 - FEE),
        ],
    );
    let mut child = spend(
        &[out(&parent, 0)],
        &[(&other.script, 3_000_000), (&told.script, 500_000)],
    );
    child.input[0].witness = bitcoin::Witness::from_slice(&[free(2).as_bytes()]);
    let mut grandchild = spend(&[out(&child, 0)], &[(&other.script, 1_000_000)]);
    grandchild.input[0].witness = child.input[0].witness.clone();
    for (name, tx) in [
        ("parent", &parent),
        ("child", &child),
        ("grandchild", &grandchild),
    ] {
        stage.name(name, tx);
    }
    stage.mine(&[&parent, &child, &grandchild]);
    other.is(&[
        "new parent confirmed +4000000, child confirmed -1000000, grandchild confirmed -2000000",
        "balance 0>1000000",
    ]);
    lines.extend(["new child confirmed +500000", "balance 4999000>5499000"]);
    told.is(&lines);
    stage.end(&[told, other]);
}

/// A coinbase counts at once, and may be spent by the block after its hundredth confirmation.
#[test]
fn a_coinbase_is_immature_for_exactly_as_long_as_the_node_says() {
    let stage = Stage::new(Kind::Pushed);
    let (daemon, node) = (&stage.daemon, &stage.node);
    let told = stage.told(&address_of(&free(3).to_p2wsh()));
    let block = node.mine_to(&told.address, 1).remove(0);
    let txid = node.rpc("getblock", json!([block]))["tx"][0]
        .as_str()
        .expect("a coinbase")
        .parse()
        .expect("a txid");
    let mut onward = spend(
        &[bitcoin::OutPoint { txid, vout: 0 }],
        &[(&stranger("w"), COIN)],
    );
    onward.input[0].witness = bitcoin::Witness::from_slice(&[free(3).as_bytes()]);
    let hex = bitcoin::consensus::encode::serialize_hex(&onward);
    let told_by_both = |blocks: u32| -> (Value, Value, bool) {
        node.mine(blocks);
        daemon.wait_tip(node);
        let utxo = daemon.get(&format!("/utxos/{}", told.address)).json["utxos"][0].clone();
        assert_eq!(utxo["coinbase"], true, "{utxo}");
        let allowed = node.rpc("testmempoolaccept", json!([[hex], 0]))[0]["allowed"] == true;
        (
            daemon.balance(&told.address)["immature"].clone(),
            utxo["mature"].clone(),
            allowed,
        )
    };
    let all = 50 * common::COIN;
    assert_eq!(told_by_both(1), (json!(all), json!(false), false));
    assert_eq!(
        told_by_both(97),
        (json!(all), json!(false), false),
        "99 confirmations"
    );
    assert_eq!(
        told_by_both(1),
        (json!(0), json!(true), true),
        "100 confirmations"
    );
    stage.name("coinbase", &coinbase(&stage, &block));
    stage.send("spent", &onward);
    told.is(&[
        "new coinbase confirmed +5000000000",
        "balance 0>5000000000",
        "new spent mempool -5000000000",
        "balance 5000000000>0",
    ]);
    stage.end(&[told]);
}

fn coinbase(stage: &Stage, block: &str) -> Transaction {
    let block = stage.node.rpc("getblock", json!([block, 0]));
    let block: bitcoin::Block =
        bitcoin::consensus::encode::deserialize_hex(block.as_str().expect("hex")).expect("a block");
    block.txdata.into_iter().next().expect("a coinbase")
}
