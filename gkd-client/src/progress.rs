//! How far a transfer is: a bar on a terminal, elsewhere a plain line now and then. On standard error.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a plain line is printed.
const EVERY: Duration = Duration::from_secs(2);

/// Redraws of the bar; the eye sees no more.
const REDRAW: Duration = Duration::from_millis(100);

/// One transfer's progress.
pub(super) struct Progress {
    label: String,
    total: u64,
    start: Instant,
    /// When something was printed last.
    printed: Instant,
    /// None where there is no terminal.
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(super) fn new(label: &str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            let template = "{prefix:18} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {msg} {eta} left";
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
    pub(super) fn at(&mut self, done: u64) {
        let now = Instant::now();
        let since = now.duration_since(self.printed);
        if since < if self.bar.is_some() { REDRAW } else { EVERY } {
            return;
        }
        self.printed = now;
        let rate = done as f64 / now.duration_since(self.start).as_secs_f64();
        let words = format!("{:.1} Mbit/s", rate * 8.0 / 1e6);
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
    pub(super) fn note(&self, words: &str) {
        match &self.bar {
            Some(bar) => bar.println(words),
            None => eprintln!("{words}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
