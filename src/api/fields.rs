//! Reading what clients send: the JSON object of a body or an event, and the query string. Whatever
//! is malformed becomes an [`ApiError`] that names the field and says what belongs there; fields
//! and parameters that we do not know are ignored.

use bitcoin::Network;
use serde_json::{Map, Value};

use super::address::{self, KnownAddress};
use super::error::{ApiError, shortened};
use super::past::History;
use super::watchlist::distinct;

/// Addresses in one request.
pub const MAX_ADDRESSES: usize = 10_000;
const MAX_LABEL_BYTES: usize = 256;
const MAX_DEPTHS: usize = 8;
const MAX_DEPTH: u64 = 144;
const MAX_NAME: usize = 64;
const ONE_ADDRESS: &str = "{\"address\": \"<address>\"}";

/// What of the watch list a consumer is told about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    All,
    These(Vec<KnownAddress>),
}

/// Checks a consumer's name.
pub fn consumer_name(text: &str) -> Result<&str, ApiError> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_good) {
        return Ok(text);
    }
    let message = format!(
        "{} is no name of a consumer; use 1 to {MAX_NAME} of the characters A-Z a-z 0-9 _ -.",
        shortened(text)
    );
    Err(ApiError::bad_request("invalid_name", message))
}

/// One JSON object from a client.
#[derive(Debug, Clone, Default)]
pub struct Fields(Map<String, Value>);

impl Fields {
    pub fn parse(text: &[u8]) -> Result<Self, ApiError> {
        let value: Value = serde_json::from_slice(text).map_err(|cause| {
            ApiError::bad_request(
                "invalid_json",
                format!("The request is not valid JSON: {cause}."),
            )
        })?;
        Self::of(value)
    }

    pub fn of(value: Value) -> Result<Self, ApiError> {
        match value {
            Value::Object(map) => Ok(Self(map)),
            other => {
                let message = format!(
                    "A JSON object is expected, such as {ONE_ADDRESS}, not {}.",
                    kind(&other)
                );
                Err(ApiError::bad_request("invalid_json", message))
            }
        }
    }

    /// The field unless it is absent or `null`.
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// `address`: text, required.
    pub fn address(&self, network: Network) -> Result<KnownAddress, ApiError> {
        match self.get("address") {
            None => Err(ApiError::missing_field("address", ONE_ADDRESS)),
            Some(Value::String(text)) => address::parse(text, network),
            Some(other) => Err(ApiError::invalid_field(
                "address",
                &format!("a Bitcoin address as text, not {}", kind(other)),
            )),
        }
    }

    /// `addresses`: 1 to 10 000 elements, each an address as text or `{"address", "label"?}`. The
    /// first bad one is named by its place.
    pub fn addresses(
        &self,
        network: Network,
    ) -> Result<Vec<(KnownAddress, Option<String>)>, ApiError> {
        const WHAT: &str = "an array of 1 to 10000 addresses";
        let elements = match self.get("addresses") {
            None => {
                return Err(ApiError::missing_field(
                    "addresses",
                    "{\"addresses\": [\"<address>\", …]}",
                ));
            }
            Some(Value::Array(elements))
                if !elements.is_empty() && elements.len() <= MAX_ADDRESSES =>
            {
                elements
            }
            Some(Value::Array(elements)) => {
                return Err(ApiError::invalid_field(
                    "addresses",
                    &format!("{WHAT}, not {}", elements.len()),
                ));
            }
            Some(other) => {
                return Err(ApiError::invalid_field(
                    "addresses",
                    &format!("{WHAT}, not {}", kind(other)),
                ));
            }
        };
        let read = |element: &Value| match element {
            Value::String(text) => Ok((address::parse(text, network)?, None)),
            Value::Object(map) => {
                let fields = Self(map.clone());
                Ok((fields.address(network)?, fields.label()?))
            }
            other => Err(ApiError::invalid_field(
                "addresses",
                &format!("{WHAT}, each a text or an object, not {}", kind(other)),
            )),
        };
        let placed = |(place, element)| read(element).map_err(|error| at(place, error));
        elements.iter().enumerate().map(placed).collect()
    }

