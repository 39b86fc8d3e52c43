//! `gkd-server status`, and what it shows: how a running server stands ([`ServerStatus`]). Gathered once for whoever
//! asks, be it over the control socket or with USR1.

use std::net::SocketAddr;

use gkd_core::SessionHandle;
use gkd_proxy::destination::Transport;
use gkd_proxy::program::control::{self, AskError};
use gkd_proxy::program::log::STATE;
use gkd_proxy::program::status::{SessionStatus, UsageStatus, for_so_long, table};
use gkd_proxy::program::{Amount, Failure, count, print_page};
use gkd_proxy::service::announce::AnnouncedService;
use gkd_proxy::service::front::FrontStatus;
use gkd_proxy::service::services::{ServiceStatus, TargetStatus};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::PROGRAM;
use crate::dir::Dir;
use crate::http::Http;
use crate::run::Running;
use crate::users::UserName;

/// What is asked for at the control socket: all of this; the users with how many sessions each has; and to read users
/// and allowed destinations anew.
pub(crate) const STATUS: &str = "status";
pub(crate) const USERS: &str = "users";
pub(crate) const RELOAD: &str = "reload";

/// The most sessions that are told one by one.
const MAX_SESSIONS: usize = 1000;

/// The most of them that one USR1 lists.
const MAX_LOGGED: usize = 200;

/// How a server stands. The keys of the document are these names; `docs/STATUS.md` tells of them.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct ServerStatus {
    program: String,
    version: String,
    pid: u32,
    uptime_s: u64,
    directory: String,
    listening: Vec<String>,
    unencrypted: bool,
    users: u64,
    tunnels: u64,
    connections: u64,
    limits: Limits,
    met: Met,
    /// Ports that users listen on.
    listeners: Vec<UserListener>,
    /// Services that users' clients announce.
    services: Vec<UserService>,
    /// The front of HTTP services; null where there is none.
    http: Option<HttpStatus>,
    sessions: Vec<UserSession>,
    /// Those above the most that are told.
    sessions_left_out: u64,
}

/// What all users share.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Limits {
    sessions: UsageStatus,
    tunnels: UsageStatus,
    half_open: UsageStatus,
    visitors: UsageStatus,
    destinations: UsageStatus,
    memory: UsageStatus,
}

/// How often a limit was met, since the start.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Met {
    half_open_evicted: u64,
    visitors_evicted: u64,
    tunnels_rejected_unknown: u64,
    tunnels_rejected_busy: u64,
    tunnels_rejected_other: u64,
    destinations_refused: u64,
    connections_refused: u64,
}

/// A port that a user listens on.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct UserListener {
    /// None where the user was removed a moment ago.
    user: Option<String>,
    /// `tcp` or `udp`.
    transport: String,
    address: String,
}

/// A service that a user's client announces.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct UserService {
    /// None where the user was removed a moment ago.
    user: Option<String>,
    service: String,
    /// `http` or `h2c`.
    protocol: String,
    weight: u64,
}

/// The front of HTTP services, and these.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct HttpStatus {
    listening: Vec<String>,
    front: FrontStatus,
    services: Vec<ServiceStatus>,
}

/// One session, and whose it is.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct UserSession {
    /// None where the user was removed a moment ago.
    user: Option<String>,
    /// Where its newest tunnel comes from.
    peer: Option<String>,
    #[serde(flatten)]
    session: SessionStatus,
}

/// A user, and how many sessions it has.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct UserSessions {
    pub(crate) name: String,
    pub(crate) sessions: usize,
}

impl ServerStatus {
    /// How this server stands now.
    pub(crate) fn of(running: &Running) -> Self {
        let (server, access) = (&running.server, &running.access);
        let (stats, exit) = (server.stats(), access.exit());
        let all = server.sessions();
        let (mut tunnels, mut connections, mut refused) = (0, 0, 0);
        for session in &all {
            let stats = session.stats();
            tunnels += stats.tunnels.len() as u64;
            connections += stats.connections as u64;
            refused += stats.refused;
        }
        let mut sessions: Vec<_> =
            all.iter().take(MAX_SESSIONS).map(|session| UserSession::of(running, session)).collect();
        sessions.sort_by(|one, other| {
            let by = |it: &UserSession| (it.user.clone(), std::cmp::Reverse(it.session.age_s));
            by(one).cmp(&by(other))
        });
        Self {
            program: PROGRAM.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: running.began.elapsed().as_secs(),
            directory: running.dir.shown(),
            listening: server.local_addrs().iter().map(ToString::to_string).collect(),
            unencrypted: running.unencrypted,
            users: access.user_count() as u64,
            tunnels,
            connections,
            limits: Limits {
                sessions: stats.sessions.into(),
                tunnels: stats.tunnels.into(),
                half_open: stats.half_open.into(),
                visitors: stats.visitors.into(),
                destinations: exit.destinations().unwrap_or_default().into(),
                memory: stats.memory.into(),
            },
            met: Met {
                half_open_evicted: stats.evicted,
                visitors_evicted: stats.visitors_evicted,
                tunnels_rejected_unknown: stats.rejected_unknown,
                tunnels_rejected_busy: stats.rejected_busy,
                tunnels_rejected_other: stats.rejected_other,
                destinations_refused: exit.refused(),
                connections_refused: refused,
            },
            listeners: access.listeners().into_iter().map(UserListener::from).collect(),
            services: access.services().into_iter().map(UserService::from).collect(),
            http: running.http.as_ref().map(HttpStatus::of),
            sessions_left_out: (all.len() - sessions.len()) as u64,
            sessions,
        }
    }

