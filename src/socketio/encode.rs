//! What goes to clients, in its final form: built once, its bytes shared by all clients it goes to.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::json::{self, JsonError};
use super::packet::{self, MAX_ATTACHMENTS, PacketType};
use crate::engineio::{Message, MessageGroup, Text};

/// Why something cannot be written as a packet.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("the data cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the event name {0:?} is reserved by the client libraries")]
    Reserved(String),
    #[error("{0} attachments, and clients accept at most {MAX_ATTACHMENTS}")]
    Attachments(usize),
    #[error(transparent)]
    Placeholder(#[from] JsonError),
}

/// An event in its final form for one namespace. Cloning shares the bytes.
#[derive(Debug, Clone)]
pub struct Encoded(MessageGroup);

impl Encoded {
    /// An event with one argument.
    pub fn event<T: Serialize + ?Sized>(
        namespace: &str,
        name: &str,
        data: &T,
    ) -> Result<Self, EncodeError> {
        let push = |text: &mut String| {
            text.push(',');
            Ok(packet::push_json(text, data)?)
        };
        event(namespace, name, push, &[])
    }

    /// An event with one argument that is JSON already.
    pub fn event_raw(namespace: &str, name: &str, json: &str) -> Result<Self, EncodeError> {
        let raw: &RawValue = serde_json::from_str(json)?;
        let push = |text: &mut String| {
            text.push(',');
            text.push_str(raw.get());
            Ok(())
        };
        event(namespace, name, push, &[])
    }

    /// An event with any number of arguments; each `{"_placeholder":true,"num":i}` in them stands
    /// for one of at most [`MAX_ATTACHMENTS`] attachments.
    pub fn event_with(
        namespace: &str,
        name: &str,
        args: &[Box<RawValue>],
        attachments: &[Bytes],
    ) -> Result<Self, EncodeError> {
        let push = |text: &mut String| {
            for arg in args {
                text.push(',');
                text.push_str(arg.get());
            }
            Ok(())
        };
        event(namespace, name, push, attachments)
    }

    pub(super) fn of(group: MessageGroup) -> Self {
        Self(group)
    }

    /// The packet's text, without the attachments that it may have.
    pub fn text(&self) -> &str {
        let first = match &self.0 {
            MessageGroup::One(message) => Some(message),
            MessageGroup::Many(messages) => messages.first(),
        };
        match first {
            Some(Message::Text(text)) => text.as_str(),
            Some(Message::Binary(_)) | None => "",
        }
    }

    /// Bytes that it takes, about.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    pub(super) fn into_group(self) -> MessageGroup {
        self.0
    }
}

/// The answer to a CONNECT. The ids are base64url, so there is nothing to escape.
pub fn connect(namespace: &str, sid: &str) -> MessageGroup {
    text(Text::compose(namespace.len().saturating_add(80), |text| {
        packet::push_head(text, PacketType::Connect, 0, namespace, None);
        text.push_str("{\"sid\":\"");
        text.push_str(sid);
        text.push_str("\"}");
    }))
}

/// The answer to a CONNECT of protocol revision 4.
pub fn connect_without_ids(namespace: &str) -> MessageGroup {
    bare(PacketType::Connect, namespace)
}

/// The refusal of a CONNECT.
pub fn connect_error<T: Serialize + ?Sized>(namespace: &str, payload: &T) -> MessageGroup {
    text(Text::compose(namespace.len().saturating_add(80), |text| {
        packet::push_head(text, PacketType::ConnectError, 0, namespace, None);
        packet::push_json(text, payload).expect("text and JSON values can be written as JSON");
    }))
}

pub fn disconnect(namespace: &str) -> MessageGroup {
    bare(PacketType::Disconnect, namespace)
}

fn bare(kind: PacketType, namespace: &str) -> MessageGroup {
    let capacity = namespace.len().saturating_add(4);
    text(Text::compose(capacity, |text| {
        packet::push_head(text, kind, 0, namespace, None)
    }))
}

/// The answer to an event, with any number of arguments.
pub fn ack(
    namespace: &str,
    id: u64,
    push_args: impl FnOnce(&mut String) -> Result<(), EncodeError>,
    attachments: &[Bytes],
) -> Result<MessageGroup, EncodeError> {
    array_packet(PacketType::Ack, namespace, Some(id), push_args, attachments)
}

fn text(text: Text) -> MessageGroup {
    MessageGroup::One(Message::Text(text))
}

fn event(
    namespace: &str,
    name: &str,
    push_args: impl FnOnce(&mut String) -> Result<(), EncodeError>,
    attachments: &[Bytes],
) -> Result<Encoded, EncodeError> {
    if packet::is_reserved(name) {
        return Err(EncodeError::Reserved(name.to_owned()));
    }
    let push = |text: &mut String| {
        packet::push_json(text, name)?;
        push_args(text)
    };
    array_packet(PacketType::Event, namespace, None, push, attachments).map(Encoded)
}

