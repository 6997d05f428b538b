//! Connection state recovery: who may come back after a loss, and as whom.
//!
//! ```text
//!                         lost (see `DisconnectReason::is_loss`)
//! (absent) ──CONNECT──► Here ───────────────────────────────► Lost ── window over, or too many ──► (absent)
//!             {"recover":  │ ▲                                   │
//!              true}       │ └──── CONNECT {"pid","offset"} ─────┘
//!                          └── left, or was disconnected ──► (absent)
//! ```
//! A client asks with `{"recover": true}` in its CONNECT payload, because clients that know nothing
//! of recovery must not get the offset, an argument more than their handlers take. Unlike in the
//! reference server
//! - a session is used up by the recovery, so that one client never becomes two, and a later loss
//!   saves it anew;
//! - an old connection that the server has not missed yet is ended by the client's return;
//! - the application admits the client again (`Handler::authorize`): its rights may have gone
//!   meanwhile;
//! - a client that has heard no event but the first can be recovered too;
//! - the CONNECT answer comes before what the client missed. There it comes behind: the stock
//!   JavaScript client keeps events until the answer is there, and hears them twice when the
//!   connection is lost in between, because its offset has not moved.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::handler::DisconnectReason;
use super::socket::{Identity, Socket};

/// How long a client that comes back waits for its old connection to end.
const LEAVING: Duration = Duration::from_secs(1);
/// How often it looks.
const PAUSE: Duration = Duration::from_millis(5);

/// What a CONNECT payload says of recovery.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The client wants to be recoverable from now on.
    pub wanted: bool,
    /// It was here before: its private id and where it stands.
    pub past: Option<(String, String)>,
}

impl Wish {
    /// Anything that is not exactly as it should be is no wish: the client gets a normal
    /// connection.
    pub fn of(auth: &RawValue) -> Self {
        #[derive(Deserialize)]
        struct Payload {
            #[serde(default)]
            recover: serde_json::Value,
            #[serde(default)]
            pid: serde_json::Value,
            #[serde(default)]
            offset: serde_json::Value,
        }
        let Ok(payload) = serde_json::from_str::<Payload>(auth.get()) else {
            return Self::default();
        };
        let past = match (payload.pid, payload.offset) {
            (serde_json::Value::String(pid), serde_json::Value::String(offset)) => {
                Some((pid, offset))
            }
            _ => None,
        };
        Self {
            wanted: payload.recover == true,
            past,
        }
    }
}

/// The recoverable clients of a layer: those who are here, and for a while those who were lost.
/// Private ids are secrets, so nothing here can be printed.
pub struct Sessions {
    state: Mutex<State>,
    /// Lost clients that are remembered at a time; the longest lost gives way.
    max_lost: usize,
    window: Duration,
}

#[derive(Default)]
struct State {
    places: HashMap<Box<str>, Place>,
    /// The lost ones in the order in which they were lost.
    lost: BTreeMap<u64, Box<str>>,
    losses: u64,
}

enum Place {
    Here(Socket),
    Lost {
        id: Box<str>,
        namespace: Arc<str>,
        number: u64,
        expiry: AbortHandle,
    },
}