    /// Logs it: a line for each session, and one for all.
    pub(crate) fn log(&self) {
        for one in self.sessions.iter().take(MAX_LOGGED) {
            tracing::info!(target: STATE, "{}", one.line());
        }
        tracing::info!(
            target: STATE,
            "{}, {}, {}; {}; listening on {}",
            counted(self.session_count(), "session"),
            counted(self.tunnels, "tunnel"),
            counted(self.connections, "connection"),
            counted(self.users, "user"),
            self.listening.join(", ")
        );
    }

    fn session_count(&self) -> u64 {
        self.sessions.len() as u64 + self.sessions_left_out
    }

    /// For people.
    fn lines(&self) -> Vec<String> {
        let plain = if self.unencrypted { ", the unencrypted carrier taken as well" } else { "" };
        let mut lines = vec![
            format!(
                "{} {}, process {}, for {}, in {}",
                self.program,
                self.version,
                self.pid,
                for_so_long(self.uptime_s),
                self.directory
            ),
            format!("listening on {}{plain}", self.listening.join(", ")),
            format!(
                "{}, {}, {}, {}",
                counted(self.users, "user"),
                counted(self.session_count(), "session"),
                counted(self.tunnels, "tunnel"),
                counted(self.connections, "connection")
            ),
        ];
        lines.extend(self.limits.lines());
        lines.push(self.met.line());
        let of = |user: &Option<String>| format!("of {}", user.as_deref().unwrap_or("a removed user"));
        let listener = |one: &UserListener| {
            ["listener".to_owned(), format!("{}://{}", one.transport, one.address), of(&one.user)]
        };
        lines.extend(table(self.listeners.iter().map(listener)));
        let service = |one: &UserService| {
            let what = format!("{} ({}, weight {})", one.service, one.protocol, one.weight);
            ["service".to_owned(), what, of(&one.user)]
        };
        lines.extend(table(self.services.iter().map(service)));
        lines.extend(self.http.iter().flat_map(HttpStatus::lines));
        for one in &self.sessions {
            lines.push(String::new());
            lines.push(one.head());
            lines.extend(one.session.lines());
        }
        if self.sessions_left_out > 0 {
            lines.push(format!("and {} more", counted(self.sessions_left_out, "session")));
        }
        lines
    }
}

impl From<(Option<UserName>, Transport, SocketAddr)> for UserListener {
    fn from((user, transport, address): (Option<UserName>, Transport, SocketAddr)) -> Self {
        let transport = match transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        let user = user.map(|name| name.to_string());
        Self { user, transport: transport.to_owned(), address: address.to_string() }
    }
}

impl From<(Option<UserName>, AnnouncedService)> for UserService {
    fn from((user, it): (Option<UserName>, AnnouncedService)) -> Self {
        Self {
            user: user.map(|name| name.to_string()),
            service: it.service.to_string(),
            protocol: it.protocol.to_string(),
            weight: it.weight.into(),
        }
    }
}

impl HttpStatus {
    fn of(http: &Http) -> Self {
        let (listening, front, services) = http.status();
        Self { listening, front, services }
    }

    fn lines(&self) -> Vec<String> {
        let front = &self.front;
        let mut lines = vec![format!(
            "HTTP services on {}: {}, {} so far",
            self.listening.join(", "),
            count(front.connections, "connection"),
            counted(front.requests, "request")
        )];
        let target = |service: &ServiceStatus, target: &TargetStatus| {
            let health = if target.healthy { "" } else { ", out" };
            let requests = counted(target.requests, "request");
            [
                format!("target of {}", service.service),
                target.target.clone(),
                format!("{requests}, {} running, {} failed{health}", target.outstanding, target.failures),
            ]
        };
        lines.extend(table(
            self.services
                .iter()
                .flat_map(|service| service.targets.iter().map(move |one| target(service, one))),
        ));
        lines
    }
}

impl Limits {
    fn lines(&self) -> Vec<String> {
        let number = |name: &str, usage: UsageStatus| {
            [name.to_owned(), usage.used.to_string(), format!("of {}", usage.most)]
        };
        let memory = [
            "memory".to_owned(),
            Amount(self.memory.used).to_string(),
            format!("of {}", Amount(self.memory.most)),
        ];
        let rows = [
            number("sessions", self.sessions),
            number("tunnels", self.tunnels),
            number("half-open", self.half_open),
            number("visitors", self.visitors),
            number("destinations", self.destinations),
            memory,
        ];
        table(rows.into_iter())
    }
}

