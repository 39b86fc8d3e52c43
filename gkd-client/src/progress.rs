//! How far long work is: a bar on a terminal, elsewhere a plain line now and then. On standard error.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

pub(crate) use gkd_proxy::program::{Amount as Size, Speed};
use indicatif::{ProgressBar, ProgressStyle};

/// How often a plain line is printed.
const EVERY: Duration = Duration::from_secs(2);

/// Redraws of the bar; the eye sees no more.
const REDRAW: Duration = Duration::from_millis(100);

/// The progress of one piece of work.
pub(crate) struct Progress {
    label: String,
    /// Bytes, or milliseconds.
    total: u64,
    start: Instant,
    /// When something was printed last.
    printed: Instant,
    /// None where there is no terminal.
    bar: Option<ProgressBar>,
}

impl Progress {
    /// That of a transfer of so many bytes.
    pub(crate) fn of_bytes(label: &str, total: Size) -> Self {
        Self::new(
            label,
            total.0,
            "{prefix:18} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {msg} {eta} left",
        )
    }

    /// That of what takes so long.
    pub(crate) fn of_time(label: &str, total: Duration) -> Self {
        Self::new(label, millis(total), "{prefix} [{bar:30}] {msg} {eta} left")
    }

    fn new(label: &str, total: u64, template: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(label.to_owned());
            bar
        });
        let now = Instant::now();
        Self { label: label.to_owned(), total, start: now, printed: now, bar }
    }

    /// So many bytes are done.
    pub(crate) fn at(&mut self, done: u64) {
        self.show(done, |rate| Speed(rate).to_string());
    }

    /// So much time is over; `words` tell what is done.
    pub(crate) fn passed(&mut self, time: Duration, words: impl FnOnce() -> String) {
        self.show(millis(time).min(self.total), |_| words());
    }

    fn show(&mut self, done: u64, words: impl FnOnce(f64) -> String) {
        let now = Instant::now();
        let since = now.duration_since(self.printed);
        if since < if self.bar.is_some() { REDRAW } else { EVERY } {
            return;
        }
        self.printed = now;
        let rate = done as f64 / now.duration_since(self.start).as_secs_f64();
        let words = words(rate);
        if let Some(bar) = &self.bar {
            bar.set_message(words);
            bar.set_position(done);
        } else {
            let left = self.total.saturating_sub(done) as f64 / rate.max(1.0);
            let (label, percent) = (&self.label, done * 100 / self.total.max(1));
            eprintln!("{label}: {percent}%, {words}, {left:.0} s left");
        }
    }

    /// Something happened that is worth a line of its own.
    pub(crate) fn note(&self, words: &str) {
        match &self.bar {
            Some(bar) => bar.println(words),
            None => eprintln!("{words}"),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
