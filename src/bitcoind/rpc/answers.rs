//! Answers of the node, read with what we need of them.

use bitcoin::{BlockHash, Txid};
use serde::Deserialize;

use crate::tracker::Replacement;

/// `getblockchaininfo`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Blockchain {
    /// `main`, `test`, `testnet4`, `signet` or `regtest`.
    pub chain: String,
    pub blocks: u32,
    #[serde(default)]
    pub headers: u32,
    pub bestblockhash: BlockHash,
    /// In the header of the tip; Core 23 and later say it.
    #[serde(default)]
    pub time: Option<u32>,
    #[serde(default)]
    pub mediantime: Option<u32>,
    /// The node's guess how much of the chain it has, up to 1.
    #[serde(default)]
    pub verificationprogress: Option<f64>,
    #[serde(default)]
    pub initialblockdownload: bool,
    /// On signet, from Core 28 on.
    #[serde(default)]
    pub signet_challenge: Option<String>,
    #[serde(default)]
    pub pruned: bool,
    /// First height whose block is still there, on a pruned node.
    #[serde(default)]
    pub pruneheight: Option<u32>,
}

impl Blockchain {
    /// A chain on which nobody may be mining: regtest, and a signet of one's own. There the node
    /// says for ever that it is in its initial download when its tip is a day old.
    pub fn is_private(&self) -> bool {
        match self.chain.as_str() {
            "regtest" => true,
            "signet" => match &self.signet_challenge {
                Some(challenge) => challenge != PUBLIC_SIGNET,
                // The node knows no rate of transactions of such a chain: it reckons to have all.
                None => self.verificationprogress == Some(1.0),
            },
            _ => false,
        }
    }

    /// When the tip was mined, by its header. Up to an hour less where the node tells the median.
    pub fn tip_time(&self) -> Option<u32> {
        self.time.or(self.mediantime)
    }
}

/// The challenge of the signet that everybody uses.
const PUBLIC_SIGNET: &str = "512103ad5e0edad18cb1f0fc0d28a3d4f1f3e445640337489abb10404f2d1e086be430\
                             210359ef5021964fe22d6f8e05b2463c9540ce96883fe3b278760f048f5189f2e6c452ae";

/// `getblockheader`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Header {
    pub hash: BlockHash,
    pub height: u32,
    pub time: u32,
    #[serde(default)]
    pub previousblockhash: Option<BlockHash>,
}

/// `getnetworkinfo`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Network {
    /// 290500 is 29.5.0.
    #[serde(default)]
    pub version: u64,
    #[serde(default)]
    pub subversion: String,
    /// False with `blocksonly`.
    #[serde(default)]
    pub localrelay: Option<bool>,
    #[serde(default)]
    pub networkactive: Option<bool>,
    #[serde(default)]
    pub connections: Option<u32>,
}

/// `getmempoolinfo`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct MempoolInfo {
    /// False while the node still reads the mempool of its last run. Nodes that do not say are
    /// taken to be through.
    #[serde(default = "yes")]
    pub loaded: bool,
    #[serde(default)]
    pub size: u64,
    /// Absent where there is no choice: before Core 24, and in the newest.
    #[serde(default)]
    pub fullrbf: Option<bool>,
    /// Of Knots.
    #[serde(default)]
    pub rbf_policy: RbfPolicy,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RbfPolicy {
    Never,
    #[default]
    #[serde(other)]
    AsFullrbf,
}

impl MempoolInfo {
    /// `version`: of the node, 290500 is 29.5.0; 0 if it does not tell.
    pub fn replacement(&self, version: u64) -> Replacement {
        let any = self.fullrbf.unwrap_or(!(1..240_000).contains(&version));
        match (self.rbf_policy, any) {
            (RbfPolicy::Never, _) => Replacement::Never,
            (RbfPolicy::AsFullrbf, true) => Replacement::Any,
            (RbfPolicy::AsFullrbf, false) => Replacement::Signalled,
        }
    }
}

/// `getrawmempool false true`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MempoolTxids {
    pub txids: Vec<Txid>,
    /// The next number of `sequence`'s A and R: the list holds exactly what came before it.
    #[serde(default)]
    pub mempool_sequence: Option<u64>,
}

/// One line of `getzmqnotifications`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Notification {
    /// `pubrawtx`, …
    #[serde(rename = "type")]
    pub kind: String,
    pub address: String,
    #[serde(default)]
    pub hwm: Option<i64>,
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_does_not_tell_its_policy_has_that_of_its_version() {
        for (answer, version, replacement) in [
            ("{}", 220_000, Replacement::Signalled),
            ("{}", 230_100, Replacement::Signalled),
            ("{}", 310_000, Replacement::Any),
            ("{}", 0, Replacement::Any),
            (r#"{"fullrbf": false}"#, 280_000, Replacement::Signalled),
            (r#"{"fullrbf": true}"#, 240_000, Replacement::Any),
            (r#"{"rbf_policy": "never"}"#, 290_000, Replacement::Never),
            (r#"{"rbf_policy": "never"}"#, 230_000, Replacement::Never),
        ] {
            let info: MempoolInfo = serde_json::from_str(answer).expect("an answer");
            assert_eq!(info.replacement(version), replacement, "{answer} {version}");
        }
    }
}
