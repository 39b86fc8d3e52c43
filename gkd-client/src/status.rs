//! `gkd-client status`, and what it shows: how a running client stands ([`ClientStatus`]). Gathered once for whoever
//! asks, be it over the control socket or with USR1.

use std::collections::HashMap;

use gkd_proxy::program::log::STATE;
use gkd_proxy::program::status::{SessionStatus, TunnelState, TunnelStatus, for_so_long, table};
use gkd_proxy::program::{Failure, count, print_page};
use serde::{Deserialize, Serialize};

use crate::PROGRAM;
use crate::cli::Status;
use crate::client::in_words;
use crate::config::Environment;
use crate::listeners::ListenerStatus;
use crate::place::{self, Found};
use crate::run::Running;

/// What is asked for at the control socket.
pub(crate) const STATUS: &str = "status";

/// How a client stands. The keys of the document are these names; `docs/STATUS.md` tells of them.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct ClientStatus {
    program: String,
    version: String,
    pid: u32,
    uptime_s: u64,
    /// The configuration file, where there is one.
    config: Option<String>,
    /// The servers' addresses.
    server: String,
    tunnels_up: u64,
    tunnels_wanted: u64,
    /// Why the last dial failed, where no tunnel came up behind it.
    last_failure: Option<String>,
    /// Programs that are served.
    programs: u64,
    listeners: Vec<ListenerStatus>,
    session: SessionStatus,
}

impl ClientStatus {
    /// How this client stands now.
    pub(crate) fn of(running: &Running<'_>) -> Self {
        let (client, settings) = (&running.client, running.settings);
        let state = client.state();
        let mut session = SessionStatus::of(&client.session());
        let mut up: HashMap<_, _> =
            std::mem::take(&mut session.tunnels).into_iter().map(|tunnel| (tunnel.id, tunnel)).collect();
        // In the order of the places, path by path.
        for place in client.tunnels() {
            let path = place.path.to_string();
            let tunnel = place.tunnel.and_then(|id| up.remove(&Some(id.0)));
            session.tunnels.push(match tunnel {
                Some(tunnel) => TunnelStatus { path: Some(path), ..tunnel },
                None => TunnelStatus::down(path),
            });
        }
        // Those that came or went meanwhile.
        session.tunnels.extend(up.into_values());
        Self {
            program: PROGRAM.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: running.began.elapsed().as_secs(),
            config: settings.file.as_ref().map(|file| file.display().to_string()),
            server: settings.server(),
            tunnels_up: state.tunnels_up as u64,
            tunnels_wanted: state.tunnels as u64,
            last_failure: state.failure.as_ref().map(|failure| in_words(failure)),
            programs: running.listeners.serving() as u64,
            listeners: running.listeners.status(),
            session,
        }
    }

    /// Logs it: a line, and one for each tunnel.
    pub(crate) fn log(&self) {
        let session = &self.session;
        tracing::info!(
            target: STATE,
            "state: {} of {} tunnels up, {}, {} served, {} bytes in flight, {} packets of {} \
             received out of order, {} resent",
            self.tunnels_up,
            self.tunnels_wanted,
            counted(session.connections, "connection"),
            counted(self.programs, "program"),
            session.in_flight,
            session.packets_out_of_order,
            session.packets_received,
            session.packets_resent,
        );
        for tunnel in &session.tunnels {
            let Some(id) = tunnel.id else { continue };
            let round_trip =
                tunnel.round_trip_ms.map_or_else(|| "?".to_owned(), |time| format!("{time:.1} ms"));
            tracing::info!(
                target: STATE,
                "tunnel {id}: round trip {round_trip}, {} bytes sent, {} received, {} in flight{}",
                tunnel.sent,
                tunnel.received,
                tunnel.in_flight,
                if tunnel.state == TunnelState::Suspect { ", suspect" } else { "" },
            );
        }
        if let Some(failure) = &self.last_failure {
            tracing::info!(target: STATE, "the last dial failed: {failure}");
        }
    }

