//! What is different for clients of protocol revision 4 (Socket.IO 2), which come over Engine.IO 3;
//! all else is as in revision 5. What revision 4 alone needs is in [`revision_4`].
//!
//! ```text
//!                    revision 5                         revision 4
//! namespace /        joined by the client's CONNECT     joined at once, unasked
//! CONNECT            0/nsp,{"token":"x"}                0/nsp?token=x,
//! its answer         0/nsp,{"sid":"…"}                  0/nsp,
//! its refusal        4/nsp,{"message":…,"data":…}       4/nsp, and the data, or else the message, alone
//! ```
//! Where the reference server differs: a client of revision 4 takes its Engine.IO session id for
//! the id of its socket (`/nsp#<id>` in a namespace), and so does that server. Here the ids of
//! sockets are random for all: the session's is a secret that an application must not be able to
//! pass on.

use serde_json::value::RawValue;

use super::connect::ConnectRefused;
use super::{encode, revision_4};
use crate::engineio::{MessageGroup, Revision};

/// The revision of the Socket.IO protocol that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolRevision {
    Four,
    Five,
}

impl From<Revision> for ProtocolRevision {
    fn from(engine: Revision) -> Self {
        match engine {
            Revision::Three => Self::Four,
            Revision::Four => Self::Five,
        }
    }
}

impl ProtocolRevision {
    /// The namespace of a packet, and the query in its name if queries are split there.
    pub fn split(self, namespace: &str) -> (&str, Option<&str>) {
        match self {
            Self::Four => revision_4::split(namespace),
            Self::Five => (namespace, None),
        }
    }

    /// Revision 4 has no payload in a CONNECT; what stands in the query is the application's in its
    /// place.
    pub fn auth(self, payload: Option<Box<RawValue>>, query: Option<&str>) -> Box<RawValue> {
        let object = match self {
            Self::Five => payload,
            Self::Four => query.map(revision_4::query_object),
        };
        object.unwrap_or_else(|| RawValue::from_string("{}".to_owned()).expect("{} is JSON"))
    }

    pub fn answer(self, namespace: &str, id: &str) -> MessageGroup {
        match self {
            Self::Five => encode::connect(namespace, id),
            Self::Four => encode::connect_without_ids(namespace),
        }
    }

    pub fn refusal(self, namespace: &str, refused: &ConnectRefused) -> MessageGroup {
        match self {
            Self::Five => encode::connect_error(namespace, refused),
            Self::Four => revision_4::refusal(namespace, refused),
        }
    }
}
