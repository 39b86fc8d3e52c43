//! The files of a folder as a target ([`Files`]), on tower-http's `ServeDir`: whole or in part, with types, conditions,
//! `index.html` of folders, and what stands beside a file in compressed form (`.br`, `.zst`, `.gz`). Nothing is listed; what
//! is there at all is as of a [site](crate::site).
//!
//! `ServeDir` finds and opens files, redirects to folders, chooses among compressed forms, judges conditions in the order of
//! RFC 9110, section 13.2.2, and cuts ranges. Here is what it leaves open:
//!
//! - `If-Range`, which it passes over: a part is sent only of what the condition names. Judged by the head of the answer, so
//!   that it is the file that was opened which is compared.
//! - Ranges that it refuses and RFC 9110, section 14.2, does not: of another unit, of several parts, backwards or malformed
//!   (the file goes whole), of more from the end than there is (all of it), and of an empty file. A range belongs to GET only.
//! - A file that shrinks while it is sent: the body ends with an error, and not as if that were all. One that grows is sent as
//!   long as it was.
//! - Entity tags: those of `ServeDir` are the time of the last change and the size, as those of nginx
//!   (`ngx_http_set_etag`), and not the inode as well, so that two machines with the same files agree on them. They are strong,
//!   which a change right after another would belie; so the tag of a file that has just changed is sent as a weak one, as
//!   Apache does (`ap_make_etag`).
//! - `OPTIONS`, `Vary` of a 304, and `Location` without a host, which may be another in front.
//!
//! A compressed form is sent as it is: that it has the file's content, and not that of the day before, is up to whoever makes it.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::future::BoxFuture;
use gkd_core::proto::packet::ResetCode;
use gkd_core::seldom::Seldom;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tower_http::services::ServeDir;
use tower_http::services::fs::{DefaultServeDirFallback, ServeFileSystemResponseBody};

use super::error_page::{self, REQUEST_ID, Side};
use super::target::Content;
use super::{ServiceBody, Visit};
use crate::connection::VirtualConnection;
use crate::inside::{Inside, is_absence};
use crate::relay::{End, Relayed};
use crate::ws::side::Virtual;

/// What may be done with files.
const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

/// A file that was changed this short a time ago may be changed again within the same tick of the clock. Times in heads are
/// whole seconds.
const JUST_CHANGED: Duration = Duration::from_secs(2);

/// A folder whose files are asked for by HTTP. Answers any number of requests at a time, and reads on threads that may block.
#[derive(Debug)]
pub struct Files {
    files: Inside,
    serve: ServeDir<DefaultServeDirFallback, Inside>,
    /// Visitors cause these lines.
    complaints: Seldom,
}

/// An answer with an open file, or without.
type Found = Response<ServeFileSystemResponseBody>;

impl Content for Files {
    fn answer(
        self: Arc<Self>,
        request: Request<ServiceBody>,
        _: &Visit,
    ) -> BoxFuture<'static, Response<ServiceBody>> {
        Box::pin(async move { Files::answer(&self, request).await })
    }

    fn name(&self) -> &str {
        // A folder whose path is no text was not read from a configuration.
        self.root().to_str().unwrap_or("a folder")
    }
}

impl Files {
    /// The files of a folder. It may come and go.
    pub fn new(root: PathBuf) -> Self {
        let files = Inside::new(root);
        let serve = ServeDir::with_backend(files.root(), files.clone());
        let serve = serve.precompressed_br().precompressed_zstd().precompressed_gzip();
        Self { files, serve, complaints: Seldom::default() }
    }

    /// Where the folder is.
    pub fn root(&self) -> &Path {
        self.files.root()
    }

