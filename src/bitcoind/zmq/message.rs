//! What a message says: its three frames, and what its number tells about those before it.
//!
//! Each message has three frames (doc/zmq.md of Bitcoin Core, and seen on the wire):
//!
//! ```text
//! topic                  "rawtx" | "rawblock" | "sequence", exact; other words may share the prefix
//! body    rawtx          transaction with witness
//!         rawblock       block with witness
//!         sequence       32 bytes hash as displayed, then 'C' | 'D' (block connected, disconnected)
//!                        or 'A' | 'R' (transaction accepted, removed) and its mempool sequence, u64 little-endian
//! number  u32 little-endian, counts this topic on this address since the node's start, wraps
//! ```

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ZmqTopic {
    Rawtx,
    Rawblock,
    Sequence,
}

impl ZmqTopic {
    pub const ALL: [Self; 3] = [Self::Rawtx, Self::Rawblock, Self::Sequence];

    pub fn name(self) -> &'static str {
        match self {
            Self::Rawtx => "rawtx",
            Self::Rawblock => "rawblock",
            Self::Sequence => "sequence",
        }
    }

    pub(super) fn index(self) -> usize {
        match self {
            Self::Rawtx => 0,
            Self::Rawblock => 1,
            Self::Sequence => 2,
        }
    }
}

/// What a `sequence` message says. The hash is in internal byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence {
    pub hash: [u8; 32],
    pub what: SequenceEvent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceEvent {
    BlockConnected,
    BlockDisconnected,
    /// With the mempool sequence.
    Accepted(u64),
    Removed(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageBody {
    Tx(Vec<u8>),
    Block(Vec<u8>),
    Sequence(Sequence),
}

/// A message in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZmqMessage {
    pub topic: ZmqTopic,
    pub number: u32,
    pub body: MessageBody,
}

/// Three frames as a message; `None` for anything that is not exactly one.
pub fn parse(frames: Vec<Vec<u8>>) -> Option<ZmqMessage> {
    let [topic, body, number]: [Vec<u8>; 3] = frames.try_into().ok()?;
    let number = u32::from_le_bytes(number.try_into().ok()?);
    let (topic, body) = match topic.as_slice() {
        b"rawtx" => (ZmqTopic::Rawtx, MessageBody::Tx(body)),
        b"rawblock" => (ZmqTopic::Rawblock, MessageBody::Block(body)),
        b"sequence" => (
            ZmqTopic::Sequence,
            MessageBody::Sequence(parse_sequence(&body)?),
        ),
        _ => return None,
    };
    Some(ZmqMessage {
        topic,
        number,
        body,
    })
}

fn parse_sequence(body: &[u8]) -> Option<Sequence> {
    let (hash, rest) = body.split_first_chunk::<32>()?;
    let mut hash = *hash;
    hash.reverse();
    let (label, rest) = rest.split_first()?;
    let what = match (label, rest) {
        (b'C', []) => SequenceEvent::BlockConnected,
        (b'D', []) => SequenceEvent::BlockDisconnected,
        (b'A', number) => SequenceEvent::Accepted(u64::from_le_bytes(number.try_into().ok()?)),
        (b'R', number) => SequenceEvent::Removed(u64::from_le_bytes(number.try_into().ok()?)),
        _ => return None,
    };
    Some(Sequence { hash, what })
}

/// What a message's number says about those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Next,
    Lost(u32),
    /// It went back: the node counts from 0 at its start.
    Restarted,
}

/// The numbers of one topic on one address.
#[derive(Debug, Clone, Copy, Default)]
pub struct SequenceCounter {
    last: Option<u32>,
}

impl SequenceCounter {
    pub fn observe(&mut self, number: u32) -> Order {
        let Some(last) = self.last.replace(number) else {
            return Order::Next;
        };
        match number.wrapping_sub(last.wrapping_add(1)) {
            0 => Order::Next,
            // Half the range, as for TCP's numbers: farther ahead is behind.
            lost if lost < u32::MAX / 2 => Order::Lost(lost),
            _ => Order::Restarted,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(topic: &str, body: &[u8], number: u32) -> Vec<Vec<u8>> {
        vec![
            topic.as_bytes().to_vec(),
            body.to_vec(),
            number.to_le_bytes().to_vec(),
        ]
    }

    fn sequence_body(label: u8, tail: &[u8]) -> Vec<u8> {
        let hash: Vec<u8> = (0..32).collect();
        [hash.as_slice(), &[label], tail].concat()
    }

    #[test]
    fn a_message_is_read_with_its_hash_turned_round() {
        let body = sequence_body(b'A', &7u64.to_le_bytes());
        let frame = parse(frames("sequence", &body, 5)).unwrap();
        let mut hash: [u8; 32] = std::array::from_fn(|i| i as u8);
        hash.reverse();
        assert_eq!(
            frame,
            ZmqMessage {
                topic: ZmqTopic::Sequence,
                number: 5,
                body: MessageBody::Sequence(Sequence {
                    hash,
                    what: SequenceEvent::Accepted(7)
                })
            }
        );
    }

    #[test]
    fn what_is_not_exactly_a_message_is_nothing() {
        for wrong in [
            frames("rawtx2", b"x", 1),
            frames("hashblock", &[0; 32], 1),
            frames("sequence", &sequence_body(b'C', b"x"), 1),
            frames("sequence", &sequence_body(b'A', &[0; 7]), 1),
            frames("sequence", &sequence_body(b'X', b""), 1),
            frames("sequence", &[0; 32], 1),
            vec![b"rawtx".to_vec(), b"x".to_vec()],
            vec![b"rawtx".to_vec(), b"x".to_vec(), vec![1, 2, 3]],
            vec![],
        ] {
            assert_eq!(parse(wrong.clone()), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_upset_the_parser(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..5)) {
            let _ = parse(frames);
        }

        #[test]
        fn no_sequence_body_upsets_the_parser(body in prop::collection::vec(any::<u8>(), 0..50)) {
            let _ = parse(frames("sequence", &body, 0));
        }
    }

    #[test]
    fn numbers_tell_gaps_wraps_and_restarts() {
        let mut counter = SequenceCounter::default();
        let told: Vec<_> = [7, 8, 11, u32::MAX - 1, u32::MAX, 0, 1]
            .into_iter()
            .map(|number| counter.observe(number))
            .collect();
        use Order::{Lost, Next, Restarted};
        // From 11 to near the top is more than half the range, so it counts as going back.
        assert_eq!(told, [Next, Next, Lost(2), Restarted, Next, Next, Next]);
        assert_eq!(counter.observe(0), Restarted);
        assert_eq!(counter.observe(0), Restarted);
        assert_eq!(counter.observe(1), Next);
    }
}
