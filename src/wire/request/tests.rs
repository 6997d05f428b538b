use bitcoin::Network;
use serde::Deserialize;

use super::history::HistoryOption;
use super::types::{AddressSelection, Addresses, Depths, Label, Labelled, Limit, Whole};
use super::*;

const ADDRESS: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

/// One of everything that a body may say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    address: String,
    addresses: Option<Addresses<Labelled>>,
    wanted: Option<AddressSelection>,
    label: Option<Label>,
    history: Option<HistoryOption>,
    confirmations: Option<Depths>,
    snapshot: Option<bool>,
    blocks_back: Option<Whole<1, { u32::MAX }>>,
}

impl Request for Body {
    const EXAMPLE: &'static str = "{\"address\": \"<address>\"}";
    const INSTEAD: &'static [(&'static str, &'static str)] =
        &[("from_height", "write `\"history\": {\"from_height\": 0}`")];
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    limit: Option<Limit<10>>,
    include_spent: Option<bool>,
    after: Option<String>,
    #[serde(default)]
    address: Vec<String>,
}

impl Request for Parameters {}

fn refused<T: Request + std::fmt::Debug>(text: &str) -> (&'static str, String) {
    let error = object::<T>(text.as_bytes()).expect_err(text);
    (error.code, error.message)
}

/// A body with an address and one more field.
fn with(field: &str) -> Result<Body, (&'static str, String)> {
    let text = format!("{{\"address\":\"x\",{field}}}");
    object(text.as_bytes()).map_err(|error| (error.code, error.message))
}

fn asked(text: &str) -> Result<Parameters, (&'static str, String)> {
    query(text, false).map_err(|error| (error.code, error.message))
}

#[test]
fn what_is_not_a_json_object_is_invalid_json() {
    let deep = "[".repeat(100_000);
    for text in [
        "",
        "{",
        "[]",
        "[\"x\"]",
        "null",
        "7",
        "\"x\"",
        "{\"address\":}",
        "\u{feff}{}",
        &deep,
    ] {
        assert_eq!(refused::<Body>(text).0, "invalid_json", "{text:.20}");
    }
    let error = object::<Body>(b"{\"\xff\":1}").unwrap_err();
    assert_eq!(error.code, "invalid_json");
    assert_eq!(
        refused::<Body>("[1]").1,
        "A JSON object is expected, such as {\"address\": \"<address>\"}, not an array."
    );
}

#[test]
fn nothing_sent_is_an_empty_object_where_nothing_is_needed() {
    assert!(body::<Nothing>(None).is_ok());
    assert!(body::<Nothing>(Some(b"{}")).is_ok());
    let error = body::<Body>(None).unwrap_err();
    assert_eq!(error.code, "invalid_json");
    assert!(
        error.message.contains("{\"address\": "),
        "{}",
        error.message
    );
}

#[test]
fn an_unknown_field_is_refused_with_the_nearest_name_and_all_names() {
    for (field, said) in [
        (
            "\"confirmation\":[3]",
            "Unknown field `confirmation`: did you mean `confirmations`? There are `address`,",
        ),
        ("\"Snapshot\":false", "did you mean `snapshot`?"),
        ("\"adress\":\"x\"", "did you mean `address`?"),
        ("\"lable\":null", "did you mean `label`?"),
        ("\"blocksBack\":7", "did you mean `blocks_back`?"),
        (
            "\"from_height\":0",
            "Unknown field `from_height`: write `\"history\": {\"from_height\": 0}`. There are",
        ),
        ("\"zzz\":1", "Unknown field `zzz`: there are `address`,"),
    ] {
        let (code, message) = with(field).unwrap_err();
        assert_eq!(code, "unknown_field", "{field}");
        assert!(message.contains(said), "{message}");
        assert!(message.ends_with(" and `blocks_back`."), "{message}");
    }
    let (code, message) = refused::<Nothing>("{\"x\":1}");
    assert_eq!(
        (code, message.as_str()),
        (
            "unknown_field",
            "Unknown field `x`: no field is taken here."
        )
    );
    let long = "x".repeat(100_000);
    let (_, message) = with(&format!("\"{long}\":1")).unwrap_err();
    assert!(message.len() < 500, "{}", message.len());
}

