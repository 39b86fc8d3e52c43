//! `gkd-server run`: the server, from its files to the last signal.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gkd_core::Server;
use gkd_proxy::program::control::{Asked, Control};
use gkd_proxy::program::signals::{Signal, Signals};
use gkd_proxy::program::{Failure, count};
use serde::{Deserialize, Serialize};

use crate::access::Access;
use crate::cli::RunOptions;
use crate::config::Config;
use crate::descriptors::Descriptors;
use crate::dir::Dir;
use crate::http::Http;
use crate::status::{self, ServerStatus, UserSessions};

/// How long live connections may take to end after the first TERM.
const DRAIN: Duration = Duration::from_secs(30);

/// How long clients may take to be told after the second.
const AT_ONCE: Duration = Duration::from_millis(500);

/// Threads that resolve a name cannot be stopped; the process does not wait longer for them.
const THREADS: Duration = Duration::from_millis(100);

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
    let (server, mut control) = Running::start(dir, options, descriptors).await?;
    let accepting = tokio::spawn(accept(server.server.clone(), server.access.clone()));
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::End => break,
                // What came of it is logged.
                Signal::Reload => drop(server.reload().await),
                Signal::State => ServerStatus::of(&server).log(),
            },
            asked = control.next() => server.answer(asked).await,
        }
    }
    server.end(&mut signals, &mut control).await;
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
    /// None where the configuration has no services.
    pub(crate) http: Option<Http>,
    /// The unencrypted carrier is taken as well.
    pub(crate) unencrypted: bool,
    /// When it began to listen.
    pub(crate) began: Instant,
}

/// What came of reading the configuration anew.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Reloaded {
    pub(crate) users: usize,
    /// Sessions of users that are gone or have another key.
    pub(crate) sessions_ended: usize,
    /// Settings that differ from those of the start, which take a restart.
    pub(crate) restart: Vec<String>,
}

impl Running {
    /// Answers what was asked for at the control socket.
    async fn answer(&self, asked: Asked) {
        match asked.command() {
            status::STATUS => asked.answer(Ok::<_, Failure>(ServerStatus::of(self))),
            status::USERS => asked.answer(Ok::<_, Failure>(UserSessions::all(self))),
            status::RELOAD => asked.answer(self.reload().await),
            _ => asked.answer_unknown(),
        }
    }

    /// Reads users, with their rules and limits, allowed destinations and services anew. A file that cannot be read or is
    /// wrong changes nothing.
    async fn reload(&self) -> Result<Reloaded, Failure> {
        let (config, services_differ) = self.take_on().await.map_err(|failure| {
            let words = format!("nothing is changed, the configuration in force stays: {failure}");
            tracing::error!("{words}");
            Failure::config(words)
        })?;
        let mut restart = Vec::new();
        for (setting, same) in [
            ("listen", config.listen == self.config.listen),
            ("public", config.public == self.config.public),
            ("site", config.site() == self.config.site()),
            ("congestion", config.congestion == self.config.congestion),
            ("plain", config.plain == self.config.plain),
            ("bench", config.bench == self.config.bench),
            ("websocket", config.websocket == self.config.websocket),
            ("limits", config.limits == self.config.limits),
            ("timeouts", config.timeouts == self.config.timeouts),
            ("whether there is [http]", config.http().is_some() == self.config.http().is_some()),
        ] {
            if !same {
                tracing::warn!(
                    "{setting} differs from what the server was started with: that takes a restart"
                );
                restart.push(setting.to_owned());
            }
        }
        let replaced = self.access.replace(&config, services_differ, &self.server);
        tracing::info!(
            "users, allowed destinations and services are read anew: {}; {}; {} of removed users ended",
            count(config.users.len(), "user"),
            replaced.changes,
            count(replaced.ended, "session")
        );
        Ok(Reloaded { users: config.users.len(), sessions_ended: replaced.ended, restart })
    }

    /// Reads the file, and has the front and the services be as it says: what can fail, ahead of all that cannot. What is
    /// announced is looked at by users and services together, so behind this. The file, and whether services are others.
    async fn take_on(&self) -> Result<(Config, bool), Failure> {
        let config = Config::load(&self.dir)?;
        config.check_http(&self.dir.config())?;
        let services_differ = match (&self.http, config.http()) {
            (Some(http), Some(config)) => http.reload(config).await?,
            _ => false,
        };
        Ok((config, services_differ))
    }

    /// Lets live connections end, for some time, unless a second signal comes. Requests of services first, which may need
    /// connections to the clients that announced them.
    async fn end(&self, signals: &mut Signals, control: &mut Control) {
        let until = Instant::now() + DRAIN;
        self.access.begin_to_end();
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
            loop {
                tokio::select! {
                    signal = signals.next() => match signal {
                        Signal::End => return,
                        _ => tracing::info!("the server is ending: only TERM and INT count now"),
                    },
                    // Who asks how it stands, or removes a user, is not to wait for the end.
                    asked = control.next() => self.answer(asked).await,
                }
            }
        };
        let drained = async {
            if let Some(http) = &self.http {
                http.end(until).await;
            }
            self.access.withdraw();
            shutdown.shutdown(until.saturating_duration_since(Instant::now())).await
        };
        tokio::select! {
            drained = drained => match drained {
                true => tracing::info!("ended"),
                false => tracing::info!("ended; connections that were left are reset"),
            },
            () = second => {
                // Ready or not: this is at once.
                if let Some(http) = &self.http {
                    tokio::time::timeout(AT_ONCE, http.abort()).await.ok();
                }
                tokio::time::timeout(AT_ONCE, shutdown.shutdown(Duration::ZERO)).await.ok();
                tracing::info!("ended at once; connections that were left are reset");
            }
        }
    }
}
