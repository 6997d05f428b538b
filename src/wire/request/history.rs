//! What of the past is asked for: `history` of an added address, and the heights of a history scan.

use std::fmt;

use schemars::json_schema;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Unexpected, Visitor};

use super::types::{Height, Whole};
use crate::tracker::Baseline;
use crate::wire::error::ApiError;
use crate::wire::schema::inline_schema;

/// How many blocks to look back.
pub type BlocksBack = Whole<1, { u32::MAX }>;

/// Blocks that a scan looks back when nobody says how many.
const BLOCKS_BACK: u32 = 1000;

/// What to find out about the past of an added address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryOption {
    /// Nothing.
    None,
    /// Its balance.
    Utxo,
    /// Its balance, and its transactions from this height on.
    From(u32),
}

inline_schema!(HistoryOption, "HistoryOption", |generator| json_schema!({
    "description": "What to find out about the past: what is unspent, nothing, or all transactions from a height on.",
    "anyOf": [
        {"enum": ["utxo", "none"]},
        {
            "type": "object",
            "properties": {"from_height": Height::json_schema(generator)},
            "required": ["from_height"],
            "additionalProperties": false,
        },
    ],
}));

/// `"utxo"`, `"none"` or `{"from_height": <height>}`.
impl<'de> Deserialize<'de> for HistoryOption {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Heights {
            from_height: Option<Height>,
        }

        struct WordOrHeights;

        impl<'de> Visitor<'de> for WordOrHeights {
            type Value = HistoryOption;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"utxo\", \"none\" or {\"from_height\": <height>}")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<HistoryOption, E> {
                match word {
                    "utxo" => Ok(HistoryOption::Utxo),
                    "none" => Ok(HistoryOption::None),
                    other => Err(E::invalid_value(Unexpected::Str(other), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<HistoryOption, A::Error> {
                let Heights { from_height } =
                    Heights::deserialize(MapAccessDeserializer::new(entries))?;
                match from_height {
                    Some(Whole(height)) => Ok(HistoryOption::From(height)),
                    None => Err(A::Error::invalid_value(Unexpected::Map, &self)),
                }
            }
        }

        deserializer.deserialize_any(WordOrHeights)
    }
}

impl From<HistoryOption> for Baseline {
    fn from(history: HistoryOption) -> Self {
        match history {
            HistoryOption::None => Self::Skip,
            HistoryOption::Utxo | HistoryOption::From(_) => Self::IfMissing,
        }
    }
}

/// What a request says of the heights to scan. Whether the chain has them is another question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeRequest {
    BlocksBack(u32),
    /// `to` absent: up to where live watching took over.
    Heights {
        from: u32,
        to: Option<u32>,
    },
}

/// The heights of a history scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// If that was the way to say it.
    pub blocks_back: Option<u32>,
    pub from: u32,
    /// `None`: up to where live watching took over.
    pub to: Option<u32>,
}

impl RangeRequest {
    pub fn new(
        blocks_back: Option<BlocksBack>,
        from_height: Option<Height>,
        to_height: Option<Height>,
    ) -> Result<Self, ApiError> {
        match (blocks_back, from_height, to_height) {
            (None, None, None) => Ok(Self::BlocksBack(BLOCKS_BACK)),
            (Some(Whole(count)), None, None) => Ok(Self::BlocksBack(count)),
            (None, from, to) => Ok(Self::Heights {
                from: from.map_or(0, |Whole(height)| height),
                to: to.map(|Whole(height)| height),
            }),
            _ => Err(ApiError::bad_request(
                "invalid_range",
                "Say either blocks_back, or from_height and to_height: both name the first block.",
            )),
        }
    }

