//! Messages of the layer above, either way.

use std::sync::Arc;

use bytes::Bytes;
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// The text of a message as a complete Engine.IO packet: the type digit `4` and what follows.
///
/// It is kept that way so that one encoded text can be written to any number of WebSockets as it
/// is: a clone shares the bytes and a frame needs no second buffer to put the digit in front. It
/// must not contain U+001E, the separator of polling payloads (JSON never does); a polling session
/// sends its neighbour U+001F in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Utf8Bytes);

impl Text {
    /// Copies `text` once, behind the digit.
    pub fn new(text: &str) -> Self {
        Self::compose(text.len(), |frame| frame.push_str(text))
    }

    /// Writes the text in place: `write` gets the digit and appends to it. `capacity` is the
    /// expected length without the digit.
    pub fn compose(capacity: usize, write: impl FnOnce(&mut String)) -> Self {
        let mut frame = String::with_capacity(capacity.saturating_add(1));
        frame.push('4');
        write(&mut frame);
        debug_assert!(frame.starts_with('4'), "compose appends only");
        Self(frame.into())
    }

    /// A whole packet as it came; `None` when it is not a message.
    pub(super) fn from_frame(frame: Utf8Bytes) -> Option<Self> {
        frame.as_str().starts_with('4').then_some(Self(frame))
    }

    /// What is behind the digit.
    pub fn as_str(&self) -> &str {
        let mut chars = self.0.as_str().chars();
        chars.next();
        chars.as_str()
    }

    /// The whole packet.
    pub(super) fn as_packet(&self) -> &str {
        self.0.as_str()
    }

    /// The whole packet.
    pub(super) fn into_frame(self) -> Utf8Bytes {
        self.0
    }
}

/// A message of the layer above, either way. Cloning shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Text(Text),
    Binary(Bytes),
}

impl Message {
    pub fn text(text: &str) -> Self {
        Self::Text(Text::new(text))
    }

    /// Bytes of the message itself, without a type digit.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.as_str().len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Text> for Message {
    fn from(text: Text) -> Self {
        Self::Text(text)
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }
}

/// Messages that must stay together: one, or a header with its attachments.
#[derive(Debug, Clone)]
pub enum MessageGroup {
    One(Message),
    Many(Arc<[Message]>),
}

impl MessageGroup {
    pub fn bytes(&self) -> usize {
        match self {
            Self::One(message) => message.len(),
            Self::Many(messages) => messages.iter().map(Message::len).sum(),
        }
    }
}
