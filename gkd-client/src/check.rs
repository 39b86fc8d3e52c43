//! `check`: is the configuration right; and with a link, can the server be reached, has it the right key, do
//! the tunnels come up? A line each, on standard output.

use std::collections::BTreeMap;
use std::time::Duration;

use gkd_core::carrier::CarrierError;
use gkd_core::{ClientEvent, TunnelDialError};
use gkd_proxy::program::{Failure, say};

use crate::client;
use crate::config::Settings;
use crate::listeners::Wanted;

/// How long the first dial of every tunnel may take; one of them is bounded by 10 s.
const PATIENCE: Duration = Duration::from_secs(15);

/// Checks. The server is dialled only when a link was given with the command.
///
/// # Errors
/// Refused: another key, or an unknown one. Unavailable: not all tunnels came up.
pub(crate) fn check(settings: &Settings, dial: bool) -> Result<(), Failure> {
    if !dial {
        return check_configuration(settings);
    }
    // One thread, so that nothing happens before somebody listens to it.
    let runtime = client::runtime(&mut tokio::runtime::Builder::new_current_thread())?;
    let result = runtime.block_on(check_server(settings));
    runtime.shutdown_timeout(Duration::ZERO);
    result
}

fn check_configuration(settings: &Settings) -> Result<(), Failure> {
    let Some(file) = &settings.file else {
        return Err(Failure::usage("nothing to check: give a LINK, or --config FILE"));
    };
    settings.congestion.check().map_err(Failure::config)?;
    settings.check_folders()?;
    say(format_args!("{} is right", file.display()));
    match settings.links.len() {
        0 => say("  no link: give one as an argument, in GKD_LINK or with --link-file"),
        _ => say(format_args!("  server   {}", settings.server())),
    }
    let at_first = if settings.auto { " at first, then as many as bring something" } else { "" };
    say(format_args!("  tunnels  {} per path{at_first}", settings.tunnels));
    for listener in &settings.listeners {
        match &listener.it {
            Wanted::Service(_) => say(format_args!("  {listener}")),
            _ => say(format_args!("  listener {listener}")),
        }
    }
    if let Some(via) = &settings.reaching.via {
        say(format_args!("  via      {via}"));
    }
    for bind in &settings.bind {
        say(format_args!("  from     {bind}"));
    }
    Ok(())
}

/// What is known of one path.
#[derive(Debug, Default)]
struct Found {
    up: usize,
    failed: usize,
    /// Of the failures the one that tells most.
    failure: Option<std::sync::Arc<TunnelDialError>>,
}

async fn check_server(settings: &Settings) -> Result<(), Failure> {
    let client = client::builder(settings)?.start().map_err(client::cannot_start)?;
    let mut events = client.events();
    let total = client.state().tunnels;
    let mut paths = BTreeMap::<String, Found>::new();
    let all = async {
        let mut decided = 0;
        while decided < total {
            match events.recv().await {
                Ok(ClientEvent::TunnelUp { path, .. }) => {
                    paths.entry(path.to_string()).or_default().up += 1;
                    decided += 1;
                }
                Ok(ClientEvent::DialFailed { path, error, .. }) => {
                    let found = paths.entry(path.to_string()).or_default();
                    // A tunnel that is dialled again is not another one.
                    if found.up + found.failed < settings.tunnels {
                        found.failed += 1;
                        decided += 1;
                    }
                    found.failure = Some(error);
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    };
    // Who has not answered by then will be told as missing.
    tokio::time::timeout(PATIENCE, all).await.ok();
    client::close_at_once(&client).await;
    let mut verdict = Ok(());
    for (path, found) in &paths {
        let told = tell(path, found, settings.tunnels);
        // What the server refuses says more than what is down.
        if verdict.is_ok() {
            verdict = told;
        }
    }
    if paths.is_empty() {
        let message = format_args!("no answer from {} within {} s", settings.server(), PATIENCE.as_secs());
        return Err(Failure::unavailable(message));
    }
    verdict
}

/// A line each: reachable, the right key, tunnels.
fn tell(path: &str, found: &Found, tunnels: usize) -> Result<(), Failure> {
    let failure = found.failure.as_deref();
    let words = failure.map(client::in_words).unwrap_or_default();
    if found.up == 0 {
        match failure {
            Some(TunnelDialError::Carrier(CarrierError::WrongKey { .. })) => {
                say(format_args!("{path}: reachable"));
                say(format_args!("{path}: another key than the link's"));
                return Err(Failure::refused(words));
            }
            Some(TunnelDialError::Carrier(CarrierError::PlainRefused { .. })) => {
                say(format_args!("{path}: reachable"));
                say(format_args!("{path}: takes encrypted tunnels only"));
                return Err(Failure::refused(words));
            }
            Some(error @ TunnelDialError::Rejected { .. }) => {
                say(format_args!("{path}: reachable"));
                say(format_args!("{path}: the right key"));
                say(format_args!("{path}: 0 of {tunnels} tunnels come up"));
                return Err(if error.is_final() {
                    Failure::refused(words)
                } else {
                    Failure::unavailable(words)
                });
            }
            Some(TunnelDialError::Carrier(_) | TunnelDialError::Handshake { .. }) => {
                say(format_args!("{path}: reachable"));
                say(format_args!("{path}: no gkd server, or none that takes this link"));
                return Err(Failure::unavailable(words));
            }
            Some(error @ TunnelDialError::Proxy(_)) if error.is_final() => {
                say(format_args!("{path}: the proxy does not let this client through"));
                return Err(Failure::refused(words));
            }
            _ => {
                say(format_args!("{path}: not reachable"));
                return Err(Failure::unavailable(words));
            }
        }
    }
    say(format_args!("{path}: reachable"));
    say(format_args!("{path}: the right key"));
    say(format_args!("{path}: {} of {tunnels} tunnels come up", found.up));
    if found.up < tunnels {
        let words = if words.is_empty() { "the others gave no answer in time".to_owned() } else { words };
        return Err(Failure::unavailable(format_args!("not all tunnels to {path} come up: {words}")));
    }
    Ok(())
}
