//! Who asks.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use futures_util::future::OptionFuture;
use tokio_util::sync::CancellationToken;

use super::Scope;
use super::changed::Ended;
use super::sessions::LiveSession;
use super::tokens_file::Token;
use crate::clock::now_ms;

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody known asks.
    #[error(transparent)]
    Unauthorized(Unknown),
    #[error("This needs a token of scope {needed}; yours has {scope}.")]
    Forbidden { needed: Scope, scope: Scope },
}

/// Why it is not known who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    #[error(
        "This daemon wants a token: send the header Authorization: Bearer <token> or, over Socket.IO, auth {{\"token\": \"<token>\"}}. satwatch token new makes one."
    )]
    NoToken,
    #[error(
        "This is no token: a character is missing or wrong. Send it as satwatch token new printed it."
    )]
    Malformed,
    #[error("This token is not known here: it was revoked, or is one of another daemon.")]
    NotKnown,
    #[error("This token has expired. satwatch token new makes another one.")]
    Expired,
    #[error("This token has ended: it was revoked, or is another one now.")]
    Ended,
    #[error("This session is over, or its page is not the one that logged in. Log in again.")]
    NoSession,
    #[error("This daemon wants a token since a moment ago; come back with one.")]
    OpenEnded,
}

/// What waits for the end of a principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// Of Socket.IO.
    Session,
    Request,
}

/// That something is over, for everybody who was let in by it. Asked for with each event of each
/// client, so without a lock.
#[derive(Debug, Default)]
pub struct End {
    is_over: AtomicBool,
    told: CancellationToken,
    waiting: Arc<[AtomicUsize; 2]>,
}

/// Counts somebody who waits, until it is dropped.
struct Counted(Arc<[AtomicUsize; 2]>, Waits);

impl Drop for Counted {
    fn drop(&mut self) {
        let Self(waiting, waits) = self;
        waiting[*waits as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

impl End {
    /// Whoever waits is woken here, which takes time where many do.
    pub fn end(&self) -> Ended {
        let [sessions, requests] = [Waits::Session, Waits::Request]
            .map(|waits| self.waiting[waits as usize].load(Ordering::Relaxed));
        self.is_over.store(true, Ordering::Release);
        self.told.cancel();
        Ended { sessions, requests }
    }

    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Many wait for one end: each has a place of its own, so that they do not share a lock.
    fn over(&self, waits: Waits) -> impl Future<Output = ()> + Send + use<> {
        self.waiting[waits as usize].fetch_add(1, Ordering::Relaxed);
        let counted = Counted(self.waiting.clone(), waits);
        let over = self.told.child_token().cancelled_owned();
        async move {
            let _counted = counted;
            over.await;
        }
    }
}

/// A token that is in force.
#[derive(Debug)]
pub struct LiveToken {
    pub token: Token,
    pub(super) end: Arc<End>,
    /// When it was used last, in milliseconds since the Unix epoch; 0 when it was not.
    used: AtomicU64,
}

impl LiveToken {
    pub fn new(token: Token) -> Self {
        Self {
            token,
            end: Arc::default(),
            used: AtomicU64::new(0),
        }
    }

    pub fn last_used(&self) -> Option<u64> {
        Some(self.used.load(Ordering::Relaxed)).filter(|used| *used > 0)
    }

    pub fn is_good(&self, now: u64) -> bool {
        !self.token.has_expired(now) && !self.end.is_over()
    }

    /// Whether it is good now, which counts as a use.
    pub fn check(&self, now: u64) -> Result<(), Unknown> {
        if self.token.has_expired(now) {
            return Err(Unknown::Expired);
        }
        if self.end.is_over() {
            return Err(Unknown::Ended);
        }
        self.used.store(now, Ordering::Relaxed);
        Ok(())
    }
}

/// Who asks, for as long as their token lives.
#[derive(Debug, Clone)]
pub struct Principal(Who);

#[derive(Debug, Clone)]
enum Who {
    /// Of what is open to everybody, known or not.
    Nobody,
    /// Without authentication.
    Anybody(Arc<End>),
    Token(Arc<LiveToken>),
    /// The page, for as long as the session and its token live.
    Session(Arc<LiveToken>, Arc<LiveSession>),
}

impl Principal {
    /// Who asks for what is open, known or not.
    pub fn nobody() -> Self {
        Self(Who::Nobody)
    }

    pub(super) fn anybody(end: Arc<End>) -> Self {
        Self(Who::Anybody(end))
    }

    pub(super) fn of_token(token: Arc<LiveToken>) -> Self {
        Self(Who::Token(token))
    }

    pub(super) fn of_session(token: Arc<LiveToken>, session: Arc<LiveSession>) -> Self {
        Self(Who::Session(token, session))
    }

    /// The token that speaks for them; none without authentication.
    pub fn token(&self) -> Option<&Token> {
        match &self.0 {
            Who::Token(live) | Who::Session(live, _) => Some(&live.token),
            Who::Nobody | Who::Anybody(_) => None,
        }
    }

    /// Whether it was asked who they are.
    pub fn is_somebody(&self) -> bool {
        !matches!(self.0, Who::Nobody)
    }

    pub fn may(&self, needed: Scope) -> bool {
        self.require(needed).is_ok()
    }

    /// Whether they may do what needs `needed`, now.
    pub fn require(&self, needed: Scope) -> Result<(), Refusal> {
        let scope = match &self.0 {
            Who::Nobody => return Err(Refusal::Unauthorized(Unknown::NoToken)),
            Who::Anybody(end) if end.is_over() => {
                return Err(Refusal::Unauthorized(Unknown::OpenEnded));
            }
            Who::Anybody(_) => Scope::Admin,
            Who::Token(live) | Who::Session(live, _) => {
                live.check(now_ms()).map_err(Refusal::Unauthorized)?;
                if matches!(&self.0, Who::Session(_, session) if session.end.is_over()) {
                    return Err(Refusal::Unauthorized(Unknown::NoSession));
                }
                live.token.scope
            }
        };
        match scope.allows(needed) {
            true => Ok(()),
            false => Err(Refusal::Forbidden { needed, scope }),
        }
    }

    /// Whether what let them in is over.
    pub fn has_ended(&self) -> bool {
        match &self.0 {
            Who::Nobody => false,
            Who::Anybody(end) => end.is_over(),
            Who::Token(live) => live.end.is_over(),
            Who::Session(live, session) => live.end.is_over() || session.end.is_over(),
        }
    }

    /// Waits for the moment from which they are refused. One for each who waits.
    pub fn ended(&self, waits: Waits) -> impl Future<Output = ()> + Send + use<> {
        let (first, second) = match &self.0 {
            Who::Nobody => (None, None),
            Who::Anybody(end) => (Some(end.over(waits)), None),
            Who::Token(live) => (Some(live.end.over(waits)), None),
            Who::Session(live, session) => {
                (Some(live.end.over(waits)), Some(session.end.over(waits)))
            }
        };
        async move {
            tokio::select! {
                Some(()) = OptionFuture::from(first) => {}
                Some(()) = OptionFuture::from(second) => {}
                else => std::future::pending().await,
            }
        }
    }
}
