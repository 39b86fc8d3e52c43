//! The body of an answer on its way to the client ([`Download`]). With it ends the request: its line in the access log, its
//! part in what the connection is doing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::stalls::Reader;
use super::unanswered::Unanswered;
use super::wire::Broken;
use crate::service::ServiceBody;

/// An answer's body.
pub(super) struct Download {
    /// None where the answer has no body, although it tells of one.
    body: Option<ServiceBody>,
    reader: Option<Arc<Reader>>,
    broken: Broken,
    request: Unanswered,
}

impl Download {
    /// `bodiless` for the answer to HEAD.
    pub(super) fn new(body: ServiceBody, bodiless: bool, broken: Broken, request: Unanswered) -> Self {
        let body = (!bodiless).then_some(body);
        let mut download = Self { body, reader: Reader::of_task(), broken, request };
        download.note_end();
        download
    }

    fn note_end(&mut self) {
        if self.is_end_stream() {
            self.request.whole();
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
            if let Some(reader) = &this.reader {
                reader.has_read();
            }
            return Poll::Pending;
        };
        match &frame {
            Some(Ok(frame)) => {
                this.request.moved(frame.data_ref().map_or(0, Bytes::len));
                if let Some(reader) = &this.reader {
                    reader.is_to_read();
                }
                this.note_end();
            }
            Some(Err(_)) => this.broken.set(),
            None => this.request.whole(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
