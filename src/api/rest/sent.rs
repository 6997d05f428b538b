//! Reading what a request says besides its path.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;
use hyper::header::{CONTENT_TYPE, HeaderName};
use hyper::{HeaderMap, Request, StatusCode};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use zeroize::{Zeroize, Zeroizing};

use super::budget::{Budget, Charge, UNCOUNTED};
use super::route::{Mark, Route};
use super::session::FromPage;
use crate::api::access::{Access, Caller, Concerns, Cost};
use crate::api::socket::Admitted;
use crate::auth::Principal;
use crate::config::Limits;
use crate::reads::Threads;
use crate::wire::error::{ApiError, shortened};
use crate::wire::request::{self, Nothing};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// From the first to the last byte of a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Bodies up to this many bytes are read where they are; it takes less than a millisecond.
const SMALL: usize = 16 * 1024;

/// What requests are read with.
pub struct Intake {
    pub access: Arc<Access>,
    pub limits: watch::Receiver<Limits>,
    pub budget: Budget,
    pub threads: Threads,
}

/// What the router has found out of a request.
pub struct Found {
    /// What stands in place of the `{part}` of the route's path.
    pub part: String,
    /// Socket.IO sessions that are open.
    pub sessions: usize,
    pub principal: Principal,
    pub caller: Caller,
    pub concerns: Concerns,
}

/// What a request says. Each route takes it with one of the functions, so that nothing in it is
/// overlooked.
pub struct Sent {
    /// What stands in place of the `{part}` of the route's path.
    pub part: String,
    /// The path ends with an address.
    of_address: bool,
    query: String,
    body: Option<SentBytes>,
    /// When it came.
    pub asked: Instant,
    /// Socket.IO sessions that are open, for the status.
    pub sessions: usize,
    pub principal: Principal,
    /// What the body is about, besides `part`, once it is read.
    pub concerns: Concerns,
    pub page: FromPage,
    /// Where a browser's stream of events broke off.
    pub last_event_id: Option<String>,
    caller: Caller,
    access: Arc<Access>,
    is_costly: bool,
    threads: Threads,
    /// Of the body, until it is answered.
    _held: Charge,
}

impl Sent {
    pub async fn read<B>(
        intake: &Intake,
        route: &Route,
        found: Found,
        request: Request<B>,
    ) -> Result<Self, ApiError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let Found {
            part,
            sessions,
            principal,
            caller,
            concerns,
        } = found;
        let asking = request.extensions().get().copied();
        let page = FromPage::read(asking, request.headers());
        let last_event_id = request.headers().get(LAST_EVENT_ID);
        let last_event_id =
            last_event_id.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let query = request.uri().query().unwrap_or_default().to_owned();
        let (mut held, mut body) = (intake.budget.charge(), None);
        if !request.body().is_end_stream() {
            check_content_type(request.headers())?;
            let limit = body_limit(intake, principal.is_somebody());
            let bytes = read_in_time(limit, &mut held, request.into_body()).await?;
            body = Some(bytes).filter(|bytes| !bytes.0.is_empty());
        }
        Ok(Self {
            part,
            of_address: route.path.ends_with("{address}"),
            query,
            body,
            asked: Instant::now(),
            sessions,
            principal,
            concerns,
            page,
            last_event_id,
            caller,
            access: intake.access.clone(),
            is_costly: route.has(Mark::Costly),
            threads: intake.threads.clone(),
            _held: held,
        })
    }

    /// The query of a route that takes no body.
    pub fn query<Q: request::Request>(&self) -> Result<Q, ApiError> {
        let Nothing {} = request::body(self.body_bytes())?;
        let query = request::query(&self.query, self.of_address)?;
        self.count()?;
        Ok(query)
    }

    /// The body of a route that takes no query.
    pub async fn body<B: request::Request + Send + 'static>(&self) -> Result<B, ApiError> {
        let Nothing {} = request::query(&self.query, self.of_address)?;
        let read: B = match &self.body {
            Some(body) if body.0.len() > SMALL => {
                let body = body.clone();
                let read = move || request::body(Some(&body.0));
                self.threads.run_long(read).await?
            }
            _ => request::body(self.body_bytes())?,
        };
        if let Some(concerns) = read.concerns() {
            // It is read once.
            let _ = self.concerns.set(concerns);
        }
        self.count()?;
        Ok(read)
    }

    fn body_bytes(&self) -> Option<&[u8]> {
        self.body.as_ref().map(|body| &body.0[..])
    }

    /// Counts what its route costs, now that it says what it may.
    fn count(&self) -> Result<(), ApiError> {
        match self.is_costly {
            true => self.access.take(&self.caller, Cost::Costly),
            false => Ok(()),
        }
    }

    /// Who asks, as a client that was let in.
    pub fn admitted(&self) -> Admitted {
        Admitted {
            principal: self.principal.clone(),
            caller: self.caller.clone(),
            credential: None,
        }
    }

    /// Where it comes from.
    pub fn caller_address(&self) -> IpAddr {
        self.caller.address()
    }

    /// Counts something costly that shows only when it is done: for somebody of whom the body says
    /// who it is, or that a list has something new in it.
    pub fn count_costly(&self, principal: &Principal) -> Result<(), ApiError> {
        let caller = Caller::of(principal, &self.caller);
        self.access.take(&caller, Cost::Costly)
    }

    /// For routes that take neither.
    pub fn nothing(&self) -> Result<(), ApiError> {
        let Nothing {} = self.query()?;
        Ok(())
    }
}

