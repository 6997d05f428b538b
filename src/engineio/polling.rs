//! Long-polling: turns a GET or POST into requests for the session and its answers into responses.
//!
//! Answers are not compressed, which the reference server does from 1 KiB on: what it would save is
//! little (most messages are short, and clients move to a WebSocket), and what it costs in memory
//! and time would be chosen by strangers. A proxy in front can do it.
//!
//! A request is posted to the session before its answer is waited for. When it is dropped before
//! its answer was given away (hyper drops the service's future when the client goes), a drop guard
//! tells the session so: what was meant for that answer is lost.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Body as HttpBody;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, EXPECT, HeaderMap, HeaderValue};
use hyper::{Request, Response};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::budget::{ByteBudget, ByteShare};
use super::error::Refused;
use super::inbox::{PostPass, SessionInbox, SessionRequest};
use super::payload::Body;
use super::session::{PollAnswer, PostAnswer};

/// How much of a body over the limit is read and thrown away, in limits, so that the client gets to
/// read its 413 and not a reset.
const DISCARDED_LIMITS: usize = 16;
/// How long that may take: nobody's time is wanted for a body that is not.
const DISCARD_TIME: Duration = Duration::from_secs(2);

pub(super) type Answer = Response<Full<Bytes>>;

/// Tells the session when a request is dropped before `answered`.
struct Guard {
    inbox: Arc<SessionInbox>,
    armed: bool,
}

impl Guard {
    fn new(inbox: Arc<SessionInbox>) -> Self {
        Self { inbox, armed: true }
    }

    fn answered(mut self) {
        self.armed = false;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.armed {
            self.inbox.request_lost();
        }
    }
}

/// A poll: waits until the session has something to say.
pub(super) fn get(inbox: Arc<SessionInbox>) -> impl Future<Output = Answer> {
    let guard = Guard::new(inbox.clone());
    let (sender, answer) = oneshot::channel();
    // When the session is gone, the sender is dropped and the answer is that.
    let _ = inbox.push(SessionRequest::Poll(sender));
    async move {
        let answer = answer.await.unwrap_or(Err(Refused::SessionUnknown));
        guard.answered();
        match answer {
            Ok(PollAnswer::Payload(body)) => payload(body),
            Ok(PollAnswer::Gone) => Refused::SessionUnknown.polling(),
            Err(refused) => refused.polling(),
        }
    }
}

/// What the body of a POST is held to besides the session's `max_payload`.
pub(super) struct BodyLimits {
    pub(super) time: Duration,
    pub(super) budget: Arc<ByteBudget>,
}

/// Packets from the client.
pub(super) fn post<B>(
    inbox: Arc<SessionInbox>,
    request: Request<B>,
    limits: BodyLimits,
) -> impl Future<Output = Answer>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let guard = Guard::new(inbox.clone());
    let (sender, verdict) = oneshot::channel();
    let _ = inbox.push(SessionRequest::PostOpened {
        octets: is_octets(request.headers()),
        verdict: sender,
    });
    async move {
        match post_packets(&inbox, request, verdict, limits, guard).await {
            Ok(()) => ok(),
            Err(refused) => refused.polling(),
        }
    }
}

