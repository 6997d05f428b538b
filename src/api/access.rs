//! What requests and events go through: how many there may be of them, and their lines in the
//! access log.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use hyper::header::{FORWARDED, HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::access::{self, ANYBODY, Line};
use crate::auth::Principal;
use crate::config::{Limits, Server, TrustedProxy};
use crate::limits::{Buckets, Exceeded, Forwarding, Key, LimitUse, Rates, client_address};
use crate::wire::error::{ApiError, shortened};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Lines of one client: so many a second, and so many at once.
const LINES: NonZeroU32 = NonZeroU32::new(20).unwrap();
const LINES_AT_ONCE: NonZeroU32 = NonZeroU32::new(200).unwrap();
/// Likewise of all clients.
const LINES_OF_ALL: NonZeroU32 = NonZeroU32::new(200).unwrap();
const LINES_OF_ALL_AT_ONCE: NonZeroU32 = NonZeroU32::new(2000).unwrap();
/// Between two lines that say how many were left out.
const TELL_LEFT_OUT: Duration = Duration::from_secs(10);
/// Clients of whom it is told one by one how many were.
const TOLD_APART: usize = 20;

/// Who makes a request, as limits count it and the log names it.
#[derive(Debug, Clone)]
pub struct Caller {
    key: Key,
    who: Arc<str>,
    address: IpAddr,
}

impl Caller {
    /// Somebody of whom only the address is known.
    pub fn at(address: IpAddr) -> Self {
        Self {
            key: Key::of_address(address),
            who: ANYBODY.into(),
            address,
        }
    }

    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Somebody at this address once it is known who.
    pub fn of(principal: &Principal, at: &Self) -> Self {
        match principal.token() {
            None => at.clone(),
            Some(token) => Self {
                key: Key::Token(token.id.0),
                who: token.name.as_str().into(),
                address: at.address,
            },
        }
    }
}

/// What counts against the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// A request, a connect to Socket.IO or an event.
    Request,
    /// Something that costs much, besides.
    Costly,
}

/// What a request concerns besides what its path says: found out while it is worked on.
pub type Concerns = Arc<OnceLock<String>>;

/// One for the whole API.
pub struct Access {
    trusted: Vec<TrustedProxy>,
    rates: Rates,
    lines: Buckets,
    lines_of_all: Buckets,
    left_out: Mutex<HashMap<Key, u64>>,
}

impl Access {
    pub fn new(server: &Server, limits: watch::Receiver<Limits>) -> Arc<Self> {
        let second = Duration::from_secs(1);
        Arc::new(Self {
            trusted: server.trusted_proxies.clone(),
            rates: Rates::new(limits),
            lines: Buckets::new(LINES, second, LINES_AT_ONCE),
            lines_of_all: Buckets::new(LINES_OF_ALL, second, LINES_OF_ALL_AT_ONCE),
            left_out: Mutex::default(),
        })
    }

    /// The address that a request comes from. `peer`: the one that it came through last.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let of = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes);
        let forwarding = Forwarding {
            x_forwarded_for: of(X_FORWARDED_FOR).collect(),
            forwarded: of(FORWARDED).collect(),
        };
        client_address(&self.trusted, peer, &forwarding)
    }

    /// Counts something that a caller does; refused when they do it too often.
    pub fn take(&self, caller: &Caller, cost: Cost) -> Result<(), ApiError> {
        let taken = match cost {
            Cost::Request => self.rates.request(&caller.key),
            Cost::Costly => self.rates.costly(&caller.key),
        };
        taken.map_err(|exceeded| too_often(&exceeded))
    }

    pub fn limits(&self) -> [LimitUse; 2] {
        self.rates.limits()
    }

    /// The line of a change.
    pub fn changed(&self, caller: &Caller, what: &str, concerns: Option<&str>) {
        self.write(caller, what, concerns, "ok", |line| line.write_change());
    }

    /// The line of a refusal, if the error is one: other errors are the request's own.
    pub fn refused(&self, caller: &Caller, what: &str, concerns: Option<&str>, error: &ApiError) {
        const REFUSALS: [StatusCode; 3] = [
            StatusCode::UNAUTHORIZED,
            StatusCode::FORBIDDEN,
            StatusCode::TOO_MANY_REQUESTS,
        ];
        if REFUSALS.contains(&error.status) {
            self.write(caller, what, concerns, error.code, |line| {
                line.write_refusal()
            });
        }
    }

    /// The line of a request that came as plain HTTP where TLS is spoken: what was in it, a token
    /// perhaps, has been read on the way.
    pub fn refused_plain(&self, peer: IpAddr, method: &str, path: &str) {
        let caller = Caller::at(peer);
        let outcome = "https_required";
        self.write(&caller, method, Some(path), outcome, |line| {
            line.write_refusal()
        });
    }

    fn write(
        &self,
        caller: &Caller,
        what: &str,
        concerns: Option<&str>,
        outcome: &str,
        write: fn(&Line<'_>),
    ) {
        if self.may_say(&caller.key) {
            let (what, concerns) = (shortened(what), concerns.map(shortened));
            write(&caller.line(&what, concerns.as_deref(), outcome));
        }
    }

    fn may_say(&self, key: &Key) -> bool {
        let may = self.lines.take(key).is_ok() && self.lines_of_all.take(&Key::Others).is_ok();
        if !may {
            let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
            let is_known = left_out.contains_key(key) || left_out.len() < TOLD_APART;
            let key = if is_known { *key } else { Key::Others };
            *left_out.entry(key).or_default() += 1;
        }
        may
    }

    fn tell_left_out(&self) {
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, lines) in std::mem::take(&mut *left_out) {
            access::write_left_out(&key.to_string(), lines);
        }
    }

    /// Says now and then how many lines were left out, until `stop` and once more then.
    pub async fn keep_telling(self: Arc<Self>, stop: CancellationToken) {
        while stop
            .run_until_cancelled(sleep(TELL_LEFT_OUT))
            .await
            .is_some()
        {
            self.tell_left_out();
        }
        self.tell_left_out();
    }
}

impl Caller {
    fn line<'a>(&'a self, what: &'a str, concerns: Option<&'a str>, outcome: &'a str) -> Line<'a> {
        Line {
            who: &self.who,
            address: Some(self.address),
            what,
            concerns: concerns.filter(|text| !text.is_empty()),
            outcome,
        }
    }
}

fn too_often(exceeded: &Exceeded) -> ApiError {
    let seconds = exceeded.wait.as_secs_f64().ceil().max(1.0);
    let seconds = seconds.min(3600.0) as u32;
    let message = format!(
        "You ask more often than {exceeded} allows; ask again in {seconds} s, or have the limit raised."
    );
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message)
        .retry_after(seconds)
        .of_limit(exceeded.name)
}
