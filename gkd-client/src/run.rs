//! Running: opens the listeners, keeps the tunnels, tells the log and whoever asks, and ends upon a signal.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gkd_core::fair_limit::FairLimit;
use gkd_core::{Client, ClientEvent};
use gkd_proxy::program::control::{Asked, Control};
use gkd_proxy::program::signals::{Signal, Signals};
use gkd_proxy::program::{Failure, Timeouts, count};
use gkd_proxy::reverse::Offers;
use gkd_proxy::{Dialer, Exit, Rules};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::client::{self, Verdict};
use crate::config::{Environment, Settings};
use crate::listeners::Listeners;
use crate::place;
use crate::report::Reporter;
use crate::status::{self, ClientStatus};

/// How long connections may go on after the first signal.
const DRAIN: Duration = Duration::from_secs(30);

/// How long programs may take for what is still to be written to them when their connections have ended.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// How long the second signal waits until the server was told.
const AT_ONCE: Duration = Duration::from_millis(300);

/// Reads what the client was started with anew, its file being this one.
pub(crate) type Again<'a> = dyn Fn(&Path) -> Result<Settings, Failure> + 'a;

/// Runs until a signal ends it, or the server refuses.
///
/// # Errors
/// What cannot be had, a port in use among it; that the server refuses before a tunnel was up.
pub(crate) fn run(settings: &Settings, again: &Again<'_>) -> Result<(), Failure> {
    let runtime = client::runtime(&mut tokio::runtime::Builder::new_multi_thread())?;
    raise_descriptors();
    let result = runtime.block_on(serve(settings, again));
    // A name that is being resolved must not hold the end up.
    runtime.shutdown_timeout(AT_ONCE);
    result
}

/// Each program takes a descriptor; the usual limit of 1,024 is soon met.
fn raise_descriptors() {
    #[cfg(unix)]
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::debug!(%error, "the limit of descriptors stays as it is");
    }
}

async fn serve(settings: &Settings, again: &Again<'_>) -> Result<(), Failure> {
    let mut signals = Signals::new(true).map_err(Failure::bug)?.ending_with_terminal();
    let client = client::builder(settings)?.start().map_err(client::cannot_start)?;
    // Before anything is waited for, so that little is missed.
    let events = client.events();
    let offers = Offers::new();
    tokio::spawn(dial(client.clone(), offers.clone(), settings.timeouts));
    let listeners = Listeners::open(&settings.listeners, &client, offers, settings.timeouts.listen()).await?;
    let mut control = place::open(&Environment::of_process()).await;
    let mut running = Running { settings, client, listeners, began: Instant::now() };
    // When the server refuses, nobody was served yet, and there is nothing to end.
    running.watch_over(events, &mut signals, &mut control, again).await?;
    running.end(&mut signals, &mut control).await;
    Ok(())
}

/// Dials for the server what stands behind listeners there, and nothing else, whatever the server asks for. Where that is,
/// the user has said.
async fn dial(client: Client, offers: Offers, timeouts: Timeouts) {
    let anywhere = [IpNet::from(Ipv4Net::default()), Ipv6Net::default().into()];
    let dialer = Dialer::new(Rules::allow(anywhere)).with_timeout(timeouts.dial);
    let exit = Exit::new(dialer, timeouts.relay()).offering(offers).within(FairLimit::new(most_dialled()));
    let exit = Arc::new(exit);
    while let Some(connection) = client.accept().await {
        // What failed is logged within.
        drop(exit.clone().spawn(connection));
    }
}

/// How many destinations of listeners at the server may be open at a time: strangers come to those, and half of the
/// descriptors is left to tunnels and to programs here.
fn most_dialled() -> usize {
    /// Where the system does not tell how many there are.
    const USUAL: u64 = 1024;
    #[cfg(unix)]
    let all = rlimit::getrlimit(rlimit::Resource::NOFILE).map_or(USUAL, |(soft, _)| soft);
    #[cfg(not(unix))]
    let all = USUAL;
    usize::try_from(all / 2).unwrap_or(usize::MAX).clamp(64, 64 * 1024)
}

/// A client that runs.
pub(crate) struct Running<'a> {
    /// As they were at the start: what takes a restart is compared with them.
    pub(crate) settings: &'a Settings,
    pub(crate) client: Client,
    pub(crate) listeners: Listeners,
    pub(crate) began: Instant,
}