impl Met {
    fn line(&self) -> String {
        let all = [
            (self.half_open_evicted, "half-open connections gave way"),
            (self.visitors_evicted, "visitors gave way"),
            (self.tunnels_rejected_unknown, "tunnels were of no user"),
            (self.tunnels_rejected_busy, "tunnels met a limit"),
            (self.tunnels_rejected_other, "tunnels were rejected otherwise"),
            (self.destinations_refused, "destinations were too many"),
            (self.connections_refused, "connections were too many"),
        ];
        let met: Vec<_> = all
            .iter()
            .filter(|(times, _)| *times > 0)
            .map(|(times, what)| format!("{times} {what}"))
            .collect();
        if met.is_empty() { "nobody was turned away".to_owned() } else { met.join(", ") }
    }
}

impl UserSession {
    fn of(running: &Running, session: &SessionHandle) -> Self {
        Self {
            user: running.access.name(&session.peer()).map(|name| name.to_string()),
            peer: session.remote_addr().map(|address| address.to_string()),
            session: SessionStatus::of(session),
        }
    }

    fn whose(&self) -> String {
        let from = self.peer.as_ref().map(|address| format!(" from {address}")).unwrap_or_default();
        format!("session of {}{from}", self.user.as_deref().unwrap_or("a removed user"))
    }

    fn head(&self) -> String {
        let draining = if self.session.draining { ", its client takes no new connections" } else { "" };
        format!("{}, for {}{draining}", self.whose(), for_so_long(self.session.age_s))
    }

    fn line(&self) -> String {
        format!(
            "{}: {}, {}, {} bytes sent, {} received, {} packets resent",
            self.whose(),
            count(self.session.tunnels_up(), "tunnel"),
            counted(self.session.connections, "connection"),
            self.session.sent,
            self.session.received,
            self.session.packets_resent
        )
    }
}

impl UserSessions {
    /// Those of all users.
    pub(crate) fn all(running: &Running) -> Vec<Self> {
        let of = |(key, name): (_, crate::users::UserName)| Self {
            name: name.to_string(),
            sessions: running.server.sessions_of(&key).len(),
        };
        running.access.all_users().into_iter().map(of).collect()
    }
}

fn counted(number: u64, thing: &str) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), thing)
}

/// Asks the server that runs on this directory.
pub(crate) fn ask(dir: &Dir, command: &str) -> Result<Value, AskError> {
    control::ask(PROGRAM, &dir.control(), command)
}

/// Shows how the running server stands.
///
/// # Errors
/// None runs, or it does not answer.
pub(crate) fn show(dir: &Dir, json: bool) -> Result<(), Failure> {
    let answer = ask(dir, STATUS).map_err(|error| match error {
        AskError::Nobody(path) => Failure::unavailable(format_args!(
            "no server runs on {}: none answers at {}; another directory is chosen with --dir",
            dir.shown(),
            path.display()
        )),
        error => Failure::unavailable(error),
    })?;
    let mut text = if json {
        serde_json::to_string_pretty(&answer).map_err(Failure::bug)?
    } else {
        let status: ServerStatus = serde_json::from_value(answer).map_err(|error| {
            Failure::unavailable(format_args!(
                "the server's answer cannot be read ({error}): look at it with --json"
            ))
        })?;
        status.lines().join("\n")
    };
    text.push('\n');
    print_page(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_what_is_shown() {
        let text = r#"{
            "program": "gkd-server", "version": "9.9.9", "pid": 7, "uptime_s": 61, "directory": "/d",
            "listening": ["127.0.0.1:1"], "users": 2, "tunnels": 1, "connections": 3,
            "limits": {"sessions": {"used": 1, "most": 1024}, "memory": {"used": 4194304, "most": 1073741824}},
            "met": {"tunnels_rejected_busy": 5},
            "services": [{"user": "alice", "service": "shop", "protocol": "http", "weight": 2}],
            "sessions": [{"user": "alice", "peer": "192.0.2.1:5", "age_s": 5, "connections": 3,
                "tunnels": [{"id": 0, "state": "up", "remote": "192.0.2.1:5", "sent": 10}]}],
            "sessions_left_out": 1, "later": true
        }"#;
        let status: ServerStatus = serde_json::from_str(text).unwrap();
        let lines = status.lines();
        for part in [
            "gkd-server 9.9.9, process 7, for 1 min 1 s, in /d",
            "listening on 127.0.0.1:1",
            "2 users, 2 sessions, 1 tunnel, 3 connections",
            "  sessions      1       of 1024",
            "  memory        4.2 MB  of 1073.7 MB",
            "5 tunnels met a limit",
            "  service  shop (http, weight 2)  of alice",
            "session of alice from 192.0.2.1:5, for 5 s",
            "and 1 session more",
        ] {
            assert!(lines.iter().any(|line| line == part), "{part:?} is not in {lines:#?}");
        }
        let line = status.sessions[0].line();
        assert!(
            line.starts_with("session of alice from 192.0.2.1:5: 1 tunnel, 3 connections, 0 bytes"),
            "{line}"
        );
    }
}
