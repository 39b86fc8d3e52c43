//! The access log: a line for each request when its answer is over, as text or JSON, on standard output ([`AccessLogger`]).
//!
//! ```text
//! 2026-01-31T09:16:59.123456Z 203.0.113.9 shop.example.org "GET /cart HTTP/1.1" 200 5123 12 shop http://10.0.0.1:8080 4f…
//! time, client, host, request, status, bytes of the body, milliseconds, service, target, id
//! ```
//!
//! What is not known is `-`; the status of a request that was given up before it was answered is 0; `broken-off` stands behind one
//! whose answer did not come to its end. Of a head of HTTP/2 that is too large nothing is known but that: its request is `- - HTTP/2.0`.
//! Whatever a client wrote is escaped, so that a line is a line. Lines are written by a thread of their own: where whatever reads them is too slow they
//! are dropped, counted, and told of in the other log.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use gkd_core::seldom::Seldom;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::config::AccessLog;

/// How many lines may wait to be written, of a few hundred bytes each.
const MAX_WAITING: usize = 8192;

/// What the log says of a request.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Who asked.
    pub client: IpAddr,
    /// The host that was asked for, as it was written.
    pub host: Option<String>,
    /// Method, path and version, as they were written.
    pub request: String,
    /// The answer's status; 0 when there was none.
    pub status: u16,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// From the request's head to the end of the answer.
    pub took: Duration,
    /// The service, if there was one.
    pub service: Option<Arc<str>>,
    /// Its target.
    pub target: Option<Arc<str>>,
    /// The request's name.
    pub id: Arc<str>,
    /// Whether the answer came to its end.
    pub whole: bool,
}

impl Entry {
    /// The line of the entry, which ends now.
    fn line(&self, form: AccessLog) -> Option<String> {
        match form {
            AccessLog::Off => None,
            AccessLog::Text => Some(self.text(&now())),
            AccessLog::Json => Some(self.json(&now())),
        }
    }

    fn text(&self, time: &str) -> String {
        format!(
            "{time} {} {} \"{}\" {} {} {} {} {} {}{}\n",
            self.client,
            word(self.host.as_deref()),
            escaped(&self.request, false),
            self.status,
            self.bytes,
            self.took.as_millis(),
            word(self.service.as_deref()),
            word(self.target.as_deref()),
            word(Some(&self.id)),
            if self.whole { "" } else { " broken-off" },
        )
    }

    fn json(&self, time: &str) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            time: &'a str,
            client: IpAddr,
            host: Option<&'a str>,
            request: &'a str,
            status: u16,
            bytes: u64,
            ms: u64,
            service: Option<&'a str>,
            target: Option<&'a str>,
            id: &'a str,
            whole: bool,
        }
        let line = Line {
            time,
            client: self.client,
            host: self.host.as_deref(),
            request: &self.request,
            status: self.status,
            bytes: self.bytes,
            ms: u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            service: self.service.as_deref(),
            target: self.target.as_deref(),
            id: &self.id,
            whole: self.whole,
        };
        // Strings and numbers always serialise.
        serde_json::to_string(&line).unwrap_or_default() + "\n"
    }
}

/// The time as the other log writes it.
fn now() -> String {
    let mut time = String::with_capacity(27);
    // It fails where the writer does, and a string does not.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    time
}

/// A word of its own.
fn word(word: Option<&str>) -> Cow<'_, str> {
    match word {
        None | Some("") => Cow::Borrowed("-"),
        Some(word) => escaped(word, true),
    }
}

/// Only printable ASCII, with what ends a word or a quotation escaped.
fn escaped(words: &str, is_word: bool) -> Cow<'_, str> {
    let plain = |byte: &u8| match byte {
        b'"' | b'\\' => false,
        b' ' => !is_word,
        byte => byte.is_ascii_graphic(),
    };
    if words.bytes().all(|byte| plain(&byte)) {
        return Cow::Borrowed(words);
    }
    let mut out = String::with_capacity(words.len() + 8);
    for byte in words.bytes() {
        match byte {
            byte if plain(&byte) => out.push(byte.into()),
            b'"' | b'\\' => out.extend(['\\', byte.into()]),
            // Writing to a string does not fail.
            byte => drop(write!(out, "\\x{byte:02x}")),
        }
    }
    Cow::Owned(out)
}

/// Writes the access log. Dropping it ends it, when what waits is written.
pub struct AccessLogger {
    lines: RwLock<Option<SyncSender<String>>>,
    dropped: Arc<AtomicU64>,
    finished: Mutex<Option<oneshot::Receiver<()>>>,
}

