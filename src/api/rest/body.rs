//! The body of an answer: whole, or in parts that are read and written as the client takes them.
//! What it holds counts ([`Budget`](super::budget::Budget)) until the connection has taken it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::budget::Charge;
use crate::reads::Reads;
use crate::wire::error::ApiError;

/// From the first to the last part of an answer. Its state of the store is held all the time, and
/// old rows cannot be forgotten meanwhile. (A client that takes nothing at all is cut off sooner,
/// by the server.)
const LONGEST: Duration = Duration::from_secs(600);
/// What an answer in parts holds at most at a time: one part.
pub const PART_BYTES: usize = 128 * 1024;

/// Where the parts of an answer come from.
pub trait BodyParts: Send + 'static {
    /// The next part; `None` at the end. Blocks the thread.
    fn next(&mut self) -> Result<Option<Bytes>, ApiError>;
}

pub struct AnswerBody {
    content: Content,
    held: Option<Charge>,
}

enum Content {
    Whole(Full<Bytes>),
    Parts(PartsBody),
}

struct PartsBody {
    reads: Reads,
    until: Instant,
    state: PartsState,
}

enum PartsState {
    Waiting(Box<dyn BodyParts>),
    Read(Pin<Box<dyn Future<Output = Result<ReadPart, ApiError>> + Send>>),
    Ended,
}

type ReadPart = (Box<dyn BodyParts>, Option<Bytes>);

impl AnswerBody {
    /// An error of `parts` ends the connection: what was sent so far cannot be taken back.
    pub fn parts(reads: Reads, parts: impl BodyParts) -> Self {
        Self {
            content: Content::Parts(PartsBody {
                reads,
                until: Instant::now() + LONGEST,
                state: PartsState::Waiting(Box::new(parts)),
            }),
            held: None,
        }
    }

    /// Bytes that it holds, or will.
    pub fn weight(&self) -> usize {
        match &self.content {
            Content::Whole(body) => usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX),
            Content::Parts(_) => PART_BYTES,
        }
    }

    /// Holds `charge` until it is out.
    pub fn hold(&mut self, charge: Charge) {
        self.held = Some(charge);
    }
}

impl AnswerBody {
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::from_full(Full::new(bytes.into()))
    }

    pub fn from_full(body: Full<Bytes>) -> Self {
        Self {
            content: Content::Whole(body),
            held: None,
        }
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
        match &mut self.content {
            Content::Whole(body) => Pin::new(body)
                .poll_frame(context)
                .map_err(|never| match never {}),
            Content::Parts(reading) => reading.poll(context).map_ok(Frame::data),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(body) => body.is_end_stream(),
            Content::Parts(reading) => matches!(reading.state, PartsState::Ended),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(body) => body.size_hint(),
            Content::Parts(_) => SizeHint::default(),
        }
    }
}

impl PartsBody {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, ApiError>>> {
        loop {
            match std::mem::replace(&mut self.state, PartsState::Ended) {
                PartsState::Ended => return Poll::Ready(None),
                PartsState::Waiting(_) if Instant::now() >= self.until => {
                    return Poll::Ready(Some(Err(too_slow())));
                }
                PartsState::Waiting(mut parts) => {
                    let reads = self.reads.clone();
                    let read = async move {
                        let next = move |_: &_| {
                            let part = parts.next()?;
                            Ok((parts, part))
                        };
                        reads.run_long(next).await
                    };
                    self.state = PartsState::Read(Box::pin(read));
                }
                PartsState::Read(mut read) => {
                    let Poll::Ready(done) = read.as_mut().poll(context) else {
                        self.state = PartsState::Read(read);
                        return Poll::Pending;
                    };
                    return Poll::Ready(match done {
                        Ok((_, None)) => None,
                        Ok((parts, Some(part))) => {
                            self.state = PartsState::Waiting(parts);
                            Some(Ok(part))
                        }
                        Err(error) => Some(Err(error)),
                    });
                }
            }
        }
    }
}

fn too_slow() -> ApiError {
    let message = "The answer took longer than ten minutes; ask for it in pages (limit, after).";
    ApiError::new(hyper::StatusCode::REQUEST_TIMEOUT, "timeout", message)
}