async fn post_packets<B>(
    inbox: &SessionInbox,
    request: Request<B>,
    verdict: oneshot::Receiver<Result<PostPass, Refused>>,
    limits: BodyLimits,
    guard: Guard,
) -> Result<(), Refused>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let over = match verdict.await.unwrap_or(Err(Refused::SessionUnknown)) {
        Ok(over) => over,
        Err(refused) => {
            guard.answered();
            return Err(refused);
        }
    };
    let max_payload = inbox.admission.max_payload();
    let expects = request.headers().contains_key(EXPECT);
    let mut body = request.into_body();
    let read = tokio::select! {
        read = timeout(limits.time, read_body(&mut body, max_payload, ByteShare::new(limits.budget))) => read,
        _ = over => Ok(Err(BodyError::SessionOver)),
    };
    match read {
        Ok(Ok(bytes)) => {
            // From here on nothing is lost with the request.
            guard.answered();
            let (sender, answer) = oneshot::channel();
            inbox
                .push(SessionRequest::PostBody(bytes, sender))
                .map_err(|_| Refused::SessionUnknown)?;
            match answer.await.unwrap_or(PostAnswer::Gone) {
                PostAnswer::Ok => Ok(()),
                PostAnswer::Bad => Err(Refused::BadRequest),
                PostAnswer::Gone => Err(Refused::SessionUnknown),
            }
        }
        Ok(Err(BodyError::TooLarge)) => {
            guard.answered();
            let _ = inbox.push(SessionRequest::PostRefused);
            // Reading is what invites the body of a client that asked first. One that was invited
            // already has read half of it.
            if !(expects && announced(&body) > max_payload) {
                discard(&mut body, max_payload.saturating_mul(DISCARDED_LIMITS)).await;
            }
            Err(Refused::TooLarge)
        }
        Ok(Err(BodyError::NoRoom)) => {
            guard.answered();
            let _ = inbox.push(SessionRequest::PostRefused);
            discard(&mut body, max_payload).await;
            Err(Refused::Busy)
        }
        Ok(Err(BodyError::SessionOver)) => {
            guard.answered();
            Err(Refused::SessionUnknown)
        }
        // The guard ends the session.
        Ok(Err(BodyError::Broken)) => Err(Refused::BadRequest),
        Err(_) => Err(Refused::BodyTimeout),
    }
}

enum BodyError {
    TooLarge,
    /// All clients together send too much.
    NoRoom,
    /// The client went away or broke HTTP.
    Broken,
    /// The session ended meanwhile.
    SessionOver,
}

/// Reads a body of at most `max` bytes, counting what comes: the announced length is only good for
/// refusing early.
async fn read_body<B>(body: &mut B, max: usize, mut share: ByteShare) -> Result<Bytes, BodyError>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    if announced(body) > max {
        return Err(BodyError::TooLarge);
    }
    let mut whole = Bytes::new();
    let mut joined: Option<BytesMut> = None;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else {
            continue;
        };
        let seen = joined.as_ref().map_or(whole.len(), BytesMut::len);
        if seen.saturating_add(data.len()) > max {
            return Err(BodyError::TooLarge);
        }
        if !share.try_grow(data.len()) {
            return Err(BodyError::NoRoom);
        }
        match &mut joined {
            Some(joined) => joined.extend_from_slice(&data),
            None if whole.is_empty() => whole = data,
            None => joined = Some([&whole[..], &data[..]].concat().as_slice().into()),
        }
    }
    Ok(share.charge_until_dropped(joined.map_or(whole, BytesMut::freeze)))
}

/// How long the rest of the body is at least.
fn announced<B: HttpBody>(body: &B) -> usize {
    usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX)
}

/// Reads at most `max` bytes, for a short time, and throws them away.
async fn discard<B>(body: &mut B, max: usize)
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let mut seen = 0usize;
    let _ = timeout(DISCARD_TIME, async {
        while let Some(Ok(frame)) = body.frame().await {
            seen = seen.saturating_add(frame.data_ref().map_or(0, Bytes::len));
            if seen > max {
                return;
            }
        }
    })
    .await;
}

fn is_octets(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    kind.split(';')
        .next()
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/octet-stream"))
}

/// 200 with packets.
pub(super) fn payload(body: Body) -> Answer {
    match body {
        Body::Text(body) => answer(body, "text/plain; charset=UTF-8"),
        Body::Octets(body) => answer(body, "application/octet-stream"),
    }
}

fn ok() -> Answer {
    answer(Bytes::from_static(b"ok"), "text/html")
}

fn answer(body: Bytes, kind: &'static str) -> Answer {
    let mut response = Response::new(Full::new(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
