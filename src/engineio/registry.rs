//! All sessions of a service: session id to mailbox, the limit on sessions, and the wait for all of
//! them to end.
//!
//! A session takes a [`Slot`] before anything else is done for it, turns it into an [`Entry`] when
//! it opens, and leaves by dropping that entry: there is no other way out.
//!
//! A handshake costs a client nothing, so when all room is taken, the oldest session that no
//! request has asked for since its handshake makes room: a flood of handshakes pushes out its own,
//! and not the clients, who poll at once.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::error::Refused;
use super::packet::Revision;
use super::session::{PollAnswer, PostAnswer};
use super::websocket::Socket;

/// Random bytes of a session id: 120 bits, because the id is the session's credential.
const ID_BYTES: usize = 15;
/// Characters of a session id.
const ID_CHARS: usize = 20;
/// Requests that may wait for one session's task; a client has no reason for more than a GET, a
/// POST and a WebSocket.
const MAX_COMMANDS: usize = 16;

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

/// A request for a session. A dropped responder means that the session is gone.
pub(super) enum Command {
    Poll(oneshot::Sender<Result<PollAnswer, Refused>>),
    PostOpened {
        octets: bool,
        verdict: oneshot::Sender<Result<PostPass, Refused>>,
    },
    PostBody(Bytes, oneshot::Sender<PostAnswer>),
    PostRefused,
    Socket(Box<Socket>),
}

/// Resolves when the session ends while the body is still being read.
pub(super) type PostPass = oneshot::Receiver<()>;

/// What wakes a session besides its sockets, its outbox and its deadlines.
pub(super) enum Mail {
    Command(Command),
    /// A request was dropped before its answer.
    RequestLost,
    Shutdown,
    /// Another one has this session's room.
    Evicted,
}

#[derive(Default)]
struct Letters {
    commands: VecDeque<Command>,
    request_lost: bool,
    shutdown: bool,
    evicted: bool,
    gone: bool,
    waker: Option<Waker>,
}

/// How requests reach a session's task. Idle, it owns no memory.
pub(super) struct Mailbox {
    /// What the session speaks; a request of another revision is none of its.
    pub(super) revision: Revision,
    letters: Mutex<Letters>,
}

impl Mailbox {
    fn new(revision: Revision) -> Self {
        Self {
            revision,
            letters: Mutex::default(),
        }
    }

    /// Gives the command back when the session is gone or has too much waiting.
    pub(super) fn post(&self, command: Command) -> Result<(), Command> {
        let mut letters = lock(&self.letters);
        if letters.gone || letters.commands.len() >= MAX_COMMANDS {
            return Err(command);
        }
        letters.commands.push_back(command);
        wake(letters);
        Ok(())
    }

    pub(super) fn request_lost(&self) {
        let mut letters = lock(&self.letters);
        letters.request_lost = true;
        wake(letters);
    }

    fn shutdown(&self) {
        let mut letters = lock(&self.letters);
        letters.shutdown = true;
        wake(letters);
    }

    fn evict(&self) {
        let mut letters = lock(&self.letters);
        letters.evicted = true;
        wake(letters);
    }

