//! The body of an answer, given to the connection in parts, so that it is seen how far the client
//! takes it: a large answer may take its time, one that stands still is cut off.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::idle::{OpenRequest, Writing};

/// The connection buffers about one, and the system what fits into its send buffer.
const PART: usize = 32 * 1024;

pub(super) struct TimedBody<B> {
    body: B,
    /// What `body` gave and the connection has not taken yet.
    rest: Bytes,
    writing: Writing,
}

impl<B> TimedBody<B> {
    /// `work` is done with this body.
    pub(super) fn new(body: B, work: OpenRequest) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            writing: work.write(),
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for TimedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
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
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(hint.lower().saturating_add(rest));
        hint
    }
}
