//! How long the programs wait for what ([`Timeouts`]): one table of names, bounds and defaults for both.

use std::time::Duration;

use gkd_core::proto::SessionConfig;

use super::{Span, SpanError};
use crate::dial::DIAL_TIMEOUT;
use crate::listen::ListenConfig;
use crate::relay::RelayConfig;
use crate::udp;

/// How long is waited for what, as a file's table `timeouts` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// `dial`. Where destinations are dialled: for one to be reached, its name's resolution included. Where programs
    /// connect: for a tunnel while none is up, and with `strict` for the far end's dial. Default 10 s.
    pub dial: Duration,
    /// `handshake`: for a tunnel to come up; and for a program to say what it wants of a proxy. Default 10 s.
    pub handshake: Duration,
    /// `half_closed`: for a connection of which one direction has ended and the other is idle. Default 1 h.
    pub half_closed: Duration,
    /// `udp_idle`: for a flow of datagrams on which nothing moves. The end that waits less decides. Default 2 min.
    pub udp_idle: Duration,
    /// `resume`: for a session that has no tunnel, before its connections are reset. The end that waits less decides.
    /// Default 60 s.
    pub resume: Duration,
    /// `silent`: for a tunnel that owes an answer, before it is dropped. Default 20 s.
    pub silent: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let session = SessionConfig::default();
        Self {
            dial: DIAL_TIMEOUT,
            handshake: ListenConfig::default().handshake_timeout,
            half_closed: session.half_closed_for,
            udp_idle: udp::IDLE,
            resume: session.resume_for,
            silent: session.silent_for,
        }
    }
}

/// Why a name and its words set no time-out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeoutError {
    /// The name is none of them.
    #[error("unknown time-out \"{}\": there are dial, handshake, half_closed, udp_idle, resume and silent", .0.escape_debug())]
    Name(String),
    /// The words are no time, or one that makes no sense there.
    #[error(transparent)]
    Time(#[from] SpanError),
}

/// The shortest of them all: a line round the world and a slow machine at its end take as long.
const LEAST: Span = Span::from_secs(1);

/// The longest that somebody who waits for an answer would wait.
const MOST_OF_WAITING: Span = Span::from_secs(10 * 60);

/// The longest that a connection is kept on which nothing happens: it holds memory all the while.
const MOST_OF_KEEPING: Span = Span::from_secs(7 * 24 * 3600);

impl Timeouts {
    /// Sets the one of this name.
    ///
    /// # Errors
    /// There is none of this name, or the words are no time within its bounds.
    pub fn set(&mut self, name: &str, words: &str) -> Result<(), TimeoutError> {
        let (timeout, most) = match name {
            "dial" => (&mut self.dial, MOST_OF_WAITING),
            "handshake" => (&mut self.handshake, MOST_OF_WAITING),
            "half_closed" => (&mut self.half_closed, MOST_OF_KEEPING),
            "udp_idle" => (&mut self.udp_idle, MOST_OF_KEEPING),
            "resume" => (&mut self.resume, MOST_OF_KEEPING),
            "silent" => (&mut self.silent, MOST_OF_WAITING),
            _ => return Err(TimeoutError::Name(name.to_owned())),
        };
        *timeout = Span::read(words, LEAST, most)?;
        Ok(())
    }

    /// For a session that has the rest of its configuration already.
    pub fn session(&self, config: SessionConfig) -> SessionConfig {
        SessionConfig {
            resume_for: self.resume,
            silent_for: self.silent,
            half_closed_for: self.half_closed,
            ..config
        }
    }

    /// For relays.
    pub fn relay(&self) -> RelayConfig {
        RelayConfig { half_closed_for: self.half_closed, udp_idle_for: self.udp_idle }
    }

    /// For listeners.
    pub fn listen(&self) -> ListenConfig {
        ListenConfig {
            dial_timeout: self.dial,
            handshake_timeout: self.handshake,
            relay: self.relay(),
            ..ListenConfig::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_set_by_its_name_and_reaches_what_it_is_for() {
        let mut timeouts = Timeouts::default();
        let all = [
            ("dial", "2s"),
            ("handshake", "3s"),
            ("half_closed", "4h"),
            ("udp_idle", "7s"),
            ("resume", "5m"),
            ("silent", "6s"),
        ];
        for (name, words) in all {
            timeouts.set(name, words).unwrap();
        }
        let secs = Duration::from_secs;
        let session = timeouts.session(SessionConfig::default());
        assert_eq!((session.resume_for, session.silent_for), (secs(300), secs(6)));
        assert_eq!(
            (session.half_closed_for, timeouts.relay().half_closed_for),
            (secs(4 * 3600), secs(4 * 3600))
        );
        assert_eq!(timeouts.relay().udp_idle_for, secs(7));
        let listen = timeouts.listen();
        assert_eq!((listen.dial_timeout, listen.handshake_timeout), (secs(2), secs(3)));
        assert_eq!(listen.relay, timeouts.relay());
    }

    #[test]
    fn nothing_else_is_changed_by_the_defaults() {
        let timeouts = Timeouts::default();
        assert_eq!(timeouts.session(SessionConfig::default()), SessionConfig::default());
        assert_eq!(timeouts.listen(), ListenConfig::default());
    }

    #[test]
    fn other_names_and_times_are_refused_and_change_nothing() {
        let mut timeouts = Timeouts::default();
        for (name, words, part) in [
            ("dail", "1s", "\"dail\""),
            ("dial", "10", "such as 10s"),
            ("dial", "0s", "write 1s to 10m"),
            ("resume", "8000h", "write 1s to 168h"),
        ] {
            let error = timeouts.set(name, words).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(timeouts, Timeouts::default());
    }
}
