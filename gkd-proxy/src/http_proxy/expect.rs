//! Requests whose program asks before it sends a body (RFC 9110, section 10.1.1): [`held`]. The question travels with the
//! head; the answer is the web server's, so that one which refuses is spared the body, and is heard.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::ext::on_informational;
use hyper::header;
use hyper::http::request;
use hyper::{Request, StatusCode};
use tokio::sync::Notify;
use tokio::time::timeout;

/// How long a web server may take to answer the question. Many do not know it, so programs do not wait much longer (curl:
/// as long).
const ANSWER: Duration = Duration::from_secs(1);

/// A body that is not touched before the web server wants it: that it is read tells the program to send it.
pub(super) struct Held {
    body: Incoming,
    wanted: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// The request, its body held where the program asks.
pub(super) fn held(head: request::Parts, body: Incoming) -> Request<Held> {
    let asks = head.headers.get(header::EXPECT);
    let asks = asks.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let mut request = Request::from_parts(head, Held { body, wanted: None });
    if asks {
        let answered = Arc::new(Notify::new());
        let answer = Arc::clone(&answered);
        on_informational(&mut request, move |head| {
            if head.status() == StatusCode::CONTINUE {
                answer.notify_one();
            }
        });
        request.body_mut().wanted = Some(Box::pin(async move {
            timeout(ANSWER, answered.notified()).await.ok();
        }));
    }
    request
}

impl Body for Held {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(wanted) = &mut self.wanted {
            ready!(wanted.as_mut().poll(cx));
            self.wanted = None;
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