impl Running<'_> {
    /// Tells the log what happens, until a signal asks to end.
    async fn watch_over(
        &mut self,
        mut events: Receiver<ClientEvent>,
        signals: &mut Signals,
        control: &mut Control,
        again: &Again<'_>,
    ) -> Result<(), Failure> {
        let client = self.client.clone();
        let total = client.state().tunnels;
        let mut reporter = Reporter::new(self.settings.server(), total);
        let mut verdict = Verdict::new(total / self.settings.tunnels.max(1));
        // What happened before there were events, or is missed among them, is found in the state.
        reporter.missed(Instant::now(), total);
        loop {
            let due = reporter.due().map(tokio::time::Instant::from_std);
            tokio::select! {
                event = events.recv() => {
                    let (now, state) = (Instant::now(), client.state());
                    match event {
                        Ok(event) => {
                            if let ClientEvent::DialFailed { path, error, .. } = &event {
                                verdict.dial_failed(path, error, state.was_up, state.tunnels_up)?;
                            }
                            if let Some(line) = reporter.take(now, &event, state.tunnels_up) {
                                line.log();
                            }
                        }
                        Err(RecvError::Lagged(_)) => reporter.missed(now, state.tunnels),
                        // Somebody closed the client; there is nothing left to watch.
                        Err(RecvError::Closed) => return Ok(()),
                    }
                }
                () = sleep_until(due) => {
                    for line in reporter.settle(client.state().tunnels_up) {
                        line.log();
                    }
                }
                signal = signals.next() => match signal {
                    Signal::End => return Ok(()),
                    Signal::Reload => self.reload(again).await,
                    Signal::State => ClientStatus::of(self).log(),
                },
                asked = control.next() => self.answer(asked),
            }
        }
    }

    /// Answers what was asked for at the control socket.
    fn answer(&self, asked: Asked) {
        match asked.command() {
            status::STATUS => asked.answer(Ok::<_, Failure>(ClientStatus::of(self))),
            _ => asked.answer_unknown(),
        }
    }

    /// Reads the configuration file anew, and opens and closes listeners as it says. One that cannot be read, or is
    /// wrong, changes nothing.
    async fn reload(&mut self, again: &Again<'_>) {
        let Some(file) = &self.settings.file else {
            tracing::warn!("there is nothing to read anew: no configuration file was found at the start");
            return;
        };
        let wanted = match again(file) {
            Ok(wanted) => wanted,
            Err(failure) => {
                tracing::error!("nothing is changed, the configuration in force stays: {failure}");
                return;
            }
        };
        for setting in self.settings.differ(&wanted) {
            tracing::warn!("{setting} differs from what the client was started with: that takes a restart");
        }
        let changed = self.listeners.change_to(&wanted.listeners).await;
        let file = file.display();
        match changed.line() {
            Some(line) if changed.failed.is_empty() => tracing::info!("{file} is read anew: {line}"),
            Some(line) => tracing::warn!("{file} is read anew: {line}; the others go on"),
            None if wanted.listeners_of_file => {
                tracing::info!("{file} is read anew: the listeners stay as they are")
            }
            None => tracing::info!(
                "{file} is read anew: the listeners stay as they are, those of the command line or GKD_LOCAL go over it"
            ),
        }
    }

    /// Takes no new programs, lets connections end, and tells the server. A second signal ends at once.
    async fn end(&self, signals: &mut Signals, control: &mut Control) {
        let (client, listeners) = (&self.client, &self.listeners);
        listeners.stop();
        let live = client.stats().connections;
        if live > 0 {
            tracing::info!(
                "ending: {} may end within {} s; a second signal ends at once",
                count(live, "connection"),
                DRAIN.as_secs()
            );
        }
        let drained = async {
            if !client.close_within(DRAIN).await {
                tracing::warn!("connections that had not ended were reset");
            }
            // Their last bytes may still be on the way to the programs.
            tokio::time::timeout(LAST_WRITES, listeners.ended()).await.ok();
        };
        let second = async {
            loop {
                tokio::select! {
                    () = signals.end() => return,
                    asked = control.next() => self.answer(asked),
                }
            }
        };
        tokio::select! {
            () = drained => {}
            () = second => {
                tracing::info!("ending at once");
                listeners.abort();
                tokio::time::timeout(AT_ONCE, client.close_within(Duration::ZERO)).await.ok();
            }
        }
        tracing::info!("ended");
    }
}

async fn sleep_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
