//! The text of a wallet.

use bitcoin::{Network, base58};
use satwatch::descriptors::WalletDescriptor;

use super::Secrets;

/// An extended public key of mainnet, and one of the test networks.
const XPUB: &str = "xpub6ERApfZwUNrhLCkDtcHTcxd75RbzS1ed54G1LkBUHQVHQKqhMkhgbmJbZRkrgZw4koxb5JaHWkY4ALHY2grBGRjaDMzQLcgJvLJuZZvRcEL";
const TPUB: &str = "tpubDC8msFGeGuwnKG9Upg7DM2b4DaRqg3CUZa5g8v2SRQ6K4NSkxUgd7HsL2XVWbVm39yBA4LAxysQAm397zwQSQoQgewGiYZqrA9DsP4zbQ1M";
/// A single public key.
const PUBLIC: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
const NETWORKS: [Network; 2] = [Network::Bitcoin, Network::Regtest];

/// The first byte says the network; of the others 2 stands for a private key, 3 to 5 for public
/// ones, 6 and 7 for the same extended key under the heads of SLIP-132.
pub fn descriptor(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else {
        return;
    };
    let secrets = Secrets::of(data);
    let slip_132 = |head: [u8; 4]| {
        let key = base58::decode_check(XPUB).expect("it is a key");
        base58::encode_check(&[&head[..], &key[4..]].concat())
    };
    let (zpub, ypub) = (
        slip_132([0x04, 0xb2, 0x47, 0x46]),
        slip_132([0x04, 0x9d, 0x7c, 0xb2]),
    );
    let parts = rest.iter().map(|byte| match byte {
        2 => secrets.key.as_bytes(),
        3 => XPUB.as_bytes(),
        4 => TPUB.as_bytes(),
        5 => PUBLIC.as_bytes(),
        6 => zpub.as_bytes(),
        7 => ypub.as_bytes(),
        _ => std::slice::from_ref(byte),
    });
    let bytes = parts.collect::<Vec<_>>().concat();
    let text = String::from_utf8_lossy(&bytes);
    let network = NETWORKS[usize::from(which % 2)];
    match WalletDescriptor::parse(&text, network) {
        Err(problem) => secrets.check(&problem.to_string()),
        Ok(wallet) => {
            assert!(!rest.contains(&2), "a private key is taken: {text:?}");
            check(&wallet, network);
        }
    }
}

/// What is kept is the same wallet, which has scripts.
fn check(wallet: &WalletDescriptor, network: Network) {
    let again = WalletDescriptor::parse(wallet.text(), network);
    let again = again.expect("what is kept can be read");
    assert_eq!(&again, wallet);
    assert_eq!(again.id(), wallet.id());
    for keychain in 0..wallet.keychains() {
        let scripts = wallet.derive(keychain, 0..2);
        assert_eq!(scripts.len(), if wallet.is_ranged() { 2 } else { 1 });
        let alone = wallet.for_node(keychain).expect("it is there");
        let alone = WalletDescriptor::parse(&alone, network);
        let alone = alone.expect("what the node gets can be read");
        assert_eq!(alone.derive(0, 0..2), scripts);
    }
    assert_eq!(wallet.for_node(wallet.keychains()), None);
}
