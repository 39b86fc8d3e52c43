//! What signals ask for ([`Signals`]): TERM and INT to end, USR1 for the state, and HUP, where it was asked for, to
//! read files anew. Elsewhere than on Unix, Ctrl-C ends.

use std::io;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// TERM, INT: to end, in good order at the first time, at once at the second.
    End,
    /// HUP: to read anew what can be.
    Reload,
    /// USR1: to log the state.
    State,
}

/// A terminal that was hung up is none any more.
#[cfg(unix)]
fn is_on_terminal() -> bool {
    io::IsTerminal::is_terminal(&io::stderr())
}

/// The signals that arrive from now on. None of them does any more what it does by default.
pub struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    /// None where a HUP ends the program, as it does by default when its terminal goes.
    #[cfg(unix)]
    hang_up: Option<tokio::signal::unix::Signal>,
    #[cfg(unix)]
    user: tokio::signal::unix::Signal,
    /// The log went to a terminal, and the program ends when that goes.
    #[cfg(unix)]
    of_terminal: bool,
}

impl Signals {
    /// Those of a program that has, or has not, something to read anew. To be called within a tokio runtime.
    ///
    /// # Errors
    /// The system gives none.
    #[cfg(unix)]
    pub fn new(reloads: bool) -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: if reloads { Some(signal(SignalKind::hangup())?) } else { None },
            user: signal(SignalKind::user_defined1())?,
            of_terminal: false,
        })
    }

    /// The same, of a program that ends with the terminal that its log is on, if it is on one. A HUP says both: that the
    /// terminal is gone, and that files are to be read anew.
    #[cfg(unix)]
    pub fn ending_with_terminal(self) -> Self {
        Self { of_terminal: is_on_terminal(), ..self }
    }

    /// The same: here only Ctrl-C is known.
    #[cfg(not(unix))]
    pub fn ending_with_terminal(self) -> Self {
        self
    }

    /// Those of a program that has, or has not, something to read anew.
    ///
    /// # Errors
    /// None.
    #[cfg(not(unix))]
    pub fn new(_: bool) -> io::Result<Self> {
        Ok(Self {})
    }

    /// The next signal. Cancel safe.
    #[cfg(unix)]
    pub async fn next(&mut self) -> Signal {
        let hang_up = async {
            match &mut self.hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(()) = self.terminate.recv() => Signal::End,
            Some(()) = self.interrupt.recv() => Signal::End,
            Some(()) = hang_up => match self.of_terminal && !is_on_terminal() {
                true => Signal::End,
                false => Signal::Reload,
            },
            Some(()) = self.user.recv() => Signal::State,
            else => std::future::pending().await,
        }
    }

    /// The next signal. Cancel safe.
    #[cfg(not(unix))]
    pub async fn next(&mut self) -> Signal {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Signal::End,
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits for one that asks to end.
    pub async fn end(&mut self) {
        while self.next().await != Signal::End {}
    }
}
