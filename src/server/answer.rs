//! The body of an answer, given to the connection in parts, so that it is seen how far the client
//! takes it: a large answer may take its time, one that stands still is cut off.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};

use super::activity::{Work, Writing};

/// The connection buffers about one, and the system what fits into its send buffer.
const PART: usize = 32 * 1024;

pub(super) struct Answer {
    body: Full<Bytes>,
    /// What `body` gave and the connection has not taken yet.
    rest: Bytes,
    writing: Writing,
}

impl Answer {
    /// `work` is done with this body.
    pub(super) fn new(body: Full<Bytes>, work: Work) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            writing: work.write(),
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        this.writing.moved();
        if this.rest.is_empty() {
            match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => this.rest = bytes,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => return other,
            }
        }
        let part = this.rest.split_to(this.rest.len().min(PART));
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.body.size_hint().exact().unwrap_or_default();
        SizeHint::with_exact(left + self.rest.len() as u64)
    }
}