/// A packet whose payload is an array; `kind` is the one without attachments. The header and its
/// attachments are one group, because nothing may come between them.
fn array_packet(
    kind: PacketType,
    namespace: &str,
    id: Option<u64>,
    push_elements: impl FnOnce(&mut String) -> Result<(), EncodeError>,
    attachments: &[Bytes],
) -> Result<MessageGroup, EncodeError> {
    if attachments.len() > MAX_ATTACHMENTS {
        return Err(EncodeError::Attachments(attachments.len()));
    }
    let kind = match (kind, attachments.is_empty()) {
        (PacketType::Event, false) => PacketType::BinaryEvent,
        (PacketType::Ack, false) => PacketType::BinaryAck,
        (kind, _) => kind,
    };
    let mut outcome = Ok(());
    let header = Text::compose(256, |text| {
        packet::push_head(text, kind, attachments.len(), namespace, id);
        let json_at = text.len();
        text.push('[');
        outcome = push_elements(text).and_then(|()| {
            text.push(']');
            match attachments.is_empty() {
                true => Ok(()),
                false => Ok(json::check(
                    text.as_bytes().get(json_at..).unwrap_or_default(),
                    attachments.len(),
                )?),
            }
        });
    });
    outcome?;
    if attachments.is_empty() {
        return Ok(text(header));
    }
    let header = std::iter::once(Message::Text(header));
    Ok(MessageGroup::Many(
        header
            .chain(attachments.iter().cloned().map(Message::Binary))
            .collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::connect::ConnectRefused;
    use super::*;

    fn shown(group: &MessageGroup) -> String {
        let messages = match group {
            MessageGroup::One(message) => std::slice::from_ref(message),
            MessageGroup::Many(messages) => messages,
        };
        let shown = messages.iter().map(|message| match message {
            Message::Text(text) => format!("4{}", text.as_str()),
            Message::Binary(bytes) => format!("{bytes:?}"),
        });
        shown.collect::<Vec<_>>().join(" + ")
    }

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    /// Whole Engine.IO packets, as they go out.
    #[test]
    fn what_is_written() {
        let bytes = [Bytes::from_static(b"x"), Bytes::new()];
        let refused = ConnectRefused {
            message: "no".to_owned(),
            data: Some(serde_json::json!({"why": ["\u{1e}", 1.0]})),
        };
        let two = |text: &mut String| {
            text.push_str(r#"{"_placeholder":true,"num":0},1"#);
            Ok(())
        };
        for (packet, expected) in [
            (connect("/", "s"), r#"40{"sid":"s"}"#),
            (connect("/custom", "s"), r#"40/custom,{"sid":"s"}"#),
            (connect_without_ids("/"), "40"),
            (connect_without_ids("/custom"), "40/custom,"),
            (
                connect_error(
                    "/",
                    &ConnectRefused {
                        message: "a \"b\"".to_owned(),
                        data: None,
                    },
                ),
                r#"44{"message":"a \"b\""}"#,
            ),
            (
                connect_error("/é", &refused),
                r#"44/é,{"message":"no","data":{"why":["\u001e",1.0]}}"#,
            ),
            (connect_error("/", "a \"b\""), r#"44"a \"b\"""#),
            (disconnect("/"), "41"),
            (disconnect("/custom"), "41/custom,"),
            (ack("/", 0, |_| Ok(()), &[]).unwrap(), "430[]"),
            (
                ack("/custom", 12, two, &bytes[..1]).unwrap(),
                r#"461-/custom,12[{"_placeholder":true,"num":0},1] + b"x""#,
            ),
            (
                Encoded::event("/", "a", "é\u{1e}\n").unwrap().0,
                "42[\"a\",\"é\\u001e\\n\"]",
            ),
            (
                Encoded::event("/", "a\"b", &()).unwrap().0,
                r#"42["a\"b",null]"#,
            ),
            (
                Encoded::event("/custom", "a", &1).unwrap().0,
                r#"42/custom,["a",1]"#,
            ),
            (
                Encoded::event_with("/", "a", &[], &[]).unwrap().0,
                r#"42["a"]"#,
            ),
            (
                Encoded::event_with("/", "a", &[raw("1e400"), raw("-0")], &[])
                    .unwrap()
                    .0,
                r#"42["a",1e400,-0]"#,
            ),
            (
                Encoded::event_with("/", "a", &[raw(r#"{"_placeholder":true,"num":9}"#)], &[])
                    .unwrap()
                    .0,
                r#"42["a",{"_placeholder":true,"num":9}]"#,
            ),
            (
                Encoded::event_with(
                    "/n",
                    "a",
                    &[raw(r#"[{"_placeholder":true,"num":1}]"#)],
                    &bytes,
                )
                .unwrap()
                .0,
                r#"452-/n,["a",[{"_placeholder":true,"num":1}]] + b"x" + b"""#,
            ),
        ] {
            assert_eq!(shown(&packet), expected);
        }
    }
}