impl Sessions {
    pub fn new(window: Duration, max_lost: usize) -> Self {
        Self {
            state: Mutex::default(),
            max_lost,
            window,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Without time or room for lost clients nobody becomes recoverable.
    pub fn is_enabled(&self) -> bool {
        self.max_lost > 0 && !self.window.is_zero()
    }

    /// A recoverable client was admitted.
    pub fn enter(&self, socket: &Socket) {
        if let Some(pid) = &socket.identity().pid {
            self.state()
                .places
                .insert(pid.clone(), Place::Here(socket.clone()));
        }
    }

    /// The client of this private id comes back to this namespace. Its public id, if it is
    /// remembered. Whatever is still here of it is ended first.
    pub async fn find(&self, pid: &str, namespace: &str) -> Option<Box<str>> {
        let deadline = Instant::now() + LEAVING;
        loop {
            let here = match self.state().places.get(pid) {
                Some(Place::Lost {
                    id,
                    namespace: lost,
                    ..
                }) if &**lost == namespace => return Some(id.clone()),
                Some(Place::Here(socket)) if socket.namespace() == namespace => {
                    socket.connection()?
                }
                _ => return None,
            };
            here.supersede();
            // Mostly it has left by now. If not, somebody else is telling the application of that,
            // or its own recovery is being ended.
            if matches!(self.state().places.get(pid), Some(Place::Here(_))) {
                if Instant::now() >= deadline {
                    return None;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Uses up what [`Sessions::find`] found; false if that happened already.
    pub fn take(&self, pid: &str) -> bool {
        let mut state = self.state();
        matches!(state.places.get(pid), Some(Place::Lost { .. })) && state.forget(pid).is_some()
    }

    /// The application was told that a recoverable client has left. The public ids of those who
    /// cannot come back any more.
    pub fn left(
        self: &Arc<Self>,
        socket: &Socket,
        reason: DisconnectReason,
        forgotten: impl FnOnce(&str) + Send + 'static,
    ) -> Vec<Box<str>> {
        let Identity {
            id,
            pid: Some(pid),
            namespace,
        } = socket.identity()
        else {
            return Vec::new();
        };
        let mut state = self.state();
        state.forget(pid);
        // Without a runtime the process is ending.
        let runtime = match reason.is_loss() {
            true => Handle::try_current().ok(),
            false => None,
        };
        let Some(runtime) = runtime else {
            return vec![id.clone()];
        };
        state.losses = state.losses.wrapping_add(1);
        let number = state.losses;
        let (sessions, window) = (Arc::downgrade(self), self.window);
        let expiry = runtime.spawn(async move {
            tokio::time::sleep(window).await;
            if let Some(id) = sessions
                .upgrade()
                .and_then(|sessions| sessions.expire(number))
            {
                forgotten(&id);
            }
        });
        let lost = Place::Lost {
            id: id.clone(),
            namespace: namespace.clone(),
            number,
            expiry: expiry.abort_handle(),
        };
        state.places.insert(pid.clone(), lost);
        state.lost.insert(number, pid.clone());
        let mut gone = Vec::new();
        while state.lost.len() > self.max_lost {
            let Some(longest) = state.lost.first_key_value().map(|(_, pid)| pid.clone()) else {
                break;
            };
            gone.extend(state.forget(&longest));
        }
        gone
    }

    fn expire(&self, number: u64) -> Option<Box<str>> {
        let mut state = self.state();
        let pid = state.lost.get(&number)?.clone();
        state.forget(&pid)
    }
}

#[cfg(test)]
impl Sessions {
    /// How many are here, and how many lost ones are remembered.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.places.len() - state.lost.len(), state.lost.len())
    }
}

impl State {
    /// The public id of a lost one.
    fn forget(&mut self, pid: &str) -> Option<Box<str>> {
        match self.places.remove(pid)? {
            Place::Here(_) => None,
            Place::Lost {
                id, number, expiry, ..
            } => {
                self.lost.remove(&number);
                expiry.abort();
                Some(id)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_exactly_right_is_a_wish() {
        let past = |pid: &str, offset: &str| Some((pid.to_owned(), offset.to_owned()));
        for (auth, wanted, expected) in [
            ("{}", false, None),
            (r#"{"recover":true}"#, true, None),
            (
                r#"{"recover":true,"token":{"a":[1]},"é":"\ud83d"}"#,
                true,
                None,
            ),
            (r#"{"recover":false}"#, false, None),
            (r#"{"recover":1}"#, false, None),
            (r#"{"recover":"true"}"#, false, None),
            (r#"{"pid":"a","offset":"b"}"#, false, past("a", "b")),
            (
                r#"{"pid":"a","offset":"","recover":true}"#,
                true,
                past("a", ""),
            ),
            (r#"{"recover":true,"pid":"a"}"#, true, None),
            (r#"{"recover":true,"offset":"b"}"#, true, None),
            (r#"{"recover":true,"pid":1,"offset":"b"}"#, true, None),
            (r#"{"recover":true,"pid":"a","offset":{}}"#, true, None),
            (r#"{"recover":true,"pid":null,"offset":null}"#, true, None),
            (r#"{"recover":true,"recover":true}"#, false, None),
            (r#"{"recover":true,"pid":"\ud83d"}"#, false, None),
        ] {
            let auth: Box<RawValue> = serde_json::from_str(auth).unwrap();
            assert_eq!(
                Wish::of(&auth),
                Wish {
                    wanted,
                    past: expected
                },
                "{auth}"
            );
        }
    }
}
