//! The text of a stream of server-sent events (HTML standard, "Server-sent events"), as the daemon
//! writes it: lines that end with LF or CR LF.

/// Of one message: far more than the daemon writes. (An event may have all transactions that an
/// address has in the mempool.)
const MOST_BYTES: usize = 64 << 20;

/// A message has more than [`MOST_BYTES`].
#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

/// What stands between two empty lines. One without data is a sign of life: its id is the place up
/// to which everything was told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    pub id: Option<String>,
    pub event: String,
    pub data: String,
    /// Milliseconds after which to come back when the stream has ended.
    pub retry: Option<u64>,
}

/// What has come and makes no whole message yet. What a connection breaks off in is dropped with
/// it.
#[derive(Debug, Default)]
pub struct StreamText {
    line: Vec<u8>,
    message: Message,
    /// Of all lines of the message.
    bytes: usize,
}

impl StreamText {
    /// The messages that these bytes complete.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Vec<Message>, TooLong> {
        let mut complete = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.bytes = self.bytes.saturating_add(part.len());
            if self.bytes > MOST_BYTES {
                return Err(TooLong);
            }
            self.line.extend_from_slice(part);
            if self.line.last() != Some(&b'\n') {
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            if !line.is_empty() {
                self.message.take(line);
                continue;
            }
            self.bytes = 0;
            let message = std::mem::take(&mut self.message);
            if message != Message::default() {
                complete.push(message);
            }
        }
        Ok(complete)
    }
}

impl Message {
    fn take(&mut self, line: &str) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.event),
            "retry" => self.retry = value.parse().ok(),
            "data" if self.data.is_empty() => value.clone_into(&mut self.data),
            "data" => {
                self.data.push('\n');
                self.data.push_str(value);
            }
            // A comment, or a field of a later standard.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(id: &str, event: &str, data: &str) -> Message {
        Message {
            id: Some(id.to_owned()),
            event: event.to_owned(),
            data: data.to_owned(),
            retry: None,
        }
    }

    const TEXT: &str = "retry: 1000\nid: a-1\n\n: a comment\n\nid: a-2\nevent: block\ndata: {\"é\":1}\n\n\
                        id:a-3\r\nevent:reorg\r\ndata:1\r\ndata: 2\r\nnew: field\r\n\r\nid: a-4\n\nid: a-5\nevent: cut o";

    fn all() -> Vec<Message> {
        let first = Message {
            retry: Some(1000),
            ..message("a-1", "", "")
        };
        let block = message("a-2", "block", "{\"é\":1}");
        let reorg = message("a-3", "reorg", "1\n2");
        vec![first, block, reorg, message("a-4", "", "")]
    }

    #[test]
    fn messages_are_read_and_what_is_not_whole_waits() {
        let mut text = StreamText::default();
        assert_eq!(text.read(TEXT.as_bytes()), Ok(all()));
        let rest = text.read(b"ff\n\n");
        assert_eq!(rest, Ok(vec![message("a-5", "cut off", "")]));
        assert_eq!(StreamText::default().read(b"retry: soon\n\n"), Ok(vec![]));
    }

    #[test]
    fn a_message_without_an_end_is_not_kept() {
        let chunk = vec![b'x'; MOST_BYTES / 4];
        for (between, is_bounded) in [("", true), ("\ndata:", true), ("\n\n", false)] {
            let mut text = StreamText::default();
            let mut read = || {
                text.read(&chunk)?;
                text.read(between.as_bytes())
            };
            let ended = (0..5).any(|_| read() == Err(TooLong));
            assert_eq!(ended, is_bounded, "{between:?}");
        }
    }

    proptest! {
        #[test]
        fn where_the_network_cuts_makes_no_difference(cuts in prop::collection::vec(1..20_usize, 1..80)) {
            let (mut text, mut rest, mut found) = (StreamText::default(), TEXT.as_bytes(), Vec::new());
            for cut in cuts.into_iter().chain([TEXT.len()]) {
                let (part, behind) = rest.split_at(cut.min(rest.len()));
                found.extend(text.read(part).expect("it is short"));
                rest = behind;
            }
            prop_assert_eq!(found, all());
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let read = StreamText::default().read(&bytes);
            prop_assert!(read.is_ok());
        }
    }
}
