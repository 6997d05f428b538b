//! Wallets whose scripts were used before they were watched, far beyond each other.

use satwatch::history::Audit;
use satwatch::tracker::Keychain;

use super::inside::{Inside, address, wallet};
use crate::common::Node;

#[test]
fn a_wallet_with_uses_far_beyond_its_first_scripts_is_found_whole() {
    let node = Node::start();
    let text = wallet(&node, "wpkh(");
    for index in [0, 5, 1500, 40_000] {
        node.pay(&address(&text, 0, index), 10_000 + i64::from(index));
    }
    node.pay(&address(&text, 1, 3), 700_000);
    node.mine(1);
    let inside = Inside::start(&node);
    let descriptor = inside.add(&text);
    let row = inside.wait_whole(&descriptor);
    assert_eq!(row.utxo_count, 5);
    assert_eq!(row.balance.confirmed, 4 * 10_000 + 41_505 + 700_000);
    let last = |keychain| row.keychain(keychain).and_then(|it| it.last_used);
    assert_eq!(
        (last(Keychain::External), last(Keychain::Internal)),
        (Some(40_000), Some(3))
    );
    // What is paid later, as far again as the lookahead, is heard of at once.
    node.pay(&address(&text, 0, 41_000), 5_000);
    node.mine(1);
    crate::common::wait_until("the payment", || {
        let row = inside.row(&descriptor);
        (row.utxo_count == 6).then_some(())
    });

    let audited = inside.audit(Audit::Descriptor(descriptor));
    assert_eq!((audited.ours.len(), audited.theirs.len()), (6, 6));
    let mut ours: Vec<_> = audited
        .ours
        .iter()
        .map(|(at, row)| (*at, row.value))
        .collect();
    let theirs = audited.theirs.iter();
    let mut theirs: Vec<_> = theirs.map(|it| (it.outpoint, it.value.to_sat())).collect();
    ours.sort_unstable();
    theirs.sort_unstable();
    assert_eq!(ours, theirs);
}

#[test]
fn a_descriptor_without_wildcard_has_one_script_and_its_past() {
    let node = Node::start();
    let text = wallet(&node, "tr(").replace("/<0;1>/*", "/0/7");
    node.pay(&address(&text, 0, 0), 12_345);
    node.mine(1);
    let inside = Inside::start(&node);
    let descriptor = inside.add(&text);
    let row = inside.wait_whole(&descriptor);
    assert_eq!(
        (row.balance.confirmed, row.keychains[0].derived),
        (12_345, 1)
    );
}
