//! The keys in Redis, for who writes them and who reads them. The braces are a hash tag: in a
//! cluster all of them are on one node.
//!
//! ```text
//! {<name>}      hash    current   n of the stream that is written
//!                       starts    the starts of its log, as JSON: [["<id>", first, held], …]
//!                       network   main, test, testnet4, signet, regtest
//!                       from      cursor from which who has none reads: the log's head when the
//!                                 lease was taken
//!                       left      n of the stream that was left for the current one, or empty
//!                       writer    start id of the daemon that has or had the lease
//!                       expires   when the lease ends, in ms by Redis's clock; absent: given back
//! {<name>}:<n>  stream  entries (`entry`)
//! ```

use bitcoin::Network;

use crate::store::Starts;
use crate::wire::address::network_name;

pub const CURRENT: &str = "current";
pub const STARTS: &str = "starts";
pub const NETWORK: &str = "network";
pub const FROM: &str = "from";
pub const LEFT: &str = "left";
pub const WRITER: &str = "writer";
pub const EXPIRES: &str = "expires";

/// The keys of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys(String);

impl Keys {
    /// `name`: `bus.stream`.
    pub fn new(name: Option<&str>, network: Network) -> Self {
        let default = || format!("satwatch:{}", network_name(network));
        let name = name.map_or_else(default, str::to_owned);
        Self(format!("{{{name}}}"))
    }

    /// The hash that says which stream is written, and by whom.
    pub fn pointer(&self) -> &str {
        &self.0
    }

    pub fn stream(&self, n: u64) -> String {
        format!("{}:{n}", self.0)
    }
}

/// As the field [`STARTS`] has it.
pub fn starts_to_json(starts: &Starts) -> String {
    let parts: Vec<_> = starts.parts().collect();
    // Texts and numbers are always JSON.
    serde_json::to_string(&parts).unwrap_or_default()
}

pub fn starts_from_json(text: &str) -> Option<Starts> {
    let parts: Vec<(String, u64, u64)> = serde_json::from_str(text).ok()?;
    Starts::from_parts(parts)
}

/// Which log it is, be it of a copy that was put back: the id of its first start.
pub fn log_id(starts: &Starts) -> Option<&str> {
    starts.parts().next().map(|(id, _, _)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_begin_with_the_name_in_braces() {
        let keys = Keys::new(None, Network::Bitcoin);
        assert_eq!(keys.pointer(), "{satwatch:main}");
        assert_eq!(keys.stream(1_754_000_000), "{satwatch:main}:1754000000");
        assert_eq!(Keys::new(Some("a"), Network::Regtest).pointer(), "{a}");
    }

    #[test]
    fn starts_are_a_list_in_json() {
        let text = r#"[["a",0,0],["b",5,4]]"#;
        let starts = starts_from_json(text).expect("a list of starts");
        assert_eq!(starts_to_json(&starts), text);
        for text in ["", "[]", "{}", r#"[["a",1,0]]"#, r#"[["a",0]]"#] {
            assert_eq!(starts_from_json(text), None, "{text}");
        }
    }
}
