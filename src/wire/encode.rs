//! Events as clients get them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bitcoin::Network;

use super::address::script;
use super::json::NAMESPACE;
use super::{cursor, json};
use crate::socketio::{EncodeError, Encoded};
use crate::store::Starts;
use crate::tracker::{Event, Subject};

/// The starts of the log that is served, as they are now: an edge hears of more meanwhile.
pub trait LogStarts: fmt::Debug + Send + Sync {
    fn now(&self) -> Arc<Starts>;
}

impl LogStarts for Arc<Starts> {
    fn now(&self) -> Arc<Starts> {
        self.clone()
    }
}

/// Encodes events, with what their cursors and addresses are made with.
#[derive(Debug, Clone)]
pub struct EventEncoder {
    starts: Arc<dyn LogStarts>,
    pub network: Network,
}

impl EventEncoder {
    pub fn new(starts: impl LogStarts + 'static, network: Network) -> Self {
        let starts = Arc::new(starts);
        Self { starts, network }
    }

    /// As they are now.
    pub fn starts(&self) -> Arc<Starts> {
        self.starts.now()
    }

    pub fn cursor(&self, number: u64) -> String {
        cursor::write(&self.starts(), number)
    }

    /// The address or the id of the descriptor that it is about; empty for events about the chain.
    pub fn subject(&self, event: &Event) -> String {
        match event.kind.subject() {
            Some(Subject::Script { spk, .. }) => script::text(spk, self.network),
            Some(Subject::Descriptor(descriptor)) => descriptor.to_string(),
            None => String::new(),
        }
    }

    /// The event as every subscriber gets it.
    pub fn encode(&self, number: u64, event: &Event) -> Result<EncodedEvent, EncodeError> {
        let (name, json) = json::event(event, self.cursor(number), self.network);
        EncodedEvent::new(name.into(), &json)
    }
}

/// One event, encoded. Cloning shares the bytes.
#[derive(Debug, Clone)]
pub struct EncodedEvent {
    name: Cow<'static, str>,
    frame: Encoded,
}

impl EncodedEvent {
    pub fn new(name: Cow<'static, str>, json: &str) -> Result<Self, EncodeError> {
        let frame = Encoded::event_raw(NAMESPACE, &name, json)?;
        Ok(Self { name, frame })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn frame(&self) -> &Encoded {
        &self.frame
    }

    /// The data: in `2["<name>",<data>]` it stands between the name and the last bracket.
    pub fn json(&self) -> &str {
        let text = self.frame.text();
        let begin = self.name.len().saturating_add("2[\"\",".len());
        let end = text.len().saturating_sub("]".len());
        text.get(begin..end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_of_an_event_is_a_slice_of_its_frame() {
        let json = r#"{"a":[1,"\"]"]}"#;
        let event = EncodedEvent::new("block".into(), json).expect("it is text");
        assert_eq!(event.json(), json);
    }
}
