//! What the parser takes the node takes, too, with the same addresses; and what the node refuses is
//! refused here.

use bitcoin::{Address, Network};
use satwatch::descriptors::WalletDescriptor;
use serde_json::{Value, json};

use crate::common::Node;

const A: &str = "tpubDEnoLuPdBep9bzw5LoGYpsxUQYheRQ9gcgrJhJEcdKFB9cWQRyYmkCyRoTqeD4tJYiVVgt6A3rN6rWn9RYhR9sBsGxji29LYWHuKKbdb1ev";
const B: &str = "tpubD8kCEZazE4vQhtmRjxmDDXFfyaL6vVX7k3pASqf3xX1J7Rzc5HLVzbtLvsgVDxERNiEJ8dibuSVCN1dxwex371qgPzhkGeMAzKe8T7ivSof";
const C: &str = "tpubD6NzVbkrYhZ4Y1kFvWKvyS8zsTiTAoHTpfeGuJoPPeVrPdbFD4h85ww4kno6n5XeTCjiKcoWmvsGJFiSHXSSsAfLCG818NYZBy4hLRZVLD7";
const POINT: &str = "03a34b99f22c790c4e36b2b3c2c35a36db06226e41c692fc82b8b56ac1c540c5bd";
const LONG_POINT: &str = "04a34b99f22c790c4e36b2b3c2c35a36db06226e41c692fc82b8b56ac1c540c5bd5b8dec5235a0fa8722476c7709c02559e3aa73aa03918ba2d492eea75abea235";

/// Keys stand as $a, $b, $c, $p and $l; hashes as $32 and $20. Without OP_IF in `tr()`, which
/// Bitcoin Knots refuses.
#[rustfmt::skip]
const TAKEN: &[&str] = &[
    "pkh($a)", "pkh($a/*)", "pkh($a/<0;1>/*)", "pkh([73c5da0a/44h/1h/0h]$a/<0;1>/*)", "pkh($p)", "pkh($l)",
    "wpkh($a)", "wpkh($a/*)", "wpkh($a/0/*)", "wpkh($a/<0;1>/*)", "wpkh($a/<1;0>/*)", "wpkh($a/7/8/9/*)",
    "wpkh($a/2147483647/*)", "wpkh([73C5DA0A/84'/1h/0']$a/<0;1>/*)", "wpkh([00000000]$a/*)", "wpkh($p)",
    "wpkh([deadbeef/1/2h/2147483647]$p)", "wpkh($a/+0/007/*)", "wpkh($a/<3;4>/5/*)", "wpkh($a/<0;1>)",
    "sh(wpkh($a/<0;1>/*))", "sh(wpkh($p))", "sh(pk($a/*))", "sh(pkh($a/*))", "sh(pk($l))", "sh(pkh($l))",
    "sh(multi(2,$a/*,$b/*))", "sh(multi(1,$l,$a/*))", "sh(sortedmulti(2,$a/*,$b/*,$c/*))",
    "wsh(pk($a/*))", "wsh(pkh($a/*))", "wsh(c:pk_k($a/*))", "wsh(c:pk_h($a/*))", "wsh(multi(2,$a/<0;1>/*,$b/<0;1>/*))",
    "wsh(sortedmulti(2,$c/<0;1>/*,$b/<0;1>/*,$a/<0;1>/*))", "wsh(multi(1,$a/*,$b/5,$p))", "wsh(sortedmulti(1,$p,$a/*))",
    "sh(wsh(pkh($a/*)))", "sh(wsh(multi(1,$a/*,$b/*)))", "sh(wsh(sortedmulti(2,$a/<0;1>/*,$b/<2;3>/*)))",
    "wsh(and_v(v:pk($a/*),older(144)))", "wsh(and_v(v:pk($a/*),after(1700000000)))", "wsh(and_v(v:pk($a/*),sha256($32)))",
    "wsh(and_v(v:pk($a/*),hash256($32)))", "wsh(and_v(v:pk($a/*),ripemd160($20)))", "wsh(and_v(v:pk($a/*),hash160($20)))",
    "wsh(or_d(pk($a/<0;1>/*),and_v(v:pkh($b/<0;1>/*),older(4383))))", "wsh(or_d(pk($a/<0;1>/*),and_v(v:pk($a/<2;3>/*),older(9))))",
    "wsh(andor(pk($a/*),older(9),pk($b/*)))", "wsh(andor(pk($a/*),pk($b/*),0))", "wsh(and_n(pk($a/*),pk($b/*)))",
    "wsh(or_i(pk($a/*),and_v(v:pk($b/*),older(9))))", "wsh(or_i(0,pk($a/*)))", "wsh(or_i(pk($a/*),0))", "wsh(or_b(pk($a/*),s:pk($b/*)))",
    "wsh(and_b(pk($a/*),s:pk($b/*)))", "wsh(t:or_c(pk($a/*),v:pkh($b/*)))", "wsh(and_v(or_c(pk($a/*),v:older(9)),pk($b/*)))",
    "wsh(thresh(2,pk($a/*),s:pk($b/*),sln:after(500000)))", "sh(wsh(thresh(2,pk($a/*),s:pk($b/*),s:pk($c/*))))", "wsh(and_v(v:multi(1,$a/*,$b/*),older(9)))",
    "tr($a)", "tr($a/*)", "tr($a/<0;1>/*)", "tr([73c5da0a/86h/1h/0h]$a/<0;1>/*)", "tr($p)", "tr($x)", "tr($a/*,pk($b/*))",
    "tr($a/*,pkh($b/*))", "tr($a/<0;1>/*,{pk($b/<0;1>/*),pk($c/<0;1>/*)})", "tr($x,{pk($a/*),{pk($b/*),pk($c/*)}})",
    "tr($x,multi_a(2,$a/*,$b/*,$c/*))", "tr($a/*,and_v(v:pk($b/*),older(9)))", "tr($a/*,and_v(v:multi_a(1,$b/*,$c/*),after(9)))",
    "tr($a/*,and_v(v:pkh($x),older(9)))", "tr($a/*,and_b(pk($b/*),a:pk($c/*)))", "tr($a/0,{pk($a/*),pk($p)})",
];

