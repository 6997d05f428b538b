//! The codes of refused requests, for programs. A code never changes its meaning; new ones come.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// Each code, and what it means.
#[rustfmt::skip]
const CODES: &[(&str, &str)] = &[
    ("ambiguous_descriptor", "An extended public key alone, which may be of wallets of several kinds"),
    ("at_primary", "An edge does not do this, its primary does"),
    ("attachments_not_taken", "An event with binary attachments"),
    ("authentication_off", "Nobody has to log in, since there is no token"),
    ("consumer_alone", "A connection reads one consumer, or has subscriptions"),
    ("consumer_busy", "Somebody else reads the consumer for the moment"),
    ("consumer_changed", "The consumer was defined anew while it was read"),
    ("consumer_gone", "The consumer was deleted while it was read"),
    ("consumer_has_webhook", "What the consumer wants is posted, and not read otherwise"),
    ("consumer_taken", "Somebody else has begun to read the consumer"),
    ("cursor_expired", "Events after the cursor were deleted"),
    ("cursor_unknown", "The cursor is of another log, or of events that are lost"),
    ("forbidden", "The token may not do this"),
    ("history_is_none", "The past of the descriptor is not looked for, so it cannot be scanned"),
    ("host_missing", "The request names no host"),
    ("host_not_allowed", "The request names a host that the daemon does not go by"),
    ("incomplete_body", "The body broke off"),
    ("internal", "The daemon failed; its log says why"),
    ("invalid_address", "It is no address"),
    ("invalid_cursor", "It is no cursor"),
    ("invalid_descriptor", "It is no descriptor that can be watched"),
    ("invalid_field", "A field of the body is not what it must be"),
    ("invalid_json", "The body is no JSON object"),
    ("invalid_name", "A name that consumers cannot have"),
    ("invalid_parameter", "A parameter of the query is not what it must be"),
    ("invalid_range", "Blocks that are not there, or whose end is before their begin"),
    ("method_not_allowed", "The path is right, the method is not"),
    ("missing_field", "A field of the body is missing"),
    ("no_more_addresses", "All addresses of the descriptor are given away"),
    ("no_such_consumer", "Nobody has defined this consumer"),
    ("no_such_dead_letter", "The dead letter is not there, or not any more"),
    ("no_such_descriptor", "The descriptor is not watched"),
    ("no_such_keychain", "The descriptor has addresses for receiving alone"),
    ("no_such_scan", "No scan has this id, or not any more"),
    ("no_webhook", "The consumer is read, and not posted"),
    ("node_unavailable", "The Bitcoin node does not answer"),
    ("not_found", "There is nothing at this path"),
    ("not_listed", "The address is watched for a descriptor, and not by itself"),
    ("not_ready", "The daemon does not follow the node for the moment"),
    ("not_watched", "The address is not watched"),
    ("not_yours", "The descriptor counts for another token"),
    ("origin_not_allowed", "The web page that asks is not one that may"),
    ("overloaded", "Too much of other answers waits to be sent"),
    ("past_awaited", "The past of the wallet is looked for, so its next unused address is not known yet"),
    ("payload_too_large", "The body is longer than what is taken"),
    ("primary_unavailable", "The primary of this edge does not answer, or not in time"),
    ("private_key", "What looks like a private key or a seed was sent"),
    ("quota_reached", "As many as may be; limit names the setting"),
    ("rate_limited", "Too many requests in a short time"),
    ("scan_ended", "The scan is over and cannot be cancelled"),
    ("stopping", "The daemon is stopping"),
    ("timeout", "The body took too long to come"),
    ("too_many_confirmations", "More numbers of confirmations than may be told of one address or wallet"),
    ("too_many_consumers", "As many consumers as may be"),
    ("too_many_requests", "The daemon is busy with others of this kind"),
    ("too_many_scans", "As many scans as may wait"),
    ("too_many_scripts", "More addresses than may be watched"),
    ("too_many_subscriptions", "As many subscriptions as one connection may have"),
    ("unauthorized", "A token is needed, or this one is not known or has ended"),
    ("unknown_event", "No event of clients has this name"),
    ("unknown_field", "The body or the query has a field that is not known"),
    ("unsupported_media_type", "The body is not declared to be JSON"),
    ("webhook_stopped", "The webhook is stopped, so nothing is posted"),
    ("webhook_target_refused", "The URL of the webhook may not be posted to"),
    ("wrong_network", "An address or a descriptor of another network"),
];

/// As the documents have it.
pub struct ErrorCode;

impl JsonSchema for ErrorCode {
    fn schema_name() -> Cow<'static, str> {
        "ErrorCode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let known = CODES.iter();
        let mut choices: Vec<_> = known
            .map(|(code, meaning)| json_schema!({"const": code, "description": meaning}))
            .collect();
        choices.push(json_schema!({"type": "string", "description": "Of a later daemon"}));
        json_schema!({
            "description": "Why a request is refused, for programs: a code never changes its meaning, and new ones come.",
            "anyOf": choices,
        })
    }
}

/// The code that the documents name.
pub fn listed(code: &str) -> Option<&'static str> {
    let found = CODES.iter().find(|(listed, _)| *listed == code);
    found.map(|(listed, _)| *listed)
}

/// Whether the documents name it.
pub fn is_listed(code: &str) -> bool {
    listed(code).is_some()
}