    /// The next letter. Only the session's task may ask.
    pub(super) fn poll_mail(&self, cx: &mut Context<'_>) -> Poll<Mail> {
        let mut letters = lock(&self.letters);
        // A lost request comes last: the request itself was posted before.
        if let Some(command) = letters.commands.pop_front() {
            return Poll::Ready(Mail::Command(command));
        }
        if std::mem::take(&mut letters.request_lost) {
            return Poll::Ready(Mail::RequestLost);
        }
        if std::mem::take(&mut letters.shutdown) {
            return Poll::Ready(Mail::Shutdown);
        }
        if std::mem::take(&mut letters.evicted) {
            return Poll::Ready(Mail::Evicted);
        }
        match &letters.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => letters.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Takes nothing more; the responders of what was waiting are dropped.
    fn close(&self) {
        let mut letters = lock(&self.letters);
        letters.gone = true;
        let commands = std::mem::take(&mut letters.commands);
        drop(letters);
        drop(commands);
    }
}

/// Wakes the task after the lock is released.
fn wake(mut letters: MutexGuard<'_, Letters>) {
    let waker = letters.waker.take();
    drop(letters);
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No call under these locks can leave them half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A session that requests can find.
struct Seat {
    mailbox: Arc<Mailbox>,
    /// Counts up with each opening.
    number: u64,
}

/// How a session came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    /// By an answered GET: whether anybody uses it is still to be seen.
    Polling,
    /// On a connection of its own.
    WebSocket,
}

#[derive(Default)]
struct Sessions {
    by_id: HashMap<Sid, Seat>,
    /// Those that no request has asked for yet, in the order of their opening.
    unused: BTreeMap<u64, Sid>,
    last_number: u64,
    /// Sessions and handshakes on their way to one.
    slots: usize,
    ending: bool,
}

impl Sessions {
    /// Forgets the oldest session that was never used; whoever asks takes over its slot.
    fn evict(&mut self) -> Option<Arc<Mailbox>> {
        let (_, sid) = self.unused.pop_first()?;
        Some(self.by_id.remove(&sid)?.mailbox)
    }
}

pub(super) struct Registry {
    sessions: Mutex<Sessions>,
    max_sessions: usize,
    /// Slots and closing handshakes that are still running.
    running: watch::Sender<usize>,
}

impl Registry {
    pub(super) fn new(max_sessions: usize) -> Arc<Self> {
        Arc::new(Self {
            sessions: Mutex::default(),
            max_sessions,
            running: watch::Sender::new(0),
        })
    }

    /// Room for a session that is about to open.
    pub(super) fn reserve(self: &Arc<Self>) -> Result<Slot, Refused> {
        let mut sessions = lock(&self.sessions);
        if sessions.ending {
            return Err(Refused::Unavailable);
        }
        let evicted = if sessions.slots < self.max_sessions {
            sessions.slots += 1;
            None
        } else {
            Some(sessions.evict().ok_or(Refused::Unavailable)?)
        };
        drop(sessions);
        if let Some(mailbox) = evicted {
            mailbox.evict();
        }
        Ok(Slot {
            registry: self.clone(),
            passed_on: false,
            _running: self.running(),
        })
    }

    /// For a request, whose session is a used one from now on.
    pub(super) fn find(&self, sid: &str) -> Option<Arc<Mailbox>> {
        let mut sessions = lock(&self.sessions);
        let Seat { mailbox, number } = sessions.by_id.get(&Sid::parse(sid)?)?;
        let (mailbox, number) = (mailbox.clone(), *number);
        sessions.unused.remove(&number);
        Some(mailbox)
    }

    pub(super) fn count(&self) -> usize {
        lock(&self.sessions).slots
    }

    /// Something `shutdown` waits for.
    pub(super) fn running(self: &Arc<Self>) -> Running {
        self.running.send_modify(|count| *count += 1);
        Running {
            registry: self.clone(),
        }
    }