#[rustfmt::skip]
const REFUSED: &[&str] = &[
    "wsh(c:expr_raw_pkh($20))", "wsh(pkh($x))", "sh(pkh($x))", "sh(wsh(pkh($x)))", "wsh(and_v(v:pkh($x),older(9)))",
    "sh(n:pk($a/*))", "sh(l:pk($a/*))", "sh(u:pkh($a/*))", "sh(tv:pk($a/*))", "sh(and_v(v:pk($a/*),older(9)))",
    "tr($a/*,0)", "tr($a/*,and_v(v:pk($b/*),0))", "wsh(0)", "wsh(and_v(v:pk($a/*),pk($a/*)))", "wsh(and_v(v:pk($a/0),pk($a/*)))",
    "wsh(or_i(pk($a/*),older(9)))", "wpkh($l)", "wsh(pk($l))", "wpkh($a/2147483648)", "wpkh($a/<0;0>/*)", "tr($a,multi(1,$b))",
    "wsh(multi_a(1,$a))", "wsh(and_v(v:pk($a),and_v(v:after(100),after(1700000000))))", "sh(sh(pk($a)))", "wsh(wpkh($a))",
];

fn text(template: &str) -> String {
    let parts = [
        ("$a", A.to_owned()),
        ("$b", B.to_owned()),
        ("$c", C.to_owned()),
        ("$p", POINT.to_owned()),
        ("$x", POINT[2..].to_owned()),
        ("$l", LONG_POINT.to_owned()),
        ("$32", "5c".repeat(32)),
        ("$20", "9c".repeat(20)),
    ];
    let parts = parts.into_iter();
    parts.fold(template.to_owned(), |text, (name, part)| {
        text.replace(name, &part)
    })
}

/// The first three, or the only one.
fn addresses(wallet: &WalletDescriptor, keychain: usize) -> Value {
    let scripts = wallet.derive(keychain, 0..3);
    let address = |script| Address::from_script(script, Network::Regtest).expect("it has one");
    let all = scripts.iter().map(|script| address(script).to_string());
    all.collect::<Vec<_>>().into()
}

/// What the node derives of it, whose checksum it knows.
fn by_node(node: &Node, descriptor: &str) -> Value {
    let known = node.rpc("getdescriptorinfo", json!([descriptor]));
    let checksum = known["checksum"].as_str().expect("a text");
    assert!(
        descriptor.ends_with(&format!("#{checksum}")),
        "{descriptor}"
    );
    match descriptor.contains('*') {
        true => node.rpc("deriveaddresses", json!([descriptor, [0, 2]])),
        false => node.rpc("deriveaddresses", json!([descriptor])),
    }
}

#[test]
fn what_is_taken_has_the_addresses_that_the_node_derives() {
    const KNOWS_MULTIPATHS: i64 = 280_000;
    let node = Node::start();
    let version = node.rpc("getnetworkinfo", json!([]))["version"].as_i64();
    for template in TAKEN {
        let parse = |text: &str| WalletDescriptor::parse(text, Network::Regtest);
        let wallet =
            parse(&text(template)).unwrap_or_else(|problem| panic!("{template}: {problem}"));
        assert_eq!(parse(wallet.text()).as_ref(), Ok(&wallet), "{template}");
        let all: Vec<Value> = (0..wallet.keychains())
            .map(|keychain| {
                let ours = addresses(&wallet, keychain);
                let descriptor = wallet.for_node(keychain).expect("there is this keychain");
                assert_eq!(by_node(&node, &descriptor), ours, "{template}");
                ours
            })
            .collect();
        match &all[..] {
            [only] => assert_eq!(by_node(&node, wallet.text()), *only, "{template}"),
            both if version >= Some(KNOWS_MULTIPATHS) => {
                assert_eq!(by_node(&node, wallet.text()), json!(both), "{template}");
            }
            _ => {}
        }
    }
}

#[test]
fn what_the_node_refuses_is_refused() {
    let node = Node::start();
    for template in REFUSED {
        let text = text(template);
        let by_node = node.try_rpc("getdescriptorinfo", json!([text]));
        assert!(by_node.is_err(), "{template} is taken by the node");
        let ours = WalletDescriptor::parse(&text, Network::Regtest);
        assert!(ours.is_err(), "{template} is taken");
    }
}