/// The bytes of a body. Somebody may send a private key by mistake, so they are overwritten when
/// they are dropped, and so is what is read from them (`crate::wire::request`).
///
/// What stays is not ours to reach: the connection's own buffer, which hyper writes the next
/// request over, or gives back as it is; those of TLS and of the system; a text with escapes while
/// serde_json puts it together; the copies that parsing a descriptor makes of its text.
#[derive(Clone)]
struct SentBytes(Bytes);

impl AsRef<[u8]> for SentBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for SentBytes {
    fn drop(&mut self) {
        // Whoever else has them drops them later.
        if let Ok(mut bytes) = std::mem::take(&mut self.0).try_into_mut() {
            bytes.as_mut().zeroize();
        }
    }
}

/// Who is not known takes no room of those who are.
fn body_limit(intake: &Intake, is_known: bool) -> usize {
    let body_bytes = intake.limits.borrow().body_bytes;
    match is_known {
        true => body_bytes,
        false => body_bytes.min(UNCOUNTED),
    }
}

/// The bytes of a body that is passed on to another daemon, and what they hold until they are sent.
pub async fn read_to_pass_on<B>(
    intake: &Intake,
    is_known: bool,
    request: Request<B>,
) -> Result<(Bytes, Charge), ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut held = intake.budget.charge();
    let limit = body_limit(intake, is_known);
    let bytes = read_in_time(limit, &mut held, request.into_body()).await?;
    Ok((Bytes::from_owner(bytes), held))
}

async fn read_in_time<B>(limit: usize, held: &mut Charge, body: B) -> Result<SentBytes, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let reading = read_body(limit, held, body);
    timeout(BODY_TIMEOUT, reading).await.map_err(|_| {
        ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            "The body did not arrive within 30 seconds; send it again.",
        )
    })?
}

/// All of a body, at most `limit` bytes.
async fn read_body<B>(limit: usize, held: &mut Charge, mut body: B) -> Result<SentBytes, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let too_large = || {
        let message = format!(
            "The body is larger than {limit} bytes, which this route takes (see limits.body_bytes); send less at a time."
        );
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message)
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let mut bytes = Zeroizing::new(Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            ApiError::bad_request(
                "incomplete_body",
                "The body ended too early; send it again.",
            )
        })?;
        // Anything else is a trailer.
        let Ok(part) = frame.into_data() else {
            continue;
        };
        let part = SentBytes(part);
        if part.0.len() > limit - bytes.len() {
            return Err(too_large());
        }
        held.try_grow(part.0.len())?;
        append(&mut bytes, &part.0);
    }
    Ok(SentBytes(std::mem::take(&mut *bytes).into()))
}

/// Leaves nothing behind where the bytes have no room any more.
fn append(bytes: &mut Zeroizing<Vec<u8>>, part: &[u8]) {
    let needed = bytes.len().saturating_add(part.len());
    if needed > bytes.capacity() {
        let room = needed.max(bytes.capacity().saturating_mul(2));
        let mut larger = Zeroizing::new(Vec::with_capacity(room));
        larger.extend_from_slice(bytes);
        *bytes = larger;
    }
    bytes.extend_from_slice(part);
}

/// JSON, or nothing said. The type that curl says by default is refused like any other, with what
/// to add.
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(());
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    let essence = text
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
    {
        return Ok(());
    }
    let message = format!(
        "The body must be JSON, not {}; send the header Content-Type: application/json (curl: -H 'Content-Type: application/json').",
        shortened(&text)
    );
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        message,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_or_nothing_is_a_content_type() {
        let check = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, text.parse().unwrap());
            check_content_type(&headers).map_err(|error| error.status.as_u16())
        };
        assert_eq!(check_content_type(&HeaderMap::new()), Ok(()));
        for good in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/vnd.x+json",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "application/x-www-form-urlencoded",
            "text/plain",
            "",
            "multipart/form-data; boundary=x",
            "application/jsonp",
        ] {
            assert_eq!(check(bad), Err(415), "{bad}");
        }
    }
}