    /// Answers a request. Its body, if it has one, is nothing to a file.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<ServiceBody> {
        let (head, _) = request.into_parts();
        let page = Page::of(&head.headers);
        match head.method {
            Method::GET => self.get(head, &page).await,
            // The file is opened all the same, so that both are told the same of it.
            Method::HEAD => self.get(head, &page).await.map(|_| nothing()),
            Method::OPTIONS => allow(empty(StatusCode::NO_CONTENT)),
            _ => allow(page.told(StatusCode::METHOD_NOT_ALLOWED)),
        }
    }

    async fn get(&self, head: Parts, page: &Page) -> Response<ServiceBody> {
        let Some(asked) = Asked::of(head) else { return page.told(StatusCode::NOT_FOUND) };
        match self.find(&asked).await {
            Ok(found) => finished(found, SystemTime::now(), page),
            Err(error) if is_absence(&error) => page.told(StatusCode::NOT_FOUND),
            Err(error) => {
                let cause = error.to_string();
                if let Some(more) = self.complaints.note(&cause) {
                    let root = self.root().display();
                    tracing::warn!("a file of {root} cannot be read: {}{more}", cause.escape_debug());
                }
                page.told(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }

    async fn find(&self, asked: &Asked) -> io::Result<Found> {
        let Some(range) = asked.range else { return self.call(asked.whole()).await };
        let found = self.call(asked.part(range)).await?;
        let applies = asked.if_range.as_ref().is_none_or(|condition| holds(condition, found.headers()));
        let length = range_length(found.headers());
        match found.status() {
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE
                if !applies || length == Some(0) =>
            {
                self.call(asked.whole()).await
            }
            StatusCode::RANGE_NOT_SATISFIABLE if range.is_longer_suffix_than(length) => {
                self.call(asked.part(Range::From(0))).await
            }
            _ => Ok(found),
        }
    }

    async fn call(&self, request: Request<()>) -> io::Result<Found> {
        self.serve.clone().try_call(request).await
    }
}

/// A request for a file, as `ServeDir` gets it.
struct Asked {
    uri: Uri,
    headers: HeaderMap,
    range: Option<Range>,
    if_range: Option<HeaderValue>,
}

impl Asked {
    /// None where it asks for what no folder has.
    fn of(head: Parts) -> Option<Self> {
        let Parts { uri, mut headers, method, .. } = head;
        // A path of other characters than a URI's would be an impossible header where a folder is redirected to itself with a
        // slash, and one that begins with two slashes would be another host there.
        if !uri.path().is_ascii() || !uri.path().starts_with('/') || uri.path().starts_with("//") {
            return None;
        }
        // Only this, for in front there may be another host, and TLS.
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        // A field that stands on two lines is a list; of conditions it is looked at one.
        for list in [header::IF_MATCH, header::IF_NONE_MATCH, header::ACCEPT_ENCODING] {
            join(&mut headers, &list);
        }
        let if_range = headers.remove(header::IF_RANGE);
        let mut ranges = headers.get_all(header::RANGE).iter();
        let range = match (ranges.next(), ranges.next()) {
            (Some(range), None) if method == Method::GET => Range::of(range),
            _ => None,
        };
        headers.remove(header::RANGE);
        Some(Self { uri: path.into(), headers, range, if_range })
    }

    fn whole(&self) -> Request<()> {
        let mut request = Request::new(());
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    fn part(&self, range: Range) -> Request<()> {
        let mut request = self.whole();
        request.headers_mut().insert(header::RANGE, range.value());
        request
    }
}

/// Makes one line of a list's lines.
fn join(headers: &mut HeaderMap, name: &HeaderName) {
    if headers.get_all(name).iter().nth(1).is_none() {
        return;
    }
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    // What lines may hold a line of them may.
    if let Ok(line) = HeaderValue::from_bytes(&lines.join(&b", "[..])) {
        headers.insert(name, line);
    }
}

/// The one part that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Range {
    /// From one byte to another, both in it.
    Between(u64, u64),
    /// From here to the end.
    From(u64),
    /// So many bytes at the end.
    Last(u64),
}

impl Range {
    /// The part that `Range` names; none where it names no single one, and so is to be passed over.
    fn of(value: &HeaderValue) -> Option<Self> {
        let (unit, set) = value.to_str().ok()?.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        // Empty elements of a list are none (RFC 9110, section 5.6.1).
        let mut ranges = set.split(',').map(str::trim).filter(|range| !range.is_empty());
        let (first, None) = (ranges.next()?, ranges.next()) else { return None };
        let (from, to) = first.split_once('-')?;
        match (from, to) {
            ("", last) => Some(Self::Last(number(last)?)),
            (from, "") => Some(Self::From(number(from)?)),
            (from, to) => {
                let (from, to) = (number(from)?, number(to)?);
                (from <= to).then_some(Self::Between(from, to))
            }
        }
    }

    /// As `ServeDir` reads it.
    fn value(self) -> HeaderValue {
        let words = match self {
            Self::Between(from, to) => format!("bytes={from}-{to}"),
            Self::From(from) => format!("bytes={from}-"),
            Self::Last(count) => format!("bytes=-{count}"),
        };
        // Digits, all of it.
        HeaderValue::from_str(&words).unwrap_or(HeaderValue::from_static("bytes=0-"))
    }

    /// Whether it is more from the end than a file of this length has.
    fn is_longer_suffix_than(self, length: Option<u64>) -> bool {
        matches!((self, length), (Self::Last(count), Some(length)) if count > length)
    }
}

/// Any number of digits; what no file is long enough for is the largest number.
fn number(digits: &str) -> Option<u64> {
    let right = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    right.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// The length of the file that a range is of, or is not of.
fn range_length(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.rsplit_once('/')?.1.parse().ok()
}

/// Whether `If-Range` names what was found (RFC 9110, section 13.1.5): by a strong tag, or by a date that is a strong one.
fn holds(condition: &HeaderValue, found: &HeaderMap) -> bool {
    let name = if condition.as_bytes().starts_with(b"\"") { header::ETAG } else { header::LAST_MODIFIED };
    found.get(name) == Some(condition) && !has_just_changed(found, SystemTime::now())
}

/// Whether what was found may change once more and look the same.
fn has_just_changed(found: &HeaderMap, now: SystemTime) -> bool {
    let Some(changed) = last_modified(found) else { return false };
    // The time to come, of a clock that was put back, is as good as now.
    now.duration_since(changed).is_ok_and(|age| age < JUST_CHANGED) || changed > now
}

fn last_modified(found: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(found.get(header::LAST_MODIFIED)?.to_str().ok()?).ok()
}

/// What `ServeDir` found, as it is sent.
fn finished(found: Found, now: SystemTime, page: &Page) -> Response<ServiceBody> {
    let status = found.status();
    let (mut head, body) = found.into_parts();
    match status {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED => {}
        // A redirect, and errors; those have words.
        _ if status.is_redirection() => return Response::from_parts(head, nothing()),
        StatusCode::RANGE_NOT_SATISFIABLE => {
            let mut response = page.told(status);
            let range = head.headers.remove(header::CONTENT_RANGE);
            response.headers_mut().extend(range.map(|range| (header::CONTENT_RANGE, range)));
            return response;
        }
        _ => return page.told(status),
    }
    if has_just_changed(&head.headers, now) {
        weaken(&mut head.headers);
        // A date after this answer's is not to be sent (RFC 9110, section 8.8.2.1).
        if last_modified(&head.headers).is_some_and(|changed| changed > now) {
            head.headers.remove(header::LAST_MODIFIED);
        }
    }
    if status == StatusCode::NOT_MODIFIED {
        head.headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        return Response::from_parts(head, nothing());
    }
    let length = head.headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0);
    Response::from_parts(head, Exactly { body, left: length }.boxed_unsync())
}

/// Makes the tag a weak one.
fn weaken(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(header::ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")) else { return };
    if let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()) {
        headers.insert(header::ETAG, weak);
    }
}

fn nothing() -> ServiceBody {
    Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn empty(status: StatusCode) -> Response<ServiceBody> {
    let mut response = Response::new(nothing());
    *response.status_mut() = status;
    response
}

/// What the page for a request needs to know of it, where no file is sent.
struct Page {
    /// Its name, which the front gave it. It comes over the session as well.
    id: String,
    accept: HeaderMap,
}

impl Page {
    fn of(headers: &HeaderMap) -> Self {
        let id = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
        let accept = headers.get_all(header::ACCEPT).iter().map(|value| (header::ACCEPT, value.clone()));
        Self { id, accept: accept.collect() }
    }

    fn told(&self, status: StatusCode) -> Response<ServiceBody> {
        let (side, words) = match status {
            StatusCode::NOT_FOUND => (Side::Request, "There is no file by this name."),
            StatusCode::METHOD_NOT_ALLOWED => (Side::Request, "Files are read here, and nothing else."),
            StatusCode::RANGE_NOT_SATISFIABLE => (Side::Request, "The file has no such part."),
            StatusCode::PRECONDITION_FAILED => (Side::Request, "The file is not as the request supposes."),
            status if status.is_client_error() => (Side::Request, "The request is not in the form of one."),
            _ => (Side::Service, "The file cannot be read at the moment."),
        };
        let mut response = error_page::page(status, side, words, &self.id, &self.accept);
        // So that a HEAD, which is answered without it, is told the same.
        if let Some(length) = response.body().size_hint().exact() {
            response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        }
        response
    }
}

fn allow(mut response: Response<ServiceBody>) -> Response<ServiceBody> {
    response.headers_mut().insert(header::ALLOW, ALLOW);
    response
}

/// A body of so many bytes: neither more nor, without an error, less.
struct Exactly<B> {
    body: B,
    left: u64,
}

impl<B: Body<Data = Bytes, Error = io::Error> + Unpin> Body for Exactly<B> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        if this.left == 0 {
            return Poll::Ready(None);
        }
        let frame = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(frame) => frame?,
            None => {
                let words = "the file became shorter while it was sent";
                return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::UnexpectedEof, words))));
            }
        };
        // Of a file there is nothing else.
        let mut bytes = frame.into_data().unwrap_or_default();
        bytes.truncate(usize::try_from(this.left).unwrap_or(usize::MAX));
        this.left -= bytes.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Answers the requests of a connection that the other end opened, until that ends it.
pub(crate) async fn serve_files<C: VirtualConnection>(connection: &C, files: Arc<Files>) -> Relayed {
    let service = service_fn(move |request: Request<Incoming>| {
        let files = files.clone();
        async move { Ok::<_, Infallible>(Files::answer(&files, request).await) }
    });
    // How long one is kept that asks nothing, the end knows which opened it.
    let served = http1::Builder::new().serve_connection(TokioIo::new(Virtual(connection)), service).await;
    if let Err(error) = served {
        tracing::debug!("files: {error}");
        // What was begun must not look as if it were whole.
        connection.reset(ResetCode::APPLICATION);
    }
    Relayed { up: 0, down: 0, end: End::Finished }
}

#[cfg(test)]
mod tests;
