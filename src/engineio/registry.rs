//! All sessions of a service: session id to inbox, the limit on sessions, and the wait for all of
//! them to end.
//!
//! A session takes a [`SessionPermit`] before anything else is done for it, turns it into a
//! [`RegisteredSession`] when it opens, and leaves by dropping that: there is no other way out.
//!
//! A handshake costs a client nothing, and asking for its session neither. So when all room is
//! taken, the oldest session that the layer above has not let in makes room: a flood of strangers
//! pushes out its own, and none of the clients. Who meant well and was pushed out gets what an
//! unknown session gets, and comes again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::watch;

use super::admission::Admission;
use super::error::Refused;
use super::inbox::SessionInbox;
use super::packet::Revision;

/// Random bytes of a session id: 120 bits, because the id is the session's credential.
const ID_BYTES: usize = 15;
/// Characters of a session id.
const ID_CHARS: usize = 20;
/// A session id. A secret: never logged, never sent to anyone else.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Sid([u8; ID_CHARS]);

impl Sid {
    fn random() -> Result<Self, Refused> {
        let mut bytes = [0; ID_BYTES];
        getrandom::fill(&mut bytes).map_err(|_| Refused::Unavailable)?;
        let mut text = [0; ID_CHARS];
        URL_SAFE_NO_PAD
            .encode_slice(bytes, &mut text)
            .map_err(|_| Refused::Unavailable)?;
        Ok(Self(text))
    }

    /// `None`: no session ever has this id.
    pub(super) fn parse(text: &str) -> Option<Self> {
        text.as_bytes().try_into().ok().map(Self)
    }

    pub(super) fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No call under these locks can leave them half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A session that requests can find.
struct SessionEntry {
    inbox: Arc<SessionInbox>,
    /// Counts up with each opening.
    number: u64,
}

#[derive(Default)]
struct Sessions {
    by_id: HashMap<Sid, SessionEntry>,
    /// All but those that were found to be let in, in the order of their opening.
    strangers: BTreeMap<u64, Sid>,
    last_number: u64,
    /// Sessions and handshakes on their way to one.
    permits: usize,
    /// That there may be.
    most: usize,
    ending: bool,
}

impl Sessions {
    /// Forgets the oldest session that is not let in; whoever asks takes over its permit.
    fn evict(&mut self) -> Option<Arc<SessionInbox>> {
        while let Some((_, sid)) = self.strangers.pop_first() {
            let entry = self.by_id.get(&sid);
            if entry.is_some_and(|entry| !entry.inbox.admission.is_let_in()) {
                return Some(self.by_id.remove(&sid)?.inbox);
            }
        }
        None
    }
}

pub(super) struct SessionRegistry {
    sessions: Mutex<Sessions>,
    /// Slots and closing handshakes that are still running.
    running: watch::Sender<usize>,
}

impl SessionRegistry {
    pub(super) fn new(max_sessions: usize) -> Arc<Self> {
        Arc::new(Self {
            sessions: Mutex::new(Sessions {
                most: max_sessions,
                ..Sessions::default()
            }),
            running: watch::Sender::new(0),
        })
    }

    /// Another limit. Sessions that are open stay.
    pub(super) fn set_most(&self, max_sessions: usize) {
        lock(&self.sessions).most = max_sessions;
    }

    /// Room for a session that is about to open.
    pub(super) fn reserve(self: &Arc<Self>) -> Result<SessionPermit, Refused> {
        let mut sessions = lock(&self.sessions);
        if sessions.ending {
            return Err(Refused::Unavailable);
        }
        let evicted = if sessions.permits < sessions.most {
            sessions.permits += 1;
            None
        } else {
            Some(sessions.evict().ok_or(Refused::Unavailable)?)
        };
        drop(sessions);
        if let Some(inbox) = evicted {
            inbox.evict();
        }
        Ok(SessionPermit {
            registry: self.clone(),
            transferred: false,
            _running: self.running(),
        })
    }

    /// For a request.
    pub(super) fn find(&self, sid: &str) -> Option<Arc<SessionInbox>> {
        let sessions = lock(&self.sessions);
        let entry = sessions.by_id.get(&Sid::parse(sid)?)?;
        Some(entry.inbox.clone())
    }

    pub(super) fn count(&self) -> usize {
        lock(&self.sessions).permits
    }

    /// Something `shutdown` waits for.
    pub(super) fn running(self: &Arc<Self>) -> RunningGuard {
        self.running.send_modify(|count| *count += 1);
        RunningGuard {
            registry: self.clone(),
        }
    }

    /// Lets nobody in any more, tells all sessions to end and waits until everything has.
    pub(super) async fn shutdown(&self) {
        let mut running = self.running.subscribe();
        let inboxes: Vec<_> = {
            let mut sessions = lock(&self.sessions);
            sessions.ending = true;
            sessions
                .by_id
                .values()
                .map(|entry| entry.inbox.clone())
                .collect()
        };
        for inbox in inboxes {
            inbox.shutdown();
        }
        // The sender lives in `self`, so this ends only with the count.
        let _ = running.wait_for(|count| *count == 0).await;
    }
}

/// Counts as running until dropped.
pub(super) struct RunningGuard {
    registry: Arc<SessionRegistry>,
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        self.registry
            .running
            .send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// Room for one session.
pub(super) struct SessionPermit {
    registry: Arc<SessionRegistry>,
    /// Another session has this room already.
    transferred: bool,
    _running: RunningGuard,
}

impl SessionPermit {
    /// Makes the session known under a fresh id, unless the service is ending.
    pub(super) fn enter(
        self,
        revision: Revision,
        admission: Arc<Admission>,
    ) -> Result<RegisteredSession, Refused> {
        let sid = Sid::random()?;
        let inbox = Arc::new(SessionInbox::new(revision, admission));
        let mut sessions = lock(&self.registry.sessions);
        if sessions.ending || sessions.by_id.contains_key(&sid) {
            drop(sessions);
            return Err(Refused::Unavailable);
        }
        sessions.last_number += 1;
        let number = sessions.last_number;
        sessions.by_id.insert(
            sid,
            SessionEntry {
                inbox: inbox.clone(),
                number,
            },
        );
        sessions.strangers.insert(number, sid);
        drop(sessions);
        Ok(RegisteredSession {
            sid,
            inbox,
            permit: self,
        })
    }
}

impl Drop for SessionPermit {
    fn drop(&mut self) {
        if !self.transferred {
            let mut sessions = lock(&self.registry.sessions);
            sessions.permits = sessions.permits.saturating_sub(1);
        }
    }
}

/// A session's place in the registry; dropping it is the session's end for all requests.
pub(super) struct RegisteredSession {
    sid: Sid,
    pub(super) inbox: Arc<SessionInbox>,
    permit: SessionPermit,
}

impl RegisteredSession {
    pub(super) fn sid(&self) -> &str {
        self.sid.as_str()
    }

