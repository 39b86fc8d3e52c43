//! The body of a request on its way up, and a [`Watch`] that tells what has become of it: whether it moved, and whether it
//! may be sent elsewhere.
//!
//! Requests whose sender asks before it sends a body (RFC 9110, section 10.1.1) are [`expecting`]: the question travels with
//! the head; the answer is the web server's, so that one which refuses is spared the body, and is heard.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use hyper::body::{Body, Frame, SizeHint};
use hyper::ext::on_informational;
use hyper::header;
use hyper::http::request;
use hyper::{Request, StatusCode};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::BoxError;

/// How long a web server may take to answer the question. Many do not know it, so programs do not wait much longer (curl:
/// as long).
const ANSWER: Duration = Duration::from_secs(1);

/// A body on its way up.
pub(crate) struct Upload<B> {
    watch: Watch<B>,
    /// The body is not touched before this is over: that it is read tells the sender to send it.
    wanted: Option<BoxFuture<'static, ()>>,
}

/// What is known of a body on its way up.
pub(crate) struct Watch<B>(Arc<Mutex<Course<B>>>);

struct Course<B> {
    /// None once it was taken back or given up.
    body: Option<B>,
    /// When something last came of it.
    moved: Instant,
    /// Something came of it.
    begun: bool,
    /// All of it was handed on.
    whole: bool,
    /// Its sender broke off.
    broken: bool,
    /// Whoever hands it on waits for its sender.
    waker: Option<Waker>,
}

/// The request, its body held where its sender asks.
pub(crate) fn expecting<B>(head: request::Parts, upload: Upload<B>) -> Request<Upload<B>> {
    let asks = head.headers.get(header::EXPECT);
    let asks = asks.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let mut request = Request::from_parts(head, upload);
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

impl<B: Body> Upload<B> {
    /// A body that nothing came of yet.
    pub(crate) fn new(body: B) -> Self {
        let whole = body.is_end_stream();
        let course = Course {
            body: Some(body),
            moved: Instant::now(),
            begun: false,
            whole,
            broken: false,
            waker: None,
        };
        Self { watch: Watch(Arc::new(Mutex::new(course))), wanted: None }
    }

    /// What tells of it.
    pub(crate) fn watch(&self) -> Watch<B> {
        self.watch.clone()
    }
}

impl<B> Watch<B> {
    fn lock(&self) -> MutexGuard<'_, Course<B>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When something last came of it; now while its sender is waited for, who is bounded elsewhere.
    pub(crate) fn moved(&self) -> Instant {
        let course = self.lock();
        match course.waker {
            Some(_) => Instant::now(),
            None => course.moved,
        }
    }

    /// When something last came of it, whoever is waited for.
    pub(crate) fn last(&self) -> Instant {
        self.lock().moved
    }

    /// Whether all of it was handed on.
    pub(crate) fn is_whole(&self) -> bool {
        self.lock().whole
    }

    /// Whether its sender broke off.
    pub(crate) fn is_broken(&self) -> bool {
        self.lock().broken
    }

    /// The body, where nothing came of it yet: it may go elsewhere. Who still has the [`Upload`] gets no more of it.
    pub(crate) fn take_back(&self) -> Option<B> {
        let body = self.take_untouched();
        self.give_up();
        body
    }

    /// The same; but it goes on where something has come of it.
    pub(crate) fn take_untouched(&self) -> Option<B> {
        let (body, waker) = {
            let mut course = self.lock();
            if course.begun {
                return None;
            }
            (course.body.take(), course.waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        body
    }

    /// Ends it, whole or not.
    pub(crate) fn give_up(&self) {
        let (body, waker) = {
            let mut course = self.lock();
            (course.body.take(), course.waker.take())
        };
        drop(body);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<B> Clone for Watch<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B> Body for Upload<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(wanted) = &mut self.wanted {
            ready!(wanted.as_mut().poll(cx));
            self.wanted = None;
        }
        self.watch.lock().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.watch.lock().whole
    }

    fn size_hint(&self) -> SizeHint {
        self.watch.lock().body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl<B> Course<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(body) = &mut self.body else {
            let given_up = || Err(io::Error::from(io::ErrorKind::ConnectionAborted).into());
            return Poll::Ready((!self.whole).then(given_up));
        };
        let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else {
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        self.waker = None;
        self.moved = Instant::now();
        match &frame {
            None => self.whole = true,
            Some(Ok(_)) => {
                self.begun = true;
                self.whole = body.is_end_stream();
            }
            Some(Err(_)) => {
                self.begun = true;
                self.broken = true;
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }
}
