//! Running: opens the listeners, keeps the tunnels, tells the log, and ends upon a signal.

use std::time::{Duration, Instant};

use gkd_core::proto::packet::{DialError, ResetCode};
use gkd_core::seldom::Seldom;
use gkd_core::{Client, ClientEvent};
use gkd_proxy::listener::Service;
use gkd_proxy::program::log::STATE;
use gkd_proxy::program::signals::{Signal, Signals};
use gkd_proxy::program::{Failure, count};
use gkd_proxy::{Destination, Listener, Listening, listen};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::client::{self, Verdict};
use crate::config::Settings;
use crate::report::Reporter;

/// How long connections may go on after the first signal.
const DRAIN: Duration = Duration::from_secs(30);

/// How long programs may take for what is still to be written to them when their connections have ended.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// How long the second signal waits until the server was told.
const AT_ONCE: Duration = Duration::from_millis(300);

/// Runs until a signal ends it, or the server refuses.
///
/// # Errors
/// What cannot be had, a port in use among it; that the server refuses before a tunnel was up.
pub(crate) fn run(settings: &Settings) -> Result<(), Failure> {
    let runtime = client::runtime(&mut tokio::runtime::Builder::new_multi_thread())?;
    raise_descriptors();
    let result = runtime.block_on(serve(settings));
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

async fn serve(settings: &Settings) -> Result<(), Failure> {
    let mut signals = Signals::new(false).map_err(Failure::bug)?;
    let client = client::builder(settings)?.start().map_err(client::cannot_start)?;
    // Before anything is waited for, so that little is missed.
    let events = client.events();
    tokio::spawn(refuse(client.clone()));
    let mut listening = Vec::with_capacity(settings.local.len());
    for listener in &settings.local {
        let open =
            listen(listener, client.clone(), &settings.timeouts.listen()).await.map_err(Failure::config)?;
        tracing::info!("{}", in_words(listener, &open));
        listening.push(open);
    }
    // When the server refuses, nobody was served yet, and there is nothing to end.
    watch_over(settings, &client, events, &listening, &mut signals).await?;
    end(&client, &listening, &mut signals).await;
    Ok(())
}

/// This client offers the server nothing to dial: what it opens nevertheless is told so and reset.
async fn refuse(client: Client) {
    let seldom = Seldom::default();
    while let Some(connection) = client.accept().await {
        connection.confirm(Err(DialError::NotOffered));
        // One without a destination was answered when it was accepted.
        connection.reset(ResetCode::DIAL);
        if let Some(more) = seldom.note("not offered") {
            let wanted = Destination::decode(connection.destination());
            let wanted = wanted.map_or_else(|error| error.to_string(), |to| to.to_string());
            tracing::warn!(
                "the server asked for what this client did not offer, and was refused: {wanted}{more}"
            );
        }
    }
}

/// What a listener is, with the addresses that it got.
fn in_words(listener: &Listener, open: &Listening) -> String {
    let place = match open.local_addrs() {
        [] => String::new(),
        [only] => only.to_string(),
        [first, .., last] => format!("{first}-{}", last.port()),
    };
    match &listener.service {
        Service::Mixed { .. } => format!("SOCKS5 and HTTP proxy on {place}"),
        Service::Socks5 { .. } => format!("SOCKS5 proxy on {place}"),
        Service::Http { .. } => format!("HTTP proxy on {place}"),
        Service::Tcp { host, ports, .. } => format!("forward on {place} to {host}:{ports}"),
        other => format!("{} on {place}", other.scheme()),
    }
}

/// Tells the log what happens, until a signal asks to end.
async fn watch_over(
    settings: &Settings,
    client: &Client,
    mut events: Receiver<ClientEvent>,
    listening: &[Listening],
    signals: &mut Signals,
) -> Result<(), Failure> {
    let total = client.state().tunnels;
    let mut reporter = Reporter::new(settings.server(), total);
    let mut verdict = Verdict::new(total / settings.tunnels.max(1));
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
                Signal::Reload => {}
                Signal::State => tell_state(client, listening),
            }
        }
    }
}

async fn sleep_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Logs how things stand: a line, and one for each tunnel.
fn tell_state(client: &Client, listening: &[Listening]) {
    let (state, stats) = (client.state(), client.stats());
    tracing::info!(
        target: STATE,
        "state: {} of {} tunnels up, {}, {} served, {} bytes in flight, {} packets of {} \
         received out of order, {} resent",
        state.tunnels_up,
        state.tunnels,
        count(stats.connections, "connection"),
        count(listening.iter().map(Listening::serving).sum(), "program"),
        stats.in_flight,
        stats.out_of_order,
        stats.data_received,
        stats.resent,
    );
    for tunnel in &stats.tunnels {
        let round_trip = tunnel.round_trip.map_or_else(|| "?".to_owned(), |time| format!("{time:.1?}"));
        tracing::info!(
        target: STATE,
            "tunnel {}: round trip {round_trip}, {} bytes sent, {} received, {} in flight{}",
            tunnel.tunnel,
            tunnel.sent,
            tunnel.received,
            tunnel.in_flight,
            if tunnel.suspect { ", suspect" } else { "" },
        );
    }
    if let Some(failure) = &state.failure {
        tracing::info!(target: STATE, "the last dial failed: {}", client::in_words(failure));
    }
}

/// Takes no new programs, lets connections end, and tells the server. A second signal ends at once.
async fn end(client: &Client, listening: &[Listening], signals: &mut Signals) {
    for open in listening {
        open.stop();
    }
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
        let written = async {
            for open in listening {
                open.ended().await;
            }
        };
        tokio::time::timeout(LAST_WRITES, written).await.ok();
    };
    tokio::select! {
        () = drained => {}
        () = signals.end() => {
            tracing::info!("ending at once");
            for open in listening {
                open.abort();
            }
            tokio::time::timeout(AT_ONCE, client.close_within(Duration::ZERO)).await.ok();
        }
    }
    tracing::info!("ended");
}
