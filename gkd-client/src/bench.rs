//! `bench`: what the way to a server gives to one tunnel on each path, and what to N. Two clients over the same link
//! take turns with each measurement, so that what else happens on the line falls on both; the server sends, swallows
//! and echoes ([`gkd_proxy::measure`]). Figures go to standard output, progress to standard error.
//!
//! A measurement is bounded in time, and so is all that is waited for between two.

mod figures;
mod load;
mod window;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gkd_core::{Client, Error};
use gkd_proxy::program::{Failure, count, print, say};

use crate::cli::Bench;
use crate::client;
use crate::config::Settings;
use crate::progress::{Progress, Speed};
use figures::{Figures, Side, Tunnel};
use load::Load;

/// How often each measurement is taken. What one turn met by chance, the other may show.
const ROUNDS: u32 = 2;

/// How long the first tunnel may take to come up, and how long then the others.
const FIRST_UP: Duration = Duration::from_secs(15);
const ALL_UP: Duration = Duration::from_secs(5);

/// Between two measurements, so that what the one left on the line is gone when the other begins.
const REST: Duration = Duration::from_millis(200);

/// How often the progress is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Measures, and prints the figures.
///
/// # Errors
/// Refused: another key, an unknown one, or a server that does not take part. Unavailable: a network that is down.
pub(crate) fn bench(settings: &Settings, options: &Bench) -> Result<(), Failure> {
    if settings.tunnels < 2 {
        return Err(Failure::usage("--tunnels: bench compares 1 tunnel per path with N: write 2 to 64"));
    }
    if settings.auto {
        tracing::warn!("bench compares fixed numbers: {} tunnels per path stand for auto", settings.tunnels);
    }
    let runtime = client::runtime(&mut tokio::runtime::Builder::new_multi_thread())?;
    let result = runtime.block_on(measure(settings, Duration::from_secs(options.seconds)));
    runtime.shutdown_timeout(Duration::from_millis(100));
    let figures = result?;
    if options.json {
        let mut text = serde_json::to_vec_pretty(&figures).map_err(Failure::bug)?;
        text.push(b'\n');
        return print(&text);
    }
    figures.lines().into_iter().for_each(say);
    Ok(())
}

async fn measure(settings: &Settings, time: Duration) -> Result<Figures, Failure> {
    let clients = [connect(settings, 1).await?, connect(settings, settings.tunnels).await?];
    let mut sides = [Side::new(1), Side::new(settings.tunnels)];
    let loads = [Load::None, Load::Download, Load::Upload];
    let all = time * ROUNDS * (loads.len() * sides.len()) as u32;
    let mut progress = Progress::of_time("bench", all);
    let mut done = Duration::ZERO;
    for _ in 0..ROUNDS {
        for load in loads {
            for (client, side) in clients.iter().zip(&mut sides) {
                let words = format!("{} over {}", load.in_words(), count(side.tunnels, "tunnel"));
                let moved = AtomicU64::new(0);
                let measuring = load::measure(client, load, time, &moved);
                side.add(load, watched(&mut progress, done, &words, &moved, measuring).await?);
                done += time;
                tokio::time::sleep(REST).await;
            }
        }
    }
    drop(progress);
    for (client, side) in clients.iter().zip(&mut sides) {
        side.paths = tunnels(client);
        client::close_at_once(client).await;
    }
    Ok(Figures::new(settings.server(), time, ROUNDS, sides))
}

/// A client of these settings with so many tunnels per path; those that do not come up are told as missing.
async fn connect(settings: &Settings, tunnels: usize) -> Result<Client, Failure> {
    let client = client::builder(settings)?.tunnels(tunnels).start().map_err(client::cannot_start)?;
    match tokio::time::timeout(FIRST_UP, client.ready()).await {
        Ok(Ok(())) => {}
        Ok(Err(Error::Dial(error))) if error.is_final() => {
            return Err(Failure::refused(client::in_words(&error)));
        }
        Ok(Err(Error::Dial(error))) => return Err(Failure::unavailable(client::in_words(&error))),
        Ok(Err(error)) => return Err(Failure::unavailable(error)),
        Err(_) => {
            let message =
                format_args!("no answer from {} within {} s", settings.server(), FIRST_UP.as_secs());
            return Err(Failure::unavailable(message));
        }
    }
    let (up, all) = (client::all_up(&client, ALL_UP).await, client.state().tunnels);
    if up < all {
        let why = client.state().failure.map(|error| format!(": {}", client::in_words(&error)));
        tracing::warn!("only {up} of {all} tunnels came up{}", why.unwrap_or_default());
    }
    Ok(client)
}

/// Waits for a measurement, and shows meanwhile what it does.
async fn watched<T>(
    progress: &mut Progress,
    done: Duration,
    words: &str,
    moved: &AtomicU64,
    measuring: impl Future<Output = T>,
) -> T {
    let began = Instant::now();
    let mut look = tokio::time::interval(LOOK);
    let mut measuring = std::pin::pin!(measuring);
    loop {
        tokio::select! {
            measured = &mut measuring => return measured,
            _ = look.tick() => progress.passed(done + began.elapsed(), || {
                match moved.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64() {
                    0.0 => words.to_owned(),
                    rate => format!("{words}, {}", Speed(rate)),
                }
            }),
        }
    }
}

/// The tunnels that are up, in the order of their ids, with what is known of them.
fn tunnels(client: &Client) -> Vec<Tunnel> {
    let places = client.tunnels();
    let up = client.stats().tunnels.into_iter().filter_map(|stats| {
        let place = places.iter().find(|place| place.tunnel == Some(stats.tunnel))?;
        Some(Tunnel::new(place, &stats))
    });
    up.collect()
}
