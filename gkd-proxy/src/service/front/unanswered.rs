//! A request until its answer is over ([`Unanswered`]): its part in what the connection is doing, and its line in the access log.
//! Both come when it is dropped, wherever it is then.

use std::sync::Arc;

use hyper::header;
use hyper::http::request::Parts;
use tokio::time::Instant;

use super::visitor::Visitor;
use crate::service::access_log::Entry;

/// A request that has no answer, or not a whole one.
pub(super) struct Unanswered {
    visitor: Arc<Visitor>,
    began: Instant,
    /// None where nothing is logged.
    entry: Option<Box<Entry>>,
    whole: bool,
}

impl Unanswered {
    /// One that begins, which the connection's activity knows already.
    pub(super) fn new(visitor: Arc<Visitor>, parts: &Parts, id: &Arc<str>) -> Self {
        let entry = visitor.is_logged().then(|| {
            let host = match (parts.headers.get(header::HOST), parts.uri.authority()) {
                (_, Some(authority)) => Some(authority.to_string()),
                (Some(host), None) => Some(String::from_utf8_lossy(host.as_bytes()).into_owned()),
                (None, None) => None,
            };
            let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
            Box::new(Entry {
                client: visitor.client.ip(),
                host,
                request: format!("{} {path} {:?}", parts.method, parts.version),
                status: 0,
                bytes: 0,
                took: std::time::Duration::ZERO,
                service: None,
                target: None,
                id: Arc::clone(id),
                whole: false,
            })
        });
        Self { visitor, began: Instant::now(), entry, whole: false }
    }

    /// Changes what is logged, if it is.
    pub(super) fn log(&mut self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = &mut self.entry {
            change(entry);
        }
    }

    /// So many bytes of the answer's body went.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.log(|entry| entry.bytes += bytes as u64);
    }

    /// The answer has come to its end.
    pub(super) fn whole(&mut self) {
        self.whole = true;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        let (whole, took) = (self.whole, self.began.elapsed());
        if let Some(mut entry) = self.entry.take() {
            (entry.whole, entry.took) = (whole, took);
            self.visitor.log(&entry);
        }
        self.visitor.ended(whole);
    }
}