    /// `addresses` of a consumer: `"all"`, which is the default, or an array of addresses. It may
    /// be empty only when the consumer is told of blocks.
    pub fn wanted(&self, network: Network, blocks: bool) -> Result<Wanted, ApiError> {
        match self.get("addresses") {
            None => Ok(Wanted::All),
            Some(Value::String(word)) if word == "all" => Ok(Wanted::All),
            Some(Value::Array(elements)) if elements.is_empty() && blocks => {
                Ok(Wanted::These(Vec::new()))
            }
            Some(Value::Array(_)) => Ok(Wanted::These(distinct(self.addresses(network)?))),
            Some(other) => {
                let what = format!(
                    "\"all\" or an array of 1 to {MAX_ADDRESSES} addresses, not {}",
                    kind(other)
                );
                Err(ApiError::invalid_field("addresses", &what))
            }
        }
    }

    /// A field that means something elsewhere, and would be overlooked here.
    pub fn must_not_name(&self, name: &str, instead: &str) -> Result<(), ApiError> {
        match self.get(name) {
            None => Ok(()),
            Some(_) => Err(ApiError::bad_request(
                "invalid_field",
                format!("The field \"{name}\" does not belong here: {instead}."),
            )),
        }
    }

    /// `consumer`: the name of one, required.
    pub fn consumer(&self) -> Result<String, ApiError> {
        let name = self
            .text("consumer")?
            .ok_or_else(|| ApiError::missing_field("consumer", "the name of a consumer"))?;
        consumer_name(&name)?;
        Ok(name)
    }

    /// `cursor`: required. Whether it is one is not looked at here.
    pub fn cursor(&self) -> Result<String, ApiError> {
        self.text("cursor")?.ok_or_else(|| {
            ApiError::missing_field("cursor", "the cursor of the last event that is done")
        })
    }

    /// `label`: text of at most 256 bytes, optional.
    pub fn label(&self) -> Result<Option<String>, ApiError> {
        match self.get("label") {
            None => Ok(None),
            Some(Value::String(label)) if label.len() <= MAX_LABEL_BYTES => Ok(Some(label.clone())),
            Some(_) => Err(ApiError::invalid_field(
                "label",
                &format!("a text of at most {MAX_LABEL_BYTES} bytes"),
            )),
        }
    }

    /// `history`: what to find out about the past of an added address.
    pub fn history(&self, default: History) -> Result<History, ApiError> {
        const WHAT: &str = "\"utxo\", \"none\" or {\"from_height\": <height>} with a whole number from 0 to 4294967295";
        let refused = || ApiError::invalid_field("history", WHAT);
        match self.get("history") {
            None => Ok(default),
            Some(Value::String(word)) if word == "utxo" => Ok(History::Utxo),
            Some(Value::String(word)) if word == "none" => Ok(History::None),
            // Words of a scan that would be overlooked.
            Some(Value::Object(map))
                if map.contains_key("to_height") || map.contains_key("blocks_back") =>
            {
                Err(refused())
            }
            Some(Value::Object(map)) => {
                let height = Self(map.clone())
                    .whole("from_height", 0)
                    .map_err(|_| refused())?;
                height.map(History::From).ok_or_else(refused)
            }
            Some(_) => Err(refused()),
        }
    }

    /// `confirmations`: depths to be told about, ascending and without repetition; empty when
    /// absent.
    pub fn depths(&self) -> Result<Vec<u8>, ApiError> {
        let refused = || {
            ApiError::invalid_field(
                "confirmations",
                "an array of at most 8 whole numbers from 1 to 144, such as [1, 3, 6]",
            )
        };
        let Some(value) = self.get("confirmations") else {
            return Ok(Vec::new());
        };
        let elements = value
            .as_array()
            .filter(|elements| elements.len() <= MAX_DEPTHS)
            .ok_or_else(refused)?;
        let depth = |element: &Value| {
            let depth = element
                .as_u64()
                .filter(|depth| (1..=MAX_DEPTH).contains(depth))?;
            u8::try_from(depth).ok()
        };
        let mut depths = elements
            .iter()
            .map(depth)
            .collect::<Option<Vec<u8>>>()
            .ok_or_else(refused)?;
        depths.sort_unstable();
        depths.dedup();
        Ok(depths)
    }