    pub(super) fn registry(&self) -> &Arc<SessionRegistry> {
        &self.permit.registry
    }
}

impl Drop for RegisteredSession {
    fn drop(&mut self) {
        let mut sessions = lock(&self.permit.registry.sessions);
        match sessions.by_id.remove(&self.sid) {
            Some(SessionEntry { number, .. }) => drop(sessions.strangers.remove(&number)),
            None => self.permit.transferred = true,
        }
        drop(sessions);
        self.inbox.close();
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::super::inbox::{SessionCommand, SessionRequest};
    use super::*;

    #[test]
    fn ids_are_unguessable_and_fit_a_query() {
        let ids: Vec<_> = (0..100)
            .map(|_| Sid::random().expect("the system gives random bytes"))
            .collect();
        for id in &ids {
            assert_eq!(id.as_str().len(), ID_CHARS);
            assert!(
                id.as_str()
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            );
            assert!(Sid::parse(id.as_str()) == Some(*id));
        }
        assert_eq!(
            ids.iter().collect::<std::collections::HashSet<_>>().len(),
            ids.len()
        );
        assert!(
            Sid::parse("").is_none()
                && Sid::parse("é").is_none()
                && Sid::parse(&"x".repeat(21)).is_none()
        );
    }

    #[test]
    fn slots_are_limited_and_come_back() {
        let registry = SessionRegistry::new(2);
        let registered = opened(&registry);
        registered.inbox.admission.let_in();
        let permit = registry
            .reserve()
            .unwrap_or_else(|_| panic!("room for two"));
        assert!(registry.reserve().is_err());
        drop(permit);
        assert_eq!(registry.count(), 1);
        let sid = registered.sid().to_owned();
        let inbox = registry.find(&sid).expect("entered");
        drop(registered);
        assert!(registry.find(&sid).is_none());
        assert_eq!(registry.count(), 0);
        assert!(
            inbox.push(SessionRequest::PostRefused).is_err(),
            "the inbox of a session that is gone takes nothing"
        );
    }

    fn opened(registry: &Arc<SessionRegistry>) -> RegisteredSession {
        registry
            .reserve()
            .and_then(|permit| permit.enter(Revision::Four, Admission::new(1000)))
            .unwrap_or_else(|_| panic!("there is room"))
    }

    fn next_command(inbox: &SessionInbox) -> Poll<SessionCommand> {
        inbox.poll_command(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_oldest_session_that_is_not_let_in_makes_room() {
        let registry = SessionRegistry::new(3);
        let let_in = opened(&registry);
        let_in.inbox.admission.let_in();
        let [older, newer] = [(); 2].map(|()| opened(&registry));
        assert!(
            registry.find(older.sid()).is_some(),
            "which changes nothing"
        );

        let newest = opened(&registry);
        assert!(
            registry.find(older.sid()).is_none(),
            "unknown at once, not when its task has ended"
        );
        assert!(matches!(
            next_command(&older.inbox),
            Poll::Ready(SessionCommand::Evicted)
        ));
        assert!(
            next_command(&newer.inbox).is_pending() && next_command(&let_in.inbox).is_pending()
        );
        assert_eq!(registry.count(), 3);
        drop(older);
        assert_eq!(
            registry.count(),
            3,
            "its room is another's, so its end frees none"
        );

        let last = registry
            .reserve()
            .unwrap_or_else(|_| panic!("the newer one makes room"));
        assert!(registry.find(newer.sid()).is_none());
        newest.inbox.admission.let_in();
        assert!(
            registry.reserve().is_err(),
            "let in, sooner or later, and still opening: none of them makes room"
        );
        drop(newer);
        assert_eq!(registry.count(), 3);
        drop((last, let_in, newest));
        assert_eq!(registry.count(), 0);
    }

    #[test]
    fn a_stranger_that_ended_is_not_evicted_again() {
        let registry = SessionRegistry::new(1);
        drop(opened(&registry));
        let newer = opened(&registry);
        newer.inbox.admission.let_in();
        assert!(registry.reserve().is_err());
    }

    #[tokio::test]
    async fn shutdown_waits_for_what_is_running_and_lets_nobody_in() {
        let registry = SessionRegistry::new(2);
        let permit = registry
            .reserve()
            .unwrap_or_else(|_| panic!("room for two"));
        let waiting = tokio::spawn({
            let registry = registry.clone();
            async move { registry.shutdown().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert!(
            permit.enter(Revision::Four, Admission::new(1000)).is_err(),
            "a handshake that was on its way does not become a session"
        );
        waiting.await.expect("the wait ends");
        assert!(registry.reserve().is_err());
    }
}