    /// The heights, on a chain with this tip.
    pub fn range(self, tip: u32) -> Result<Range, ApiError> {
        let (from, to) = match self {
            Self::Heights { from, to } => (from, to),
            Self::BlocksBack(count) => {
                return Ok(Range {
                    blocks_back: Some(count),
                    from: tip.saturating_add(1).saturating_sub(count),
                    to: None,
                });
            }
        };
        let what = match to {
            _ if from > tip => format!("from_height {from} is above the tip"),
            Some(to) if to > tip => format!(
                "to_height {to} is above the tip; leave it out to scan up to where live watching took over"
            ),
            Some(to) if from > to => format!("from_height {from} is above to_height {to}"),
            _ => {
                return Ok(Range {
                    blocks_back: None,
                    from,
                    to,
                });
            }
        };
        let message = format!("{what}; the tip is at height {tip}.");
        Err(ApiError::bad_request("invalid_range", message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::request::{self, Request};

    fn range(text: &str, tip: u32) -> Result<Range, &'static str> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Heights {
            blocks_back: Option<BlocksBack>,
            from_height: Option<Height>,
            to_height: Option<Height>,
        }

        impl Request for Heights {}

        request::object::<Heights>(text.as_bytes())
            .and_then(|it| RangeRequest::new(it.blocks_back, it.from_height, it.to_height))
            .and_then(|asked| asked.range(tip))
            .map_err(|error| error.code)
    }

    #[test]
    fn blocks_back_counts_the_tip_and_ends_at_the_first_block() {
        let back = |count, from| {
            Ok(Range {
                blocks_back: Some(count),
                from,
                to: None,
            })
        };
        assert_eq!(range(r#"{"blocks_back":1}"#, 100), back(1, 100));
        assert_eq!(range(r#"{"blocks_back":101}"#, 100), back(101, 0));
        assert_eq!(range(r#"{"blocks_back":102}"#, 100), back(102, 0));
        assert_eq!(
            range(r#"{"blocks_back":4294967295}"#, u32::MAX),
            back(u32::MAX, 0)
        );
        assert_eq!(range("{}", 5000), back(1000, 4001));
        assert_eq!(
            range(r#"{"blocks_back":null,"from_height":null}"#, 0),
            back(1000, 0)
        );
    }

    #[test]
    fn heights_are_taken_as_they_are_said() {
        let heights = |from, to| {
            Ok(Range {
                blocks_back: None,
                from,
                to,
            })
        };
        assert_eq!(range(r#"{"from_height":0}"#, 100), heights(0, None));
        assert_eq!(
            range(r#"{"from_height":100,"to_height":100}"#, 100),
            heights(100, Some(100))
        );
        assert_eq!(range(r#"{"to_height":7}"#, 100), heights(0, Some(7)));
    }

    #[test]
    fn heights_that_the_chain_does_not_have_are_refused() {
        for text in [
            r#"{"from_height":101}"#,
            r#"{"to_height":101}"#,
            r#"{"from_height":4294967295}"#,
            r#"{"from_height":8,"to_height":7}"#,
            r#"{"blocks_back":5,"from_height":7}"#,
            r#"{"blocks_back":5,"to_height":7}"#,
        ] {
            assert_eq!(range(text, 100), Err("invalid_range"), "{text}");
        }
    }

    #[test]
    fn what_is_no_height_is_refused() {
        for field in ["blocks_back", "from_height", "to_height"] {
            for bad in [
                "-1",
                "1.5",
                "5.0",
                "\"5\"",
                "4294967296",
                "1e3",
                "1e30",
                "true",
                "[5]",
                "{}",
            ] {
                assert_eq!(
                    range(&format!("{{\"{field}\":{bad}}}"), 100),
                    Err("invalid_field"),
                    "{field} {bad}"
                );
            }
        }
        assert_eq!(range(r#"{"blocks_back":0}"#, 100), Err("invalid_field"));
    }

    #[test]
    fn the_refusal_names_the_tip() {
        let asked = RangeRequest::Heights { from: 7, to: None };
        assert_eq!(
            asked.range(6).unwrap_err().message,
            "from_height 7 is above the tip; the tip is at height 6."
        );
    }
}
