//! Wallets whose scripts were used before they were watched, far beyond each other.

use satwatch::history::Audit;
use satwatch::tracker::{DescriptorRow, Keychain};

use super::inside::{Inside, address, wallet};
use crate::common::Node;

#[test]
fn a_wallet_with_uses_far_beyond_its_first_scripts_is_found_whole() {
    let node = Node::start();
    let text = wallet(&node, "wpkh(");
    let pay = |index: u32| node.pay(&address(&text, 0, index), 10_000 + i64::from(index));
    for index in [0, 5, 1500] {
        pay(index);
    }
    node.pay(&address(&text, 1, 3), 700_000);
    node.mine(1);
    let inside = Inside::start(&node);
    let descriptor = inside.add(&text);
    let row = inside.wait_whole(&descriptor);
    assert_eq!(row.utxo_count, 4);
    assert_eq!(row.balance.confirmed, 3 * 10_000 + 1505 + 700_000);
    let last = |row: &DescriptorRow, keychain| row.keychain(keychain).and_then(|it| it.last_used);
    assert_eq!(
        (
            last(&row, Keychain::External),
            last(&row, Keychain::Internal)
        ),
        (Some(1500), Some(3))
    );
    // Nobody hears of these: they are further than the lookahead, and than the scan for the scripts
    // that follow from the first of them.
    pay(3900);
    pay(6000);
    node.mine(1);
    // What is paid as far as the lookahead is heard of at once, and leads to the others.
    pay(2500);
    node.mine(1);
    crate::common::wait_until("the payments", || {
        let row = inside.row(&descriptor);
        (row.utxo_count == 7).then_some(())
    });
    let row = inside.wait_whole(&descriptor);
    assert_eq!(last(&row, Keychain::External), Some(6000));

    let audited = inside.audit(Audit::Descriptor(descriptor));
    assert_eq!((audited.ours.len(), audited.theirs.len()), (7, 7));
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
