//! What the log says of tunnels: that they are up, lost, back, or do not come up, without a line for every
//! dial. [`Reporter`] takes a client's events and makes sentences; it logs nothing itself and has no clock.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use gkd_core::proto::packet::CloseCode;
use gkd_core::proto::session::CloseCause;
use gkd_core::{ClientEvent, SessionEnd};

use crate::client::in_words;

/// Tunnels that come up or are lost within so long are told in one line.
pub(crate) const SETTLE: Duration = Duration::from_millis(250);

/// The same failure of dials is told again after so long.
const AGAIN: Duration = Duration::from_secs(60);

/// The most failures that are remembered: paths and causes are few.
const MAX_FAILURES: usize = 64;

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Info(String),
    Warn(String),
}

impl Line {
    pub(crate) fn log(&self) {
        match self {
            Self::Info(line) => tracing::info!("{line}"),
            Self::Warn(line) => tracing::warn!("{line}"),
        }
    }
}

/// Turns events into lines.
#[derive(Debug)]
pub(crate) struct Reporter {
    /// The server's addresses, in words.
    server: String,
    /// Tunnels that there are to be.
    total: usize,
    /// How many were said to be up.
    said: usize,
    /// Lost since the last line, and why the last of them was.
    lost: usize,
    cause: String,
    /// The session was lost, and that was told: that its tunnels were is no news.
    session_lost: bool,
    /// When something changed first that no line tells yet.
    since: Option<Instant>,
    /// When a failure was told last, by its words.
    failures: HashMap<String, Instant>,
}

impl Reporter {
    pub(crate) fn new(server: String, total: usize) -> Self {
        Self {
            server,
            total,
            said: 0,
            lost: 0,
            cause: String::new(),
            session_lost: false,
            since: None,
            failures: HashMap::new(),
        }
    }

    /// When [`settle`](Self::settle) is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + SETTLE)
    }

    /// Something changed that was missed: the next line puts it right. There are to be `total` tunnels.
    pub(crate) fn missed(&mut self, now: Instant, total: usize) {
        self.total = total;
        self.since.get_or_insert(now);
    }

    /// Takes an event; `up` tunnels are up now.
    pub(crate) fn take(&mut self, now: Instant, event: &ClientEvent, up: usize) -> Option<Line> {
        match event {
            ClientEvent::TunnelUp { .. } => {
                self.since.get_or_insert(now);
                // Nothing more is to come: no need to wait.
                if up == self.total {
                    self.since = Some(now.checked_sub(SETTLE).unwrap_or(now));
                }
                None
            }
            ClientEvent::TunnelDown { cause, .. } => {
                self.lost += 1;
                self.cause.clone_from(cause);
                self.since.get_or_insert(now);
                None
            }
            ClientEvent::Wanted { tunnels } => {
                self.total = *tunnels;
                self.since.get_or_insert(now);
                None
            }
            // Taken away, not lost.
            ClientEvent::TunnelRetired { .. } => {
                self.since.get_or_insert(now);
                None
            }
            ClientEvent::DialFailed { error, .. } => self.failed(now, in_words(error), up),
            ClientEvent::SessionLost { cause, .. } => {
                self.session_lost = true;
                let why = lost_session(cause);
                Some(Line::Warn(format!("{why}: its connections were reset, a new session begins")))
            }
            _ => None,
        }
    }

    fn failed(&mut self, now: Instant, words: String, up: usize) -> Option<Line> {
        let told = self.failures.get(&words);
        if told.is_some_and(|told| now.duration_since(*told) < AGAIN) {
            return None;
        }
        if self.failures.len() >= MAX_FAILURES {
            self.failures.clear();
        }
        self.failures.insert(words.clone(), now);
        Some(Line::Warn(match up {
            0 => format!("no tunnel is up, dialling on: {words}"),
            up => format!("{up} of {} tunnels up, dialling on: {words}", self.total),
        }))
    }

    /// Tells what changed; `up` tunnels are up now.
    pub(crate) fn settle(&mut self, up: usize) -> Vec<Line> {
        self.since = None;
        let mut lines = Vec::new();
        if self.lost > 0 && !self.session_lost {
            let what = match self.lost {
                1 => "a tunnel was lost".to_owned(),
                lost => format!("{lost} tunnels were lost"),
            };
            let words = format!("{what}: {}", self.cause.escape_debug());
            lines.push(match up {
                0 => {
                    Line::Warn(format!("{words}; none is up, connections wait while they are dialled again"))
                }
                _ => Line::Info(words),
            });
        }
        // Also when those that were lost are back already.
        if up > 0 && (up != self.said || self.lost > 0) {
            // Those that are taken away may be up for a while.
            let of = if up >= self.total { String::new() } else { format!(" of {}", self.total) };
            let tunnels = if self.total.max(up) == 1 { "tunnel" } else { "tunnels" };
            lines.push(Line::Info(format!("{up}{of} {tunnels} up to {}", self.server)));
            // What failed before is over; if it comes again, that is news.
            self.failures.clear();
            self.session_lost = false;
        }
        (self.said, self.lost) = (up, 0);
        lines
    }
}