#[test]
fn an_unknown_field_further_in_is_refused_with_its_place() {
    for (field, said) in [
        (
            "\"addresses\":[\"x\",{\"address\":\"y\",\"lable\":\"z\"}]",
            "Unknown field `lable` in \"addresses[1]\": did you mean `label`? There are `address` and `label`.",
        ),
        (
            "\"history\":{\"from_height\":1,\"to_height\":2}",
            "Unknown field `to_height` in \"history\": did you mean `from_height`?",
        ),
        (
            "\"history\":{\"from\":1}",
            "Unknown field `from` in \"history\": did you mean `from_height`?",
        ),
        (
            "\"wanted\":[{\"address\":\"y\",\"label\":\"z\"}]",
            "Unknown field `label` in \"wanted[0]\": there is `address`.",
        ),
    ] {
        let (code, message) = with(field).unwrap_err();
        assert_eq!(code, "unknown_field", "{field}");
        assert!(message.starts_with(said), "{message}");
    }
}

#[test]
fn a_name_that_comes_twice_is_refused() {
    let (code, message) = refused::<Body>(r#"{"address":"x","address":"x"}"#);
    assert_eq!(
        (code, message.as_str()),
        (
            "invalid_field",
            "The field \"address\" must be named once, not more often."
        )
    );
    let (code, message) = with(r#""history":{"from_height":1,"from_height":2}"#).unwrap_err();
    assert_eq!(code, "invalid_field");
    assert!(message.contains("\"history.from_height\""), "{message}");
}

#[test]
fn a_missing_field_comes_with_an_example() {
    for text in ["{}", r#"{"address":null}"#] {
        assert_eq!(
            refused::<Body>(text),
            (
                "missing_field",
                "The field \"address\" is missing; send {\"address\": \"<address>\"}.".to_owned()
            )
        );
    }
    let (code, message) = with(r#""addresses":[{"label":"x"}]"#).unwrap_err();
    assert_eq!(code, "missing_field");
    assert!(message.contains("\"addresses[0].address\""), "{message}");
}

#[test]
fn a_wrong_value_names_the_field_what_was_expected_and_what_came() {
    for (field, said) in [
        (
            "\"label\":7",
            "The field \"label\" must be a string, not a number.",
        ),
        (
            "\"snapshot\":\"yes\"",
            "The field \"snapshot\" must be true or false, not a string.",
        ),
        (
            "\"blocks_back\":0",
            "The field \"blocks_back\" must be a whole number from 1 to 4294967295, not 0.",
        ),
        ("\"blocks_back\":1.5", "not 1.5."),
        (
            "\"blocks_back\":5.0",
            "from 1 to 4294967295, in digits alone, without a point or an exponent.",
        ),
        ("\"blocks_back\":-5", "not -5."),
        (
            "\"blocks_back\":1e9",
            "from 1 to 4294967295, in digits alone, without a point or an exponent.",
        ),
        ("\"blocks_back\":4294967296", "not 4294967296."),
        ("\"blocks_back\":\"1\"", "not a string."),
        ("\"blocks_back\":true", "not a boolean."),
        ("\"confirmations\":0", "must be an array, not a number."),
        (
            "\"confirmations\":[1,145]",
            "The field \"confirmations[1]\" must be a whole number from 1 to 144, not 145.",
        ),
        ("\"confirmations\":[\"1\"]", "\"confirmations[0]\" must be"),
        ("\"confirmations\":{}", "must be an array, not an object."),
        (
            "\"confirmations\":[1,2,3,4,5,6,7,8,9]",
            "must be an array of at most 8 whole numbers from 1 to 144, such as [1, 3, 6], not 9.",
        ),
        (
            "\"addresses\":[]",
            "must be an array of 1 to 10000 addresses, not 0.",
        ),
        (
            "\"addresses\":\"x\"",
            "must be an array of 1 to 10000 addresses, not a string.",
        ),
        (
            "\"wanted\":\"some\"",
            "The field \"wanted\" must be \"all\" or an array of 1 to 10000 addresses.",
        ),
        ("\"wanted\":{}", "not an object."),
        (
            "\"history\":\"all\"",
            "The field \"history\" must be \"utxo\", \"none\" or {\"from_height\": <height>}.",
        ),
        ("\"history\":{}", "must be \"utxo\", \"none\" or"),
        (
            "\"history\":{\"from_height\":null}",
            "must be \"utxo\", \"none\" or",
        ),
        ("\"history\":5", "not a number."),
        ("\"history\":[]", "not an array."),
        (
            "\"history\":{\"from_height\":-1}",
            "The field \"history.from_height\" must be a whole number from 0 to 4294967295, not -1.",
        ),
    ] {
        let (code, message) = with(field).unwrap_err();
        assert_eq!(code, "invalid_field", "{field}");
        assert!(message.contains(said), "{field}: {message}");
    }
    let long = "x".repeat(257);
    let (code, message) = with(&format!("\"label\":\"{long}\"")).unwrap_err();
    assert_eq!(
        (code, message.as_str()),
        (
            "invalid_field",
            "The field \"label\" must be a string of at most 256 bytes, not 257."
        )
    );
    for control in ["\\n", "\\u0000", "\\u007f", "\\u009f"] {
        let (code, message) = with(&format!("\"label\":\"a{control}\"")).unwrap_err();
        assert_eq!(code, "invalid_field", "{control}");
        assert!(message.contains("without control characters"), "{message}");
    }
    let many = format!("\"addresses\":[{}\"x\"]", "\"x\",".repeat(10_000));
    assert_eq!(with(&many).unwrap_err().0, "invalid_field");
}

#[test]
fn what_is_right_is_read() {
    let all = r#""addresses":["known",{"address":"known","label":"z"}],"wanted":"all","label":"l",
           "confirmations":[6,1,6,144],"snapshot":false,"blocks_back":1,
           "history":{"from_height":4294967295}"#;
    let body = with(&all.replace("known", ADDRESS)).unwrap();
    let listed = body.addresses.unwrap().parse(Network::Regtest).unwrap();
    let labels: Vec<_> = listed
        .into_iter()
        .map(|(known, said)| (known.text, said.label.map(|Label(label)| label)))
        .collect();
    assert_eq!(
        labels,
        [
            (ADDRESS.to_owned(), None),
            (ADDRESS.to_owned(), Some("z".to_owned()))
        ]
    );
    assert_eq!(body.address, "x");
    assert_eq!(body.wanted, Some(AddressSelection(None)));
    assert_eq!(body.label, Some(Label("l".to_owned())));
    assert_eq!(body.confirmations.unwrap().0, [1, 6, 144]);
    assert_eq!(body.snapshot, Some(false));
    assert_eq!(body.blocks_back, Some(Whole(1)));
    assert_eq!(body.history, Some(HistoryOption::From(u32::MAX)));
    let absent = with(r#""label":null,"history":null,"confirmations":null"#).unwrap();
    assert_eq!((absent.label, absent.history), (None, None));
    assert_eq!(absent.confirmations, None);
    let empty = with(r#""wanted":[]"#).unwrap();
    let AddressSelection(part) = empty.wanted.unwrap();
    assert_eq!(part.map(|part| part.count()), Some(0));
}

fn list(values: &str) -> Result<usize, ApiError> {
    let body = with(&format!("\"wanted\":[{values}]")).unwrap();
    let part = body.wanted.unwrap().0.unwrap();
    part.parse(Network::Regtest).map(|parsed| parsed.len())
}

#[test]
fn one_bad_address_refuses_the_list_and_is_named_by_its_place() {
    let good = format!("\"{ADDRESS}\"");
    assert_eq!(list(&format!("{good},{good}")).unwrap(), 2);
    let error = list(&format!("{good},\"x\"")).unwrap_err();
    assert_eq!(error.code, "invalid_address");
    let message = error.message;
    assert!(message.starts_with("addresses[1]: "), "{message}");
}

#[test]
fn a_value_that_is_no_address_hides_no_other_bad_one_of_the_list() {
    let refused = |values: &str| {
        let error = list(values).unwrap_err();
        (error.code, error.message)
    };
    let expected = |place: usize, kind: &str| {
        format!(
            "The field \"addresses[{place}]\" must be an address as a string, or {{\"address\": \"<address>\"}}, not {kind}."
        )
    };
    assert_eq!(refused("7"), ("invalid_field", expected(0, "a number")));
    let kinds = ["null", "a boolean", "a number", "a number", "an array"];
    let all: Vec<_> = (0..)
        .zip(kinds)
        .map(|(n, kind)| expected(n, kind))
        .collect();
    let (code, message) = refused("null,true,-7,0.5,[1,{}]");
    assert_eq!((code, message), ("invalid_field", all.join(" ")));
    let (code, message) = refused(&format!("\"x\",{{\"address\":\"{ADDRESS}\"}},7,\"y\""));
    assert_eq!(code, "invalid_address");
    assert!(message.contains(&expected(2, "a number")), "{message}");
    for place in ["addresses[0]: ", "addresses[3]: "] {
        assert!(message.contains(place), "{message}");
    }
}

#[test]
fn a_query_is_decoded_and_read() {
    let read = asked("limit=5&address=a%20b&address=c&include_spent=1&after=%ff").unwrap();
    assert_eq!(read.limit, Some(Whole(5)));
    assert_eq!(read.include_spent, Some(true));
    assert_eq!(read.address, ["a b", "c"]);
    assert_eq!(read.after.as_deref(), Some("\u{fffd}"));
    let read = asked("").unwrap();
    assert_eq!((read.limit, read.include_spent), (None, None));
    assert!(read.address.is_empty());
}

#[test]
fn bad_parameters_are_named() {
    for (text, code, said) in [
        (
            "limit=11",
            "invalid_parameter",
            "The query parameter \"limit\" must be a whole number from 1 to 10, not 11.",
        ),
        ("limit=", "invalid_parameter", "\"limit\""),
        ("limit=0", "invalid_parameter", "\"limit\""),
        ("limit=-1", "invalid_parameter", "\"limit\""),
        ("limit=%2B5", "invalid_parameter", "\"limit\""),
        ("limit=5.0", "invalid_parameter", "\"limit\""),
        (
            "limit=99999999999999999999",
            "invalid_parameter",
            "\"limit\"",
        ),
        (
            "include_spent=",
            "invalid_parameter",
            "\"include_spent\" must be true or false.",
        ),
        ("include_spent", "invalid_parameter", "\"include_spent\""),
        (
            "include_spent=maybe",
            "invalid_parameter",
            "\"include_spent\" must be true or false.",
        ),
        (
            "after=a&after=a",
            "invalid_parameter",
            "The query parameter \"after\" must be named once, not more often.",
        ),
        (
            "limits=5",
            "unknown_field",
            "Unknown query parameter `limits`: did you mean `limit`? There are `limit`,",
        ),
        ("addresses=b", "unknown_field", "did you mean `address`?"),
        ("=", "unknown_field", "Unknown query parameter ``"),
        ("%00=1", "unknown_field", "Unknown query parameter ``"),
    ] {
        let (got, message) = asked(text).unwrap_err();
        assert_eq!(got, code, "{text}");
        assert!(message.contains(said), "{text}: {message}");
    }
    let error = query::<Nothing>("x=1", false).unwrap_err();
    assert_eq!(
        error.message,
        "Unknown query parameter `x`: no query parameter is taken here."
    );
}

#[test]
fn too_many_values_are_refused_wherever_they_are() {
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct List {
        of: Vec<u8>,
    }
    impl Request for List {}
    let list = |count: usize| format!("{{\"of\": [{}0]}}", "0,".repeat(count - 1));
    // The object and the array are two.
    let most = object::<List>(list(json::VALUES_MOST - 2).as_bytes()).expect("not too many");
    assert_eq!(most.of.len(), json::VALUES_MOST - 2);
    let nested = format!(
        "{{\"no\": {}{}}}",
        "[{\"a\":0},".repeat(60_000),
        "]".repeat(60_000)
    );
    for text in [
        list(json::VALUES_MOST - 1),
        "[{},".repeat(9) + &"1,".repeat(200_000),
        nested,
    ] {
        let refused = object::<List>(text.as_bytes()).expect_err("it is refused");
        assert!(
            ["payload_too_large", "invalid_json"].contains(&refused.code),
            "{refused}"
        );
        if text.starts_with("{\"of") {
            assert_eq!(
                (refused.status.as_u16(), refused.code),
                (413, "payload_too_large")
            );
        }
    }
}
