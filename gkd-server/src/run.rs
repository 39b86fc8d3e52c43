//! `gkd-server run`: the server, from its files to the last signal.

use std::sync::Arc;
use std::time::Duration;

use gkd_core::proto::SessionStats;
use gkd_core::{Server, SessionHandle};
use gkd_proxy::program::log::STATE;
use gkd_proxy::program::signals::{Signal, Signals};
use gkd_proxy::program::{Failure, count};

use crate::access::Access;
use crate::cli::RunOptions;
use crate::config::Config;
use crate::descriptors::Descriptors;
use crate::dir::Dir;
use crate::listen;

/// How long live connections may take to end after the first TERM.
const DRAIN: Duration = Duration::from_secs(30);

/// How long clients may take to be told after the second.
const AT_ONCE: Duration = Duration::from_millis(500);

/// Threads that resolve a name cannot be stopped; the process does not wait longer for them.
const THREADS: Duration = Duration::from_millis(100);

/// The most sessions that one USR1 lists.
const MAX_LISTED: usize = 200;

/// Serves until a signal ends it.
///
/// # Errors
/// It cannot begin.
pub(crate) fn run(dir: Dir, options: RunOptions) -> Result<(), Failure> {
    let descriptors = Descriptors::raise();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::bug)?;
    let served = runtime.block_on(serve(dir, options, descriptors));
    runtime.shutdown_timeout(THREADS);
    served
}

async fn serve(dir: Dir, options: RunOptions, descriptors: Descriptors) -> Result<(), Failure> {
    let mut signals = Signals::new(true).map_err(Failure::bug)?;
    let server = Running::start(dir, options, descriptors).await?;
    let accepting = tokio::spawn(accept(server.server.clone(), server.access.clone()));
    loop {
        match signals.next().await {
            Signal::End => break,
            Signal::Reload => server.reload(),
            Signal::State => server.log_state(),
        }
    }
    server.end(&mut signals).await;
    accepting.abort();
    Ok(())
}

/// Serves what clients open, each connection in a task of its own.
async fn accept(server: Arc<Server>, access: Arc<Access>) {
    while let Some((connection, _)) = server.accept().await {
        // What failed is logged within.
        drop(access.exit().spawn(connection));
    }
}

/// A server that listens.
pub(crate) struct Running {
    pub(crate) dir: Dir,
    /// As it was at the start: what takes a restart is compared with it.
    pub(crate) config: Config,
    pub(crate) server: Arc<Server>,
    pub(crate) access: Arc<Access>,
}

impl Running {
    /// Reads users, with their rules and limits, and allowed destinations anew. A file that cannot be read or is wrong changes nothing.
    fn reload(&self) {
        let config = match Config::load(&self.dir) {
            Ok(config) => config,
            Err(failure) => {
                tracing::error!("nothing is changed, the configuration in force stays: {failure}");
                return;
            }
        };
        for (setting, same) in [
            ("listen", config.listen == self.config.listen),
            ("public", config.public == self.config.public),
            ("congestion", config.congestion == self.config.congestion),
            ("plain", config.plain == self.config.plain),
            ("bench", config.bench == self.config.bench),
            ("limits", config.limits == self.config.limits),
            ("timeouts", config.timeouts == self.config.timeouts),
        ] {
            if !same {
                tracing::warn!(
                    "{setting} differs from what the server was started with: that takes a restart"
                );
            }
        }
        let replaced = self.access.replace(&config, &self.server);
        tracing::info!(
            "users and allowed destinations are read anew: {}; {}; {} of removed users ended",
            count(config.users.len(), "user"),
            replaced.changes,
            count(replaced.ended, "session")
        );
    }

    fn log_state(&self) {
        let sessions = self.server.sessions();
        let (mut tunnels, mut connections) = (0, 0);
        for (index, session) in sessions.iter().enumerate() {
            let stats = session.stats();
            tunnels += stats.tunnels.len();
            connections += stats.connections;
            if index < MAX_LISTED {
                tracing::info!(target: STATE, "{}", self.line(session, &stats));
            }
        }
        tracing::info!(
            target: STATE,
            "{}, {}, {}; {}; listening on {}",
            count(sessions.len(), "session"),
            count(tunnels, "tunnel"),
            count(connections, "connection"),
            count(self.access.user_count(), "user"),
            listen::shown(self.server.local_addrs())
        );
    }

    fn line(&self, session: &SessionHandle, stats: &SessionStats) -> String {
        let user = self.access.name(&session.peer()).map_or("a removed user".into(), |name| name.to_string());
        let from = session.remote_addr().map(|address| format!(" from {address}")).unwrap_or_default();
        format!(
            "session of {user}{from}: {}, {}, {} bytes sent, {} received, {} packets resent",
            count(stats.tunnels.len(), "tunnel"),
            count(stats.connections, "connection"),
            stats.payload_sent,
            stats.payload_received,
            stats.resent
        )
    }

    /// Lets live connections end, for some time, unless a second signal comes.
    async fn end(&self, signals: &mut Signals) {
        let live: usize = self.server.sessions().iter().map(|session| session.stats().connections).sum();
        if live > 0 {
            tracing::info!(
                "ending: {} may take {} s to come to an end; a second signal ends at once",
                count(live, "connection"),
                DRAIN.as_secs()
            );
        }
        let shutdown = self.server.shutdown_handle();
        let second = async {
            while signals.next().await != Signal::End {
                tracing::info!("the server is ending: only TERM and INT count now");
            }
        };
        tokio::select! {
            drained = shutdown.shutdown(DRAIN) => match drained {
                true => tracing::info!("ended"),
                false => tracing::info!("ended; connections that were left are reset"),
            },
            () = second => {
                // Ready or not: this is at once.
                tokio::time::timeout(AT_ONCE, shutdown.shutdown(Duration::ZERO)).await.ok();
                tracing::info!("ended at once; connections that were left are reset");
            }
        }
    }
}