fn lost_session(cause: &SessionEnd) -> String {
    match cause {
        SessionEnd::Closed(CloseCause::Lost) => {
            "the server was restarted, or does not know the session any more".to_owned()
        }
        SessionEnd::Closed(CloseCause::Remote { code: CloseCode::GOING_DOWN, .. }) => {
            "the server went down and ended the session".to_owned()
        }
        SessionEnd::Closed(CloseCause::Remote { code: CloseCode::REVOKED, .. }) => {
            "the server removed this user, or gave it a new key, and ended the session".to_owned()
        }
        SessionEnd::Closed(CloseCause::Expired) => "no tunnel came up for too long".to_owned(),
        other => format!("the session ended ({other})"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gkd_core::carrier::CarrierKind;
    use gkd_core::proto::id::{SessionId, TunnelId};
    use gkd_core::{Path, TunnelDialError};

    use super::*;

    fn path() -> Arc<Path> {
        Arc::new(Path {
            address: "a:1".parse().unwrap(),
            bind: None,
            carrier: CarrierKind::Tls,
            via: None,
            web: None,
        })
    }

    fn up() -> ClientEvent {
        ClientEvent::TunnelUp { path: path(), tunnel: TunnelId(0) }
    }

    fn down(cause: &str) -> ClientEvent {
        ClientEvent::TunnelDown { path: path(), tunnel: TunnelId(0), cause: cause.to_owned() }
    }

    fn failed() -> ClientEvent {
        let error = Arc::new(TunnelDialError::TimedOut { server: "a:1".to_owned() });
        ClientEvent::DialFailed { path: path(), error, again: Duration::from_secs(1) }
    }

    fn info(line: &str) -> Line {
        Line::Info(line.to_owned())
    }

    #[test]
    fn all_tunnels_are_told_in_one_line_at_once() {
        let (mut reporter, now) = (Reporter::new("a:1".to_owned(), 2), Instant::now() + SETTLE);
        assert_eq!(reporter.take(now, &up(), 1), None);
        assert_eq!(reporter.due(), Some(now + SETTLE));
        assert_eq!(reporter.take(now, &up(), 2), None);
        assert_eq!(reporter.due(), Some(now));
        assert_eq!(reporter.settle(2), [info("2 tunnels up to a:1")]);
        assert_eq!(reporter.due(), None);
    }

    #[test]
    fn a_lost_tunnel_is_told_and_that_it_is_back() {
        let (mut reporter, now) = (Reporter::new("a:1".to_owned(), 2), Instant::now());
        reporter.settle(2);
        reporter.take(now, &down("reset\u{1b}"), 1);
        let lost = info("a tunnel was lost: reset\\u{1b}");
        assert_eq!(reporter.settle(1), [lost.clone(), info("1 of 2 tunnels up to a:1")]);
        reporter.take(now, &up(), 2);
        assert_eq!(reporter.settle(2), [info("2 tunnels up to a:1")]);
        // Back before it was told.
        reporter.take(now, &down("reset\u{1b}"), 1);
        reporter.take(now, &up(), 2);
        assert_eq!(reporter.settle(2), [lost, info("2 tunnels up to a:1")]);
    }

    #[test]
    fn another_number_of_tunnels_is_told_when_they_are_up_or_gone() {
        let (mut reporter, now) = (Reporter::new("a:1".to_owned(), 2), Instant::now());
        reporter.settle(2);
        assert_eq!(reporter.take(now, &ClientEvent::Wanted { tunnels: 3 }, 2), None);
        assert_eq!(reporter.settle(2), []);
        reporter.take(now, &up(), 3);
        assert_eq!(reporter.settle(3), [info("3 tunnels up to a:1")]);
        reporter.take(now, &ClientEvent::Wanted { tunnels: 1 }, 3);
        let retired = ClientEvent::TunnelRetired { path: path(), tunnel: TunnelId(1) };
        assert_eq!(reporter.take(now, &retired, 2), None);
        assert_eq!(reporter.settle(2), [info("2 tunnels up to a:1")]);
        reporter.take(now, &retired, 1);
        assert_eq!(reporter.settle(1), [info("1 tunnel up to a:1")]);
    }

    #[test]
    fn that_none_is_left_is_a_warning() {
        let (mut reporter, now) = (Reporter::new("a:1".to_owned(), 2), Instant::now());
        reporter.settle(2);
        reporter.take(now, &down("timed out"), 1);
        reporter.take(now, &down("timed out"), 0);
        let lines = reporter.settle(0);
        assert!(
            matches!(&lines[..], [Line::Warn(line)] if line.starts_with("2 tunnels were lost: timed out; none"))
        );
    }

    #[test]
    fn the_same_failure_is_told_once_a_minute() {
        let (mut reporter, now) = (Reporter::new("a:1".to_owned(), 2), Instant::now());
        let line = reporter.take(now, &failed(), 0).unwrap();
        let words = "no tunnel is up, dialling on: the server at a:1 did not answer in time";
        assert_eq!(line, Line::Warn(words.to_owned()));
        assert_eq!(reporter.take(now + AGAIN / 2, &failed(), 0), None);
        assert!(reporter.take(now + AGAIN, &failed(), 0).is_some());
    }

    #[test]
    fn a_restarted_server_is_told() {
        let (mut reporter, now) = (Reporter::new("a:1".to_owned(), 2), Instant::now());
        let cause = SessionEnd::Closed(CloseCause::Lost);
        let event = ClientEvent::SessionLost { session: SessionId([0; 16]), cause };
        let Some(Line::Warn(line)) = reporter.take(now, &event, 0) else { panic!("no warning") };
        assert!(line.contains("restarted") && line.contains("reset"), "{line}");
        // Its tunnels are not told one by one.
        reporter.take(now, &down("the session ended"), 0);
        assert_eq!(reporter.settle(0), []);
        reporter.take(now, &up(), 2);
        assert_eq!(reporter.settle(2), [info("2 tunnels up to a:1")]);
    }
}
