//! From a watched script to its address.

use bitcoin::{Address, Network, Script};

/// The address of a watched script.
pub fn text(spk: &Script, network: Network) -> String {
    // Every watched script came from an address; hex is only the answer for a store that another
    // version wrote.
    Address::from_script(spk, network)
        .map_or_else(|_| spk.to_hex_string(), |address| address.to_string())
}