    /// A text, optional.
    pub fn text(&self, name: &str) -> Result<Option<String>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(ApiError::invalid_field(
                name,
                &format!("a text, not {}", kind(other)),
            )),
        }
    }

    /// Up to `most` texts, optional.
    pub fn texts(&self, name: &str, most: usize) -> Result<Option<Vec<String>>, ApiError> {
        let refused = || ApiError::invalid_field(name, &format!("an array of 1 to {most} texts"));
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let elements = value
            .as_array()
            .filter(|elements| !elements.is_empty() && elements.len() <= most)
            .ok_or_else(refused)?;
        elements
            .iter()
            .map(|element| element.as_str().map(str::to_owned).ok_or_else(refused))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// `true` or `false`, `default` when absent.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, ApiError> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(ApiError::invalid_field(name, "true or false")),
        }
    }

    /// A whole number from `least` to 4 294 967 295.
    pub fn whole(&self, name: &str, least: u32) -> Result<Option<u32>, ApiError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let number = value
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| *number >= least);
        number.map(Some).ok_or_else(|| {
            ApiError::invalid_field(
                name,
                &format!("a whole number from {least} to {}", u32::MAX),
            )
        })
    }
}

/// An error of one element of a list.
pub fn at(place: usize, error: ApiError) -> ApiError {
    ApiError {
        message: format!("addresses[{place}]: {}", error.message),
        ..error
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The parameters of a request's query string, percent-decoded, in order.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Self {
        Self(
            form_urlencoded::parse(text.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    /// The first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Every value of a parameter that may be repeated.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// A whole number in a range, `default` when absent.
    pub fn whole(
        &self,
        name: &str,
        default: usize,
        range: std::ops::RangeInclusive<usize>,
    ) -> Result<usize, ApiError> {
        let Some(text) = self.get(name) else {
            return Ok(default);
        };
        let what = || format!("a whole number from {} to {}", range.start(), range.end());
        let number = text.parse().ok().filter(|number| {
            range.contains(number) && text.bytes().all(|byte| byte.is_ascii_digit())
        });
        number.ok_or_else(|| ApiError::invalid_parameter(name, &what()))
    }

    /// `true`, `1`, or the bare name; `false` or `0`.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1" | "") => Ok(true),
            Some(_) => Err(ApiError::invalid_parameter(name, "true or false")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

    fn fields(text: &str) -> Fields {
        Fields::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_not_a_json_object_is_invalid_json() {
        let deep = "[".repeat(100_000);
        for text in [
            "",
            "{",
            "[]",
            "null",
            "7",
            "\"x\"",
            "{\"address\":}",
            "\u{feff}{}",
            &deep,
        ] {
            assert_eq!(
                Fields::parse(text.as_bytes()).unwrap_err().code,
                "invalid_json",
                "{text:.20}"
            );
        }
        assert_eq!(
            Fields::parse(b"{\"\xff\":1}").unwrap_err().code,
            "invalid_json"
        );
    }

    #[test]
    fn an_address_is_missing_or_of_the_wrong_type_or_read() {
        let code = |text| fields(text).address(Network::Regtest).unwrap_err().code;
        assert_eq!(code("{}"), "missing_field");
        assert_eq!(code(r#"{"address":null}"#), "missing_field");
        assert_eq!(code(r#"{"address":7}"#), "invalid_field");
        assert_eq!(code(r#"{"address":["x"]}"#), "invalid_field");
        assert_eq!(code(r#"{"address":"x"}"#), "invalid_address");
        let read = fields(&format!(r#"{{"address":"{ADDRESS}","unknown":1}}"#))
            .address(Network::Regtest)
            .unwrap();
        assert_eq!(read.text, ADDRESS);
    }

    #[test]
    fn one_bad_address_refuses_the_list_and_is_named_by_its_place() {
        let error = fields(&format!(
            r#"{{"addresses":["{ADDRESS}",{{"address":"{ADDRESS}","label":"a"}},"x"]}}"#
        ));
        let error = error.addresses(Network::Regtest).unwrap_err();
        assert_eq!(error.code, "invalid_address");
        assert!(
            error.message.starts_with("addresses[2]: "),
            "{}",
            error.message
        );
        for bad in [
            "{}",
            r#"{"addresses":[]}"#,
            r#"{"addresses":"x"}"#,
            r#"{"addresses":[7]}"#,
        ] {
            assert!(fields(bad).addresses(Network::Regtest).is_err(), "{bad}");
        }
        let many = format!(
            r#"{{"addresses":[{}"{ADDRESS}"]}}"#,
            format!("\"{ADDRESS}\",").repeat(MAX_ADDRESSES)
        );
        assert_eq!(
            fields(&many).addresses(Network::Regtest).unwrap_err().code,
            "invalid_field"
        );
        let good = fields(&format!(
            r#"{{"addresses":[{{"address":"{ADDRESS}","label":"a"}},"{ADDRESS}"]}}"#
        ));
        let labels: Vec<_> = good
            .addresses(Network::Regtest)
            .unwrap()
            .into_iter()
            .map(|(_, label)| label)
            .collect();
        assert_eq!(labels, [Some("a".to_owned()), None]);
    }

    #[test]
    fn a_consumer_wants_all_addresses_or_those_named_or_blocks_alone() {
        let wanted = |text: &str, blocks| fields(text).wanted(Network::Regtest, blocks);
        assert_eq!(
            (
                wanted("{}", false).unwrap(),
                wanted(r#"{"addresses":"all"}"#, false).unwrap()
            ),
            (Wanted::All, Wanted::All)
        );
        assert_eq!(
            wanted(r#"{"addresses":[]}"#, true).unwrap(),
            Wanted::These(Vec::new())
        );
        let Wanted::These(named) = wanted(
            &format!(r#"{{"addresses":["{ADDRESS}","{ADDRESS}"]}}"#),
            false,
        )
        .unwrap() else {
            panic!()
        };
        assert_eq!(
            named
                .iter()
                .map(|address| address.text.as_str())
                .collect::<Vec<_>>(),
            [ADDRESS]
        );
        for bad in ["[]", "\"some\"", "7", "{}", "true", "[7]"] {
            let error = wanted(&format!(r#"{{"addresses":{bad}}}"#), false).unwrap_err();
            assert_eq!(error.code, "invalid_field", "{bad}");
        }
        assert_eq!(
            wanted(r#"{"addresses":["x"]}"#, true).unwrap_err().code,
            "invalid_address"
        );
    }

    #[test]
    fn a_consumer_has_a_plain_name() {
        for good in ["a", "shop-1", "_", "-", "A_9", &"x".repeat(64)] {
            assert_eq!(consumer_name(good), Ok(good));
        }
        for bad in [
            "",
            " ",
            "a b",
            "a/b",
            "é",
            "a.b",
            "a\0",
            "../x",
            "\u{fffd}",
            &"x".repeat(65),
        ] {
            assert_eq!(
                consumer_name(bad).unwrap_err().code,
                "invalid_name",
                "{bad}"
            );
            let error = fields(&serde_json::json!({ "consumer": bad }).to_string())
                .consumer()
                .unwrap_err();
            assert_eq!(error.code, "invalid_name", "{bad}");
        }
        assert_eq!(fields("{}").consumer().unwrap_err().code, "missing_field");
        assert_eq!(
            fields(r#"{"consumer":7}"#).consumer().unwrap_err().code,
            "invalid_field"
        );
        assert_eq!(
            fields(r#"{"cursor":null}"#).cursor().unwrap_err().code,
            "missing_field"
        );
    }

    #[test]
    fn depths_are_sorted_bounded_whole_numbers() {
        assert!(fields("{}").depths().unwrap().is_empty());
        assert_eq!(
            fields(r#"{"confirmations":[6,1,6,144]}"#).depths().unwrap(),
            [1, 6, 144]
        );
        for bad in [
            "0",
            "[0]",
            "[145]",
            "[-1]",
            "[1.5]",
            "[\"1\"]",
            "{}",
            "[1,2,3,4,5,6,7,8,9]",
            "[1e30]",
        ] {
            assert!(
                fields(&format!(r#"{{"confirmations":{bad}}}"#))
                    .depths()
                    .is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn history_is_one_of_two_words_or_a_height() {
        let history =
            |text: &str| fields(&format!(r#"{{"history":{text}}}"#)).history(History::None);
        assert_eq!(fields("{}").history(History::None).unwrap(), History::None);
        assert_eq!(history("null").unwrap(), History::None);
        assert_eq!(history(r#""utxo""#).unwrap(), History::Utxo);
        assert_eq!(
            history(r#"{"from_height":5,"unknown":1}"#).unwrap(),
            History::From(5)
        );
        assert_eq!(
            history(r#"{"from_height":4294967295}"#).unwrap(),
            History::From(u32::MAX)
        );
        for bad in ["-1", "1.5", "5.0", "\"5\"", "4294967296", "null", "true"] {
            assert_eq!(
                history(&format!(r#"{{"from_height":{bad}}}"#))
                    .unwrap_err()
                    .code,
                "invalid_field",
                "{bad}"
            );
        }
        for bad in [
            r#""all""#,
            "{}",
            "5",
            "[]",
            r#"{"from":5}"#,
            r#"{"from_height":5,"to_height":6}"#,
        ] {
            assert_eq!(history(bad).unwrap_err().code, "invalid_field", "{bad}");
        }
    }

    #[test]
    fn labels_flags_and_numbers_are_checked() {
        assert!(
            fields(&format!(r#"{{"label":"{}"}}"#, "x".repeat(257)))
                .label()
                .is_err()
        );
        assert!(fields(r#"{"label":7}"#).label().is_err());
        assert!(
            fields(r#"{"snapshot":"yes"}"#)
                .flag("snapshot", true)
                .is_err()
        );
        assert!(
            !fields(r#"{"snapshot":false}"#)
                .flag("snapshot", true)
                .unwrap()
        );
        for bad in ["0", "-1", "1.5", "\"1\"", "4294967296", "true"] {
            assert!(
                fields(&format!(r#"{{"blocks_back":{bad}}}"#))
                    .whole("blocks_back", 1)
                    .is_err(),
                "{bad}"
            );
        }
        assert_eq!(
            fields(r#"{"blocks_back":1}"#)
                .whole("blocks_back", 1)
                .unwrap(),
            Some(1)
        );
    }

    #[test]
    fn a_query_is_decoded_and_malformed_values_are_named() {
        let query = Query::parse("limit=5&address=a%20b&address=c&include_spent&%zz=%ff");
        assert_eq!(query.whole("limit", 1, 1..=10).unwrap(), 5);
        assert_eq!(query.whole("absent", 1, 1..=10).unwrap(), 1);
        assert_eq!(query.all("address").collect::<Vec<_>>(), ["a b", "c"]);
        assert!(query.flag("include_spent").unwrap());
        for bad in [
            "",
            "0",
            "11",
            "-1",
            "+5",
            "5.0",
            "x",
            "99999999999999999999",
        ] {
            let error = Query::parse(&format!("limit={}", bad.replace('+', "%2B")))
                .whole("limit", 1, 1..=10)
                .unwrap_err();
            assert_eq!(
                (error.code, error.message.contains("\"limit\"")),
                ("invalid_parameter", true),
                "{bad}"
            );
        }
        assert!(
            Query::parse("include_spent=maybe")
                .flag("include_spent")
                .is_err()
        );
    }
}
