//! `PATCH /addresses/{address}` and `PATCH /descriptors/{id}`: what they are called. Of a
//! descriptor any address may have a label, as one has that was given away with it.

use hyper::StatusCode;
use schemars::{JsonSchema, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

use super::respond::{self, Reply, WithCursor};
use crate::api::scans::Scans;
use crate::clock::now_ms;
use crate::indexer::InputRefused;
use crate::tracker::{ApplyError, Input, SubjectId};
use crate::wire::ApiError;
use crate::wire::request::Request;
use crate::wire::request::descriptors::{descriptor_id, no_such_descriptor};
use crate::wire::request::types::Label;
use crate::wire::schema::inline_schema;

/// The body of both. `null` and an empty text take the label away.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeLabel {
    #[serde(deserialize_with = "label_or_null")]
    #[schemars(with = "LabelOrNull")]
    label: Option<Label>,
}

/// What stands in its place in the contract, where an `Option` may be absent.
pub struct LabelOrNull;

inline_schema!(LabelOrNull, "LabelOrNull", |generator| json_schema!({
    "anyOf": [Label::json_schema(generator), {"type": "null"}],
}));

/// What an address is called now.
#[derive(Serialize, JsonSchema)]
pub struct AddressLabel {
    address: String,
    label: String,
}

/// What a descriptor is called now.
#[derive(Serialize, JsonSchema)]
pub struct DescriptorLabel {
    descriptor_id: String,
    label: String,
}

impl Request for ChangeLabel {
    const EXAMPLE: &'static str = "{\"label\": \"<label>\"}";
}

/// It must be there: else a body with another name in it would take the label away.
fn label_or_null<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Label>, D::Error> {
    Option::deserialize(value)
}

/// `PATCH /addresses/{address}`
pub async fn label_address(
    scans: &Scans,
    address: &str,
    asked: ChangeLabel,
) -> Result<Reply<WithCursor<AddressLabel>>, ApiError> {
    let known = scans.reads.address(address)?;
    let (label, cursor) = change(scans, SubjectId::Script(known.script), asked)
        .await?
        .ok_or_else(|| ApiError::not_watched(&known.text))?;
    let address = known.text;
    let labelled = AddressLabel { address, label };
    Ok(respond::with_cursor(StatusCode::OK, &cursor, labelled))
}

/// `PATCH /descriptors/{id}`
pub async fn label_descriptor(
    scans: &Scans,
    id: &str,
    asked: ChangeLabel,
) -> Result<Reply<WithCursor<DescriptorLabel>>, ApiError> {
    let id = descriptor_id(id)?;
    let changed = change(scans, SubjectId::Descriptor(id), asked).await?;
    let (label, cursor) = changed.ok_or_else(no_such_descriptor)?;
    let descriptor_id = id.to_string();
    let labelled = DescriptorLabel {
        descriptor_id,
        label,
    };
    Ok(respond::with_cursor(StatusCode::OK, &cursor, labelled))
}

/// The label and a cursor behind the event that tells of it; `None`: it is not watched.
async fn change(
    scans: &Scans,
    subject: SubjectId,
    asked: ChangeLabel,
) -> Result<Option<(String, String)>, ApiError> {
    let label = asked.label.map_or_else(String::new, |Label(label)| label);
    let input = Input::Label {
        subject,
        label: label.clone(),
        now: now_ms(),
    };
    match scans.indexer.apply(input).await {
        Ok(done) => Ok(Some((label, scans.reads.encoder.cursor(done.head)))),
        Err(InputRefused::Apply(ApplyError::NotWatched(_) | ApplyError::NoSuchDescriptor(_))) => {
            Ok(None)
        }
        Err(refused) => Err(refused.into()),
    }
}
