//! Streams of HTTP/2 whose client does not read ([`Streams`]): the connection goes on, so no write of it waits, but an answer holds
//! its target for ever. Such a stream is reset.
//!
//! hyper runs each stream as a task of its own, which this starts; the answer's body, which hyper asks for more only when the
//! client has room, tells when it waits for that.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::time::{Instant, sleep_until};

use super::activity::Activity;
use super::counts::Counts;

tokio::task_local! {
    static READER: Arc<Reader>;
}

/// Whether a stream's client is to read, and since when.
#[derive(Debug, Default)]
pub(super) struct Reader {
    since: Mutex<Option<Instant>>,
}

impl Reader {
    /// That of the stream whose task this is.
    pub(super) fn of_task() -> Option<Arc<Self>> {
        READER.try_with(Arc::clone).ok()
    }

    /// The client is to read something.
    pub(super) fn is_to_read(&self) {
        self.set(Some(Instant::now()));
    }

    /// The client has read so much that there is room for more.
    pub(super) fn has_read(&self) {
        self.set(None);
    }

    fn set(&self, since: Option<Instant>) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    async fn silent_for(&self, silence: Duration) {
        loop {
            let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            match since {
                Some(since) if now >= since + silence => return,
                Some(since) => sleep_until(since + silence).await,
                None => sleep_until(now + silence).await,
            }
        }
    }
}

/// Runs the streams of one connection.
#[derive(Clone)]
pub(super) struct Streams {
    silence: Duration,
    counts: Arc<Counts>,
    activity: Arc<Activity>,
}

impl Streams {
    pub(super) fn new(silence: Duration, counts: Arc<Counts>, activity: Arc<Activity>) -> Self {
        Self { silence, counts, activity }
    }
}

/// A task of a connection, which keeps it from being idle: what an upgrade left too.
struct Held(Arc<Activity>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.ended();
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let Self { silence, counts, activity } = self.clone();
        activity.hold();
        let held = Held(activity);
        let reader = Arc::new(Reader::default());
        tokio::spawn(READER.scope(Arc::clone(&reader), async move {
            tokio::select! {
                () = stream => {}
                () = reader.silent_for(silence) => counts.silent.add(),
            }
            drop(held);
        }));
    }
}