impl AccessLogger {
    /// Begins to write lines to an output.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, waiting) = mpsc::sync_channel(MAX_WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let (finishing, finished) = oneshot::channel();
        let counted = Arc::clone(&dropped);
        thread::Builder::new().name("access log".to_owned()).spawn(move || {
            write(output, &waiting, &counted);
            // Nobody may be waiting.
            let _ = finishing.send(());
        })?;
        Ok(Self { lines: RwLock::new(Some(lines)), dropped, finished: Mutex::new(Some(finished)) })
    }

    /// Logs a request. Never waits.
    pub fn log(&self, form: AccessLog, entry: &Entry) {
        let Some(line) = entry.line(form) else { return };
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        let Some(lines) = &*lines else { return };
        if let Err(TrySendError::Full(_)) = lines.try_send(line) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many lines were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Logs nothing more, and waits until everything is written, but not for longer than this.
    pub async fn finish(&self, patience: Duration) {
        drop(self.lines.write().unwrap_or_else(PoisonError::into_inner).take());
        let finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(finished) = finished
            && timeout(patience, finished).await.is_err()
        {
            tracing::warn!("the access log could not be written to its end: whatever reads it stands still");
        }
    }
}

/// Writes lines until there are no more to come.
fn write(output: impl Write, lines: &Receiver<String>, dropped: &AtomicU64) {
    let mut output = BufWriter::new(output);
    let complaints = Seldom::default();
    let mut told = 0;
    while let Ok(first) = lines.recv() {
        let mut written = output.write_all(first.as_bytes());
        while let Ok(line) = lines.try_recv() {
            written = written.and_then(|()| output.write_all(line.as_bytes()));
        }
        if let Err(error) = written.and_then(|()| output.flush())
            && let Some(more) = complaints.note("written")
        {
            tracing::warn!("the access log cannot be written: {error}{more}");
        }
        let now = dropped.load(Ordering::Relaxed);
        if now > told
            && let Some(more) = complaints.note("dropped")
        {
            tracing::warn!("the access log is read too slowly: {} lines were dropped{more}", now - told);
            told = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn entry(request: &str, host: Option<&str>) -> Entry {
        Entry {
            client: [203, 0, 113, 9].into(),
            host: host.map(str::to_owned),
            request: request.to_owned(),
            status: 200,
            bytes: 5123,
            took: Duration::from_millis(12),
            service: Some("shop".into()),
            target: None,
            id: "4f".into(),
            whole: true,
        }
    }

    /// An output that can be held up, and read afterwards.
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_a_line_whatever_a_client_writes() {
        let text = entry("GET /a HTTP/1.1", Some("shop.example")).text("T");
        assert_eq!(text, "T 203.0.113.9 shop.example \"GET /a HTTP/1.1\" 200 5123 12 shop - 4f\n");
        let text = entry("GET /\"\\\n\x1b[31m\u{e9} HTTP/1.1", Some("a b\r\nc")).text("T");
        let expected =
            r#"T 203.0.113.9 a\x20b\x0d\x0ac "GET /\"\\\x0a\x1b[31m\xc3\xa9 HTTP/1.1" 200 5123 12 shop - 4f"#;
        assert_eq!(text, format!("{expected}\n"));
        assert!(entry("", None).text("T").starts_with("T 203.0.113.9 - \"\" 200"));
        let broken_off = Entry { whole: false, ..entry("GET / HTTP/1.1", None) };
        assert!(broken_off.text("T").ends_with(" shop - 4f broken-off\n"));
        let json = entry("GET /\"\n\u{1b} HTTP/1.1", Some("a\nb")).json("T");
        assert_eq!(json.lines().count(), 1);
        assert!(!json.contains('\u{1b}'));
        let line: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(line["request"], "GET /\"\n\u{1b} HTTP/1.1");
        assert_eq!((&line["ms"], &line["target"]), (&Value::from(12), &Value::Null));
    }

    #[test]
    fn the_time_is_that_of_rfc_3339() {
        let time = now();
        assert!(time.starts_with("20") && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
        assert_eq!(time.len(), 27, "{time}");
    }

    #[tokio::test]
    async fn everything_is_written_at_the_end() {
        let output = Shared::default();
        let logger = AccessLogger::start(output.clone()).unwrap();
        for number in 0..1000 {
            logger.log(AccessLog::Text, &entry(&format!("GET /{number} HTTP/1.1"), None));
        }
        logger.log(AccessLog::Off, &entry("GET /off HTTP/1.1", None));
        logger.finish(Duration::from_secs(60)).await;
        logger.log(AccessLog::Text, &entry("GET /late HTTP/1.1", None));
        let written = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        assert_eq!(written.lines().count(), 1000);
        assert!(written.lines().last().unwrap().contains("/999") && logger.dropped() == 0);
    }

    #[tokio::test]
    async fn nobody_waits_for_an_output_that_stands_still() {
        let output = Shared::default();
        let held = output.0.lock().unwrap();
        let logger = AccessLogger::start(output.clone()).unwrap();
        let sent = MAX_WAITING * 2;
        for _ in 0..sent {
            logger.log(AccessLog::Json, &entry("GET / HTTP/1.1", None));
        }
        let dropped = logger.dropped() as usize;
        assert!((MAX_WAITING / 2..=MAX_WAITING).contains(&dropped), "{dropped}");
        drop(held);
        logger.finish(Duration::from_secs(60)).await;
        let written = output.0.lock().unwrap().split(|byte| *byte == b'\n').count() - 1;
        assert_eq!(written + dropped, sent);
    }
}
