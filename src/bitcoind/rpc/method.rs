//! The calls that the daemon makes. Nothing else can be called: [`super::Rpc`] takes a [`Method`].

use serde_json::{Value, json};

/// A txid and a block hash that no node has.
const NOWHERE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

macro_rules! methods {
    ($($method:ident $name:literal [$($param:expr),*],)*) => {
        /// Name of a call.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Method {
            $($method,)*
        }

        impl Method {
            pub const ALL: &[Self] = &[$(Self::$method,)*];

            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$method => $name,)*
                }
            }

            /// Parameters with which the call changes nothing and costs little. Whether a node
            /// permits a call depends on its name only.
            pub(super) fn trial(self) -> Value {
                match self {
                    $(Self::$method => json!([$($param),*]),)*
                }
            }
        }
    };
}

methods! {
    BestBlockHash "getbestblockhash" [],
    Block "getblock" [NOWHERE, 0],
    BlockchainInfo "getblockchaininfo" [],
    BlockHash "getblockhash" [0],
    BlockHeader "getblockheader" [NOWHERE],
    IndexInfo "getindexinfo" [],
    MempoolEntry "getmempoolentry" [NOWHERE],
    MempoolInfo "getmempoolinfo" [],
    NetworkInfo "getnetworkinfo" [],
    RawMempool "getrawmempool" [false, true],
    RawTransaction "getrawtransaction" [NOWHERE, false],
    ZmqNotifications "getzmqnotifications" [],
    ScanBlocks "scanblocks" ["status"],
    ScanTxOutSet "scantxoutset" ["status"],
    Uptime "uptime" [],
}

/// The line for `bitcoin.conf` that lets a user make all of them.
pub fn whitelist_line(user: &str) -> String {
    let names: Vec<_> = Method::ALL.iter().map(|method| method.name()).collect();
    format!("rpcwhitelist={user}:{}", names.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_have_the_whole_whitelist_line() {
        let document = include_str!("../../../contrib/docs/running.md");
        let line = whitelist_line("satwatch");
        assert!(document.lines().any(|known| known == line), "{line}");
    }
}
