//! What clients of protocol revision 4 alone need; a connection of revision 5 pays nothing for it.

use serde_json::value::RawValue;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::AbortOnDropHandle;

use super::connect::ConnectRefused;
use super::encode;
use crate::engineio::MessageGroup;

/// The CONNECT to `/` that such a client does not send, under way beside its session. The client's
/// messages are looked at when it is over. It ends with the connection, which drops this.
pub struct ImplicitConnect {
    over: CancellationToken,
    _task: AbortOnDropHandle<()>,
}

impl ImplicitConnect {
    pub fn run(connect: impl Future<Output = ()> + Send + 'static) -> Self {
        let over = CancellationToken::new();
        let guard = over.clone().drop_guard();
        let task = tokio::spawn(async move {
            let _guard = guard;
            connect.await;
        });
        Self {
            over,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Waits for its end, if it is not over.
    pub fn under_way(&self) -> Option<WaitForCancellationFutureOwned> {
        (!self.over.is_cancelled()).then(|| self.over.clone().cancelled_owned())
    }
}

/// The namespace and the query in its name.
pub fn split(namespace: &str) -> (&str, Option<&str>) {
    namespace
        .split_once('?')
        .map_or((namespace, None), |(name, query)| (name, Some(query)))
}

/// As the reference server has it: only refusals by the application are bare.
pub fn refusal(namespace: &str, refused: &ConnectRefused) -> MessageGroup {
    match (&refused.data, refused.message.as_str()) {
        (Some(data), _) => encode::connect_error(namespace, data),
        (None, "Invalid namespace") => encode::connect_error(namespace, refused),
        (None, message) => encode::connect_error(namespace, message),
    }
}

/// A query as an object of text; a key that is there more than once has a list, as in the reference
/// server.
pub fn query_object(query: &str) -> Box<RawValue> {
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
