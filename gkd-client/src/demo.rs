//! `demo`: what gkd does, in one process. A real server and a real client with an emulated line between them
//! ([`Line`]); checked content goes over one tunnel, then over N, then over N of which one is cut.
//!
//! The figures are bytes over the wall time of the whole transfer, from the request to the last byte, over
//! tunnels that were up before. N tunnels move N times as many bytes as one, so that every transfer takes about
//! as long and getting up to speed weighs the same. Results go to standard output, progress to standard error.

mod digest;
mod line;
mod transfer;

#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use gkd_core::identity::SecretKey;
use gkd_core::link::Link;
use gkd_core::proto::SessionConfig;
use gkd_core::proto::handshake::{Reject, RejectCode};
use gkd_core::proto::id::PeerId;
use gkd_core::{Admission, Client, ClientBuilder, Server};
use gkd_proxy::program::{Failure, say};

use crate::cli::Demo;
use crate::client::{all_up, runtime};
use crate::progress::{Progress, Size, Speed};
use line::{Line, LineConfig};
use transfer::Outcome;

/// How long a transfer takes, in seconds, where nothing else is asked for: long against what every one of them
/// spends on getting up to speed.
const SECONDS: u64 = 8;

/// How long the tunnels of a client may take to come up.
const UP_WITHIN: Duration = Duration::from_secs(20);

/// How long a client may take to say that it is done.
const CLOSE: Duration = Duration::from_secs(5);

/// Shows it.
///
/// # Errors
/// What went wrong; that is a bug, for nothing outside of this process has a part in it but the loopback
/// interface.
pub(crate) fn demo(options: &Demo) -> Result<(), Failure> {
    let runtime = runtime(&mut tokio::runtime::Builder::new_multi_thread())?;
    let result = runtime.block_on(show(options));
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// What is in the process: a server, a line to it, and who may come in.
struct Scene {
    server: Arc<Server>,
    line: Line,
    user: SecretKey,
}

async fn show(options: &Demo) -> Result<(), Failure> {
    let config =
        LineConfig { rate: options.cap * 1_000_000 / 8, delay: Duration::from_millis(options.rtt) / 2 };
    let small = Size(options.bytes.unwrap_or(config.rate * SECONDS));
    let many = usize::from(options.tunnels);
    let large = Size(small.0 * u64::from(options.tunnels));
    let scene = Scene::new(config, SessionConfig::default()).await?;
    say(format_args!(
        "an emulated line: {} Mbit/s for each TCP connection, {} ms round trip",
        options.cap, options.rtt
    ));
    say("");
    let one = {
        let client = scene.client(1).await?;
        let progress = Progress::of_bytes("1 tunnel", small);
        let outcome = transfer::download(&client, small, 1, progress, None).await?;
        close(client).await;
        outcome
    };
    tell("1 tunnel", &one);
    let client = scene.client(many).await?;
    let label = format!("{many} tunnels");
    let all = transfer::download(&client, large, 2, Progress::of_bytes(&label, large), None).await?;
    tell(&label, &all);
    let cut = {
        let progress = Progress::of_bytes(&format!("{label}, one cut"), large);
        let resent = scene.resent();
        let cut = transfer::download(&client, large, 3, progress, Some(&scene.line)).await?;
        tell(&format!("{label}, one cut"), &cut);
        say(format_args!("{:19}{}", "", in_words(scene.resent().saturating_sub(resent))));
        cut
    };
    close(client).await;
    say("");
    say("every byte was delivered once and in order; SHA-256, alike at both ends:");
    for outcome in [&one, &all, &cut] {
        say(format_args!("  {}", outcome.digest));
    }
    say("");
    say(format_args!("speed-up {:.2}x ({many} tunnels over 1)", all.rate() / one.rate()));
    Ok(())
}

impl Scene {
    async fn new(config: LineConfig, session: SessionConfig) -> Result<Self, Failure> {
        let user = SecretKey::generate();
        let known = user.public();
        let authorise = move |peer: &PeerId| match *peer == known {
            true => Ok(Admission::default()),
            false => Err(Reject::new(RejectCode::UnknownUser)),
        };
        let server = Server::builder().listen((Ipv4Addr::LOCALHOST, 0)).session(session);
        let server = Arc::new(server.authorise(authorise).bind().await.map_err(Failure::bug)?);
        let address = server.local_addr().map_err(Failure::bug)?;
        tokio::spawn(transfer::serve(server.clone()));
        let line = Line::open(address, config);
        let line = line.await.map_err(|error| Failure::bug(format_args!("no emulated line: {error}")))?;
        Ok(Self { server, line, user })
    }

    /// A client at the other end of the line.
    fn builder(&self) -> Result<ClientBuilder, Failure> {
        let address = self.line.address().to_string().parse().map_err(Failure::bug)?;
        let link = Link::new(self.server.key(), self.user.clone(), vec![address]);
        Ok(Client::builder().link(&link))
    }

    /// One with all of its tunnels up.
    async fn client(&self, tunnels: usize) -> Result<Client, Failure> {
        let client = self.builder()?.tunnels(tunnels).start().map_err(Failure::bug)?;
        let up = all_up(&client, UP_WITHIN).await;
        if up < tunnels {
            let failure = client.state().failure.map(|failure| format!(": {failure}")).unwrap_or_default();
            return Err(Failure::bug(format_args!("{up} of {tunnels} tunnels came up{failure}")));
        }
        Ok(client)
    }

    /// Packets that the server sent again.
    fn resent(&self) -> u64 {
        self.server.sessions().iter().map(|session| session.stats().resent).sum()
    }
}

async fn close(client: Client) {
    tokio::time::timeout(CLOSE, client.close()).await.ok();
}

/// What became of the packets of the tunnel that was cut.
fn in_words(resent: u64) -> String {
    match resent {
        0 => "the one that was cut held no packet; nothing was lost".to_owned(),
        1 => "1 packet of the one that was cut was resent on the others; nothing was lost".to_owned(),
        _ => format!("{resent} packets of the one that was cut were resent on the others; nothing was lost"),
    }
}

/// One transfer in one line.
fn tell(label: &str, outcome: &Outcome) {
    say(format_args!(
        "{label:18} {:>10} in {:5.2} s {:>14}   {} of {} packets came out of order",
        outcome.size.to_string(),
        outcome.elapsed.as_secs_f64(),
        Speed(outcome.rate()).to_string(),
        outcome.out_of_order,
        outcome.packets,
    ));
}
