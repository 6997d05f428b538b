//! History scans of descriptors, with the node's own wallet as oracle.

use std::collections::BTreeSet;

use satwatch::tracker::{Input, ScanId, ScanState, SubjectId};
use serde_json::json;

use super::inside::{Inside, address, wallet};
use crate::common::{Node, wait_until};

#[test]
fn a_scan_brings_a_wallet_whose_coins_are_all_spent() {
    let node = Node::start();
    let text = wallet(&node, "wpkh(");
    // The node's wallet looks as far.
    node.owner("keypoolrefill", json!([3200]));
    for index in [0, 900, 1700, 2600] {
        node.pay(&address(&text, 0, index), 50_000);
        node.mine(1);
    }
    let nobody = node.payer("getnewaddress", json!([]));
    node.owner("sendall", json!([[nobody]]));
    node.mine(3);
    let inside = Inside::start(&node);
    let descriptor = inside.add(&text);
    let row = inside.wait_whole(&descriptor);
    assert_eq!(
        (row.tx_count, row.balance.confirmed),
        (0, 0),
        "nothing is unspent"
    );

    let scan = ScanId(7);
    inside.apply(Input::OpenDescriptorScan {
        scan,
        descriptor,
        from: 0,
        to: None,
        now: 1,
    });
    wait_until("the end of the scan", || {
        let row = inside.reader.snapshot().scan(&scan).expect("it reads")?;
        (row.state == ScanState::Complete).then_some(())
    });
    let row = inside.row(&descriptor);
    assert_eq!(row.from_height, 0);
    assert_eq!(row.keychains[0].last_used, Some(2600));
    let history =
        inside
            .reader
            .snapshot()
            .history(&SubjectId::Descriptor(descriptor), None, usize::MAX);
    let ours: BTreeSet<String> = history
        .expect("it reads")
        .transactions
        .iter()
        .map(|(txid, _)| txid.to_string())
        .collect();
    let listed = node.owner("listtransactions", json!(["*", 1000]));
    let theirs: BTreeSet<String> = listed
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| it["txid"].as_str().expect("a text").to_owned())
        .collect();
    assert_eq!(ours, theirs);
    assert_eq!(ours.len(), 5);
}