    /// For people.
    fn lines(&self) -> Vec<String> {
        let config = self.config.as_ref().map(|file| format!(", as {file} says")).unwrap_or_default();
        let mut lines = vec![
            format!(
                "{} {}, process {}, for {}{config}",
                self.program,
                self.version,
                self.pid,
                for_so_long(self.uptime_s)
            ),
            format!(
                "{} of {} tunnels up to {}, {} served",
                self.tunnels_up,
                self.tunnels_wanted,
                self.server,
                counted(self.programs, "program")
            ),
        ];
        lines.extend(self.last_failure.iter().map(|failure| format!("the last dial failed: {failure}")));
        lines.push(String::new());
        let head = ["name", "where", "listener", "state", "addresses", "programs"].map(str::to_owned);
        lines.extend(table(std::iter::once(head).chain(self.listeners.iter().map(cells))));
        let errors = self.listeners.iter().filter_map(|listener| listener.error.as_ref());
        lines.extend(errors.map(|error| format!("  {error}")));
        lines.push(String::new());
        let draining = if self.session.draining { ", the server takes no new connections" } else { "" };
        lines.push(format!("session for {}{draining}", for_so_long(self.session.age_s)));
        lines.extend(self.session.lines());
        lines
    }
}

fn cells(listener: &ListenerStatus) -> [String; 6] {
    let addresses = match &listener.addresses[..] {
        [] => "-".to_owned(),
        [only] => only.clone(),
        [first, .., last] => format!("{first} to {last}"),
    };
    [
        listener.name.clone().unwrap_or_else(|| "-".to_owned()),
        listener.end.clone(),
        listener.listener.clone(),
        listener.state.clone(),
        addresses,
        listener.serving.to_string(),
    ]
}

fn counted(number: u64, thing: &str) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), thing)
}

/// Shows how the running client stands.
///
/// # Errors
/// None runs, or several do and none was chosen.
pub(crate) fn show(options: &Status) -> Result<(), Failure> {
    let found = place::ask(&Environment::of_process(), options.pid, STATUS)?;
    let [Found { answer, .. }] = &found[..] else { return Err(several(&found)) };
    let mut text = if options.json {
        serde_json::to_string_pretty(answer).map_err(Failure::bug)?
    } else {
        let status = ClientStatus::deserialize(answer).map_err(|error| {
            Failure::unavailable(format_args!(
                "the client's answer cannot be read ({error}): look at it with --json"
            ))
        })?;
        status.lines().join("\n")
    };
    text.push('\n');
    print_page(text.as_bytes())
}

/// Which one is meant?
fn several(found: &[Found]) -> Failure {
    let one = |found: &Found| {
        let words = |key: &str| found.answer[key].as_str().unwrap_or("?").to_owned();
        let uptime = found.answer["uptime_s"].as_u64().unwrap_or(0);
        format!("\n  --pid {}  to {}, for {}", found.pid, words("server"), for_so_long(uptime))
    };
    let all: String = found.iter().map(one).collect();
    Failure::usage(format_args!("{} run: choose one of{all}", count(found.len(), "client")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_what_is_shown() {
        let text = r#"{
            "program": "gkd-client", "version": "9.9.9", "pid": 7, "uptime_s": 61, "config": "/c.toml",
            "server": "a:1, b:1", "tunnels_up": 1, "tunnels_wanted": 2, "last_failure": "it is down", "programs": 3,
            "listeners": [
                {"name": "web", "end": "server", "listener": "tcp://127.0.0.1:1:h:2", "state": "listening",
                    "addresses": ["127.0.0.1:1"], "serving": 3},
                {"end": "here", "listener": "mixed://127.0.0.1:2", "state": "failed", "error": "the port is taken"}
            ],
            "session": {"age_s": 5, "connections": 3, "tunnels": [{"id": 0, "state": "up", "path": "a:1"}]},
            "later": true
        }"#;
        let status: ClientStatus = serde_json::from_str(text).unwrap();
        let lines = status.lines();
        for part in [
            "gkd-client 9.9.9, process 7, for 1 min 1 s, as /c.toml says",
            "1 of 2 tunnels up to a:1, b:1, 3 programs served",
            "the last dial failed: it is down",
            "  web   server  tcp://127.0.0.1:1:h:2  listening  127.0.0.1:1  3",
            "  -     here    mixed://127.0.0.1:2    failed     -            0",
            "  the port is taken",
            "session for 5 s",
        ] {
            assert!(lines.iter().any(|line| line == part), "{part:?} is not in {lines:#?}");
        }
    }

    #[test]
    fn several_clients_are_told_with_what_chooses_one() {
        let answer = serde_json::json!({"server": "a:1", "uptime_s": 61});
        let failure = several(&[Found { pid: 7, answer: answer.clone() }, Found { pid: 8, answer }]);
        let expected = "2 clients run: choose one of\n  --pid 7  to a:1, for 1 min 1 s\n  --pid 8  to a:1, for 1 min 1 s";
        assert_eq!(failure.message, expected);
    }
}
