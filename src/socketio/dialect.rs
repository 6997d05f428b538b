//! What is different for clients of protocol revision 4 (Socket.IO 2), which come over Engine.IO 3;
//! all else is as in revision 5.
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

use super::encode;
use super::handler::ConnectRefused;
use super::socket::Identity;
use crate::engineio::{Group, Revision};

/// The revision of the Socket.IO protocol that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Four,
    Five,
}

impl From<Revision> for Dialect {
    fn from(engine: Revision) -> Self {
        match engine {
            Revision::Three => Self::Four,
            Revision::Four => Self::Five,
        }
    }
}

impl Dialect {
    /// The namespace of a packet, and the query in its name if queries are split there.
    pub fn split(self, namespace: &str) -> (&str, Option<&str>) {
        match self {
            Self::Four => namespace
                .split_once('?')
                .map_or((namespace, None), |(name, query)| (name, Some(query))),
            Self::Five => (namespace, None),
        }
    }

    /// Revision 4 has no payload in a CONNECT; what stands in the query is the application's in its
    /// place.
    pub fn auth(self, payload: Option<Box<RawValue>>, query: Option<&str>) -> Box<RawValue> {
        let object = match self {
            Self::Five => payload,
            Self::Four => query.map(query_object),
        };
        object.unwrap_or_else(|| RawValue::from_string("{}".to_owned()).expect("{} is JSON"))
    }

    pub fn answer(self, Identity { id, namespace }: &Identity) -> Group {
        match self {
            Self::Five => encode::connect(namespace, id),
            Self::Four => encode::connect_without_ids(namespace),
        }
    }

    pub fn refusal(self, namespace: &str, refused: &ConnectRefused) -> Group {
        let ConnectRefused { message, data } = refused;
        match (self, data) {
            (Self::Four, Some(data)) => encode::connect_error(namespace, data),
            // As the reference server has it: only refusals by the application are bare text.
            (Self::Four, None) if message != "Invalid namespace" => {
                encode::connect_error(namespace, message)
            }
            _ => encode::connect_error(namespace, refused),
        }
    }
}

/// A query as an object of text; a key that is there more than once has a list, as in the reference
/// server.
fn query_object(query: &str) -> Box<RawValue> {
    let mut object = serde_json::Map::new();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        let value = serde_json::Value::from(value.into_owned());
        match object.get_mut(&*key) {
            None => drop(object.insert(key.into_owned(), value)),
            Some(serde_json::Value::Array(values)) => values.push(value),
            Some(one) => *one = serde_json::Value::Array(vec![one.take(), value]),
        }
    }
    serde_json::value::to_raw_value(&object).expect("text can be written as JSON")
}
