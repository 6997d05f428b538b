//! The body of an answer: whole, or in parts that are read and written as the client takes them.
//! What it holds counts ([`Budget`](super::budget::Budget)) until the connection has taken it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::budget::Charge;
use crate::auth::{Principal, Scope};
use crate::reads::{Reads, StoreView};
use crate::wire::error::ApiError;

/// From the first to the last part of an answer. Its state of the store is held all the time, and
/// old rows cannot be forgotten meanwhile. (A client that takes nothing at all is cut off sooner,
/// by the server.)
const LONGEST: Duration = Duration::from_secs(600);
/// What an answer in parts holds at most at a time: one part.
pub const PART_BYTES: usize = 128 * 1024;

pub struct AnswerBody {
    content: UnsyncBoxBody<Bytes, ApiError>,
    weight: usize,
    held: Option<Charge>,
    /// Who asked; nothing more is given when they have ended.
    principal: Option<Principal>,
    /// It ends by itself when they have, and says why.
    says_its_end: bool,
}

impl AnswerBody {
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::from_full(Full::new(bytes.into()))
    }

    pub fn from_full(body: Full<Bytes>) -> Self {
        Self {
            weight: usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX),
            content: body.map_err(|never| match never {}).boxed_unsync(),
            held: None,
            principal: None,
            says_its_end: false,
        }
    }

    /// Reading a part may block its thread. An error of one ends the connection: what was sent so
    /// far cannot be taken back.
    pub fn parts(
        reads: Reads,
        parts: impl Iterator<Item = Result<Bytes, ApiError>> + Send + 'static,
    ) -> Self {
        let until = Instant::now() + LONGEST;
        let next = move |mut parts| {
            let reads = reads.clone();
            async move {
                if Instant::now() >= until {
                    return Err(too_slow());
                }
                let next = move |_: &StoreView<'_>| {
                    let part = Iterator::next(&mut parts).transpose()?;
                    Ok(part.map(|part| (Frame::data(part), parts)))
                };
                reads.run_long(next).await
            }
        };
        Self {
            content: StreamBody::new(stream::try_unfold(parts, next)).boxed_unsync(),
            weight: PART_BYTES,
            held: None,
            principal: None,
            says_its_end: false,
        }
    }

    /// In parts as they come, without end, of which about `weight` bytes are held at a time. It
    /// sees to it itself that it ends with who asked, and says so.
    pub fn unending(
        parts: impl Stream<Item = Result<Bytes, ApiError>> + Send + 'static,
        weight: usize,
    ) -> Self {
        Self {
            content: StreamBody::new(parts.map_ok(Frame::data)).boxed_unsync(),
            weight,
            held: None,
            principal: None,
            says_its_end: true,
        }
    }

    /// Bytes that it holds, or will.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// It is for nobody else.
    pub fn give_to(&mut self, principal: Principal) {
        self.principal = Some(principal).filter(|_| !self.says_its_end);
    }

    /// Holds `charge` until it is out.
    pub fn hold(&mut self, charge: Charge) {
        self.held = Some(charge);
    }
}

impl Default for AnswerBody {
    fn default() -> Self {
        Self::from_full(Full::default())
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = ApiError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ApiError>>> {
        if let Some(principal) = self.principal.take_if(|it| it.has_ended()) {
            let refusal = principal.require(Scope::Metrics).err();
            return Poll::Ready(refusal.map(|refusal| Err(refusal.into())));
        }
        Pin::new(&mut self.content).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}

fn too_slow() -> ApiError {
    let message = "The answer took longer than ten minutes; ask for it in pages (limit, after).";
    ApiError::new(hyper::StatusCode::REQUEST_TIMEOUT, "timeout", message)
}