    /// Lets nobody in any more, tells all sessions to end and waits until everything has.
    pub(super) async fn shutdown(&self) {
        let mut running = self.running.subscribe();
        let mailboxes: Vec<_> = {
            let mut sessions = lock(&self.sessions);
            sessions.ending = true;
            sessions
                .by_id
                .values()
                .map(|seat| seat.mailbox.clone())
                .collect()
        };
        for mailbox in mailboxes {
            mailbox.shutdown();
        }
        // The sender lives in `self`, so this ends only with the count.
        let _ = running.wait_for(|count| *count == 0).await;
    }
}

/// Counts as running until dropped.
pub(super) struct Running {
    registry: Arc<Registry>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.registry
            .running
            .send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// Room for one session.
pub(super) struct Slot {
    registry: Arc<Registry>,
    /// Another session has this room already.
    passed_on: bool,
    _running: Running,
}

impl Slot {
    /// Makes the session known under a fresh id, unless the service is ending.
    pub(super) fn enter(self, revision: Revision, opened: Opened) -> Result<Entry, Refused> {
        let sid = Sid::random()?;
        let mailbox = Arc::new(Mailbox::new(revision));
        let mut sessions = lock(&self.registry.sessions);
        if sessions.ending || sessions.by_id.contains_key(&sid) {
            drop(sessions);
            return Err(Refused::Unavailable);
        }
        sessions.last_number += 1;
        let number = sessions.last_number;
        sessions.by_id.insert(
            sid,
            Seat {
                mailbox: mailbox.clone(),
                number,
            },
        );
        if opened == Opened::Polling {
            sessions.unused.insert(number, sid);
        }
        drop(sessions);
        Ok(Entry {
            sid,
            mailbox,
            slot: self,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.passed_on {
            let mut sessions = lock(&self.registry.sessions);
            sessions.slots = sessions.slots.saturating_sub(1);
        }
    }
}

/// A session's place in the registry; dropping it is the session's end for all requests.
pub(super) struct Entry {
    sid: Sid,
    pub(super) mailbox: Arc<Mailbox>,
    slot: Slot,
}

impl Entry {
    pub(super) fn sid(&self) -> &str {
        self.sid.as_str()
    }

    pub(super) fn registry(&self) -> &Arc<Registry> {
        &self.slot.registry
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut sessions = lock(&self.slot.registry.sessions);
        match sessions.by_id.remove(&self.sid) {
            Some(Seat { number, .. }) => drop(sessions.unused.remove(&number)),
            None => self.slot.passed_on = true,
        }
        drop(sessions);
        self.mailbox.close();
    }
}

#[cfg(test)]
mod tests {
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
        let registry = Registry::new(2);
        let entry = opened(&registry, Opened::Polling);
        let _ = registry.find(entry.sid());
        let slot = registry
            .reserve()
            .unwrap_or_else(|_| panic!("room for two"));
        assert!(registry.reserve().is_err());
        drop(slot);
        assert_eq!(registry.count(), 1);
        let sid = entry.sid().to_owned();
        let mailbox = registry.find(&sid).expect("entered");
        drop(entry);
        assert!(registry.find(&sid).is_none());
        assert_eq!(registry.count(), 0);
        assert!(
            mailbox.post(Command::PostRefused).is_err(),
            "the mailbox of a session that is gone takes nothing"
        );
    }

    fn opened(registry: &Arc<Registry>, how: Opened) -> Entry {
        registry
            .reserve()
            .and_then(|slot| slot.enter(Revision::Four, how))
            .unwrap_or_else(|_| panic!("there is room"))
    }

    fn next_mail(mailbox: &Mailbox) -> Poll<Mail> {
        mailbox.poll_mail(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_oldest_session_that_was_never_used_makes_room() {
        let registry = Registry::new(3);
        let used = opened(&registry, Opened::Polling);
        assert!(registry.find(used.sid()).is_some());
        let [older, newer] = [(); 2].map(|()| opened(&registry, Opened::Polling));

        let socket = opened(&registry, Opened::WebSocket);
        assert!(
            registry.find(older.sid()).is_none(),
            "unknown at once, not when its task has ended"
        );
        assert!(matches!(
            next_mail(&older.mailbox),
            Poll::Ready(Mail::Evicted)
        ));
        assert!(next_mail(&newer.mailbox).is_pending() && next_mail(&used.mailbox).is_pending());
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
        assert!(
            registry.reserve().is_err(),
            "used, on a WebSocket, still opening: none of them makes room"
        );
        drop(newer);
        assert_eq!(registry.count(), 3);
        drop((last, used, socket));
        assert_eq!(registry.count(), 0);
    }

    #[test]
    fn a_session_that_ended_unused_is_not_evicted_again() {
        let registry = Registry::new(1);
        drop(opened(&registry, Opened::Polling));
        let _socket = opened(&registry, Opened::WebSocket);
        assert!(registry.reserve().is_err());
    }

    #[test]
    fn a_mailbox_is_bounded() {
        let mailbox = Mailbox::new(Revision::Four);
        for _ in 0..MAX_COMMANDS {
            assert!(mailbox.post(Command::PostRefused).is_ok());
        }
        assert!(mailbox.post(Command::PostRefused).is_err());
    }

    #[tokio::test]
    async fn shutdown_waits_for_what_is_running_and_lets_nobody_in() {
        let registry = Registry::new(2);
        let slot = registry
            .reserve()
            .unwrap_or_else(|_| panic!("room for two"));
        let waiting = tokio::spawn({
            let registry = registry.clone();
            async move { registry.shutdown().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert!(
            slot.enter(Revision::Four, Opened::WebSocket).is_err(),
            "a handshake that was on its way does not become a session"
        );
        waiting.await.expect("the wait ends");
        assert!(registry.reserve().is_err());
    }
}
