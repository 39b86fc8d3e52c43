//! Log lines that strangers and peers cause: each kind at most once a minute, whatever they do ([`Seldom`]).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a line keeps further ones of its kind away.
const EVERY: Duration = Duration::from_secs(60);

/// The most kinds that are remembered. When as many were logged within a minute, others wait.
const MAX_KINDS: usize = 1024;

/// Says which lines are to be logged: of each kind one a minute, of 1,024 kinds at the most.
#[derive(Debug, Default)]
pub struct Seldom {
    lines: Mutex<HashMap<Box<str>, Line>>,
}

#[derive(Debug)]
struct Line {
    logged: Instant,
    kept_back: u64,
}

/// What was kept back since the last line of the kind; to be put at the end of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct More(u64);

impl Seldom {
    /// Notes a line of a kind. What it returns is for the line's end; none when it is to be kept back.
    pub fn note(&self, kind: &str) -> Option<More> {
        let now = Instant::now();
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get_mut(kind) {
            if now.duration_since(line.logged) < EVERY {
                line.kept_back += 1;
                return None;
            }
            let more = More(line.kept_back);
            *line = Line { logged: now, kept_back: 0 };
            return Some(more);
        }
        if lines.len() >= MAX_KINDS {
            lines.retain(|_, line| now.duration_since(line.logged) < EVERY);
            if lines.len() >= MAX_KINDS {
                return None;
            }
        }
        lines.insert(kind.into(), Line { logged: now, kept_back: 0 });
        Some(More(0))
    }
}

impl fmt::Display for More {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            1 => f.write_str(" (and once more since the last such line)"),
            count => write!(f, " (and {count} times more since the last such line)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_kind_is_logged_once_a_minute() {
        let seldom = Seldom::default();
        assert_eq!(seldom.note("a"), Some(More(0)));
        assert_eq!(seldom.note("a"), None);
        assert_eq!(seldom.note("a"), None);
        assert_eq!(seldom.note("b"), Some(More(0)));
        advance(EVERY).await;
        assert_eq!(seldom.note("a"), Some(More(2)));
        assert_eq!(seldom.note("a"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_kinds_is_bounded() {
        let seldom = Seldom::default();
        let logged = (0..10 * MAX_KINDS).filter(|kind| seldom.note(&kind.to_string()).is_some()).count();
        assert_eq!(logged, MAX_KINDS);
        assert_eq!(seldom.lines.lock().unwrap().len(), MAX_KINDS);
        advance(EVERY).await;
        assert!(seldom.note("another").is_some());
    }
}
