//! What `server.toml` says of WebSocket: which requests become tunnels.

use gkd_core::carrier::ws::WebSocketConfig;
use gkd_core::link::WebHost;
use serde::Deserialize;
use toml::Spanned;

use super::Judge;

/// The longest path; links take no longer one.
const MAX_PATH: usize = 1024;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WrittenWebSocket {
    enabled: Option<bool>,
    paths: Vec<Spanned<String>>,
    hosts: Vec<Spanned<String>>,
}

impl Judge<'_> {
    pub(super) fn websocket(&mut self, written: &WrittenWebSocket) -> WebSocketConfig {
        WebSocketConfig {
            enabled: written.enabled.unwrap_or(true),
            paths: written.paths.iter().filter_map(|path| self.judged(path, parse_path)).collect(),
            hosts: written.hosts.iter().filter_map(|host| self.judged(host, parse_host)).collect(),
        }
    }
}

/// A path as a request has it, so that it can be compared as it stands: the characters are those of RFC 3986 §3.3.
fn parse_path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("{text:?} is no path: begin it with a slash, {:?}", format!("/{text}")));
    }
    if text.len() > MAX_PATH {
        return Err(format!("the path has {} bytes, more than a link may have: shorten it", text.len()));
    }
    let known = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@%/".contains(c);
    match text.chars().find(|c| !known(*c)) {
        Some(c) => Err(format!("the path {text:?} has a wrong character, {c:?}: write it as %XX")),
        None => Ok(text.to_owned()),
    }
}

fn parse_host(text: &str) -> Result<String, String> {
    match text.parse() {
        Ok(WebHost { host, port: None }) => Ok(host.to_string()),
        Ok(WebHost { host, port: Some(_) }) => {
            Err(format!("\"{text}\" has a port, and requests are told apart by host alone: write \"{host}\""))
        }
        Err(error) => Err(error.to_string()),
    }
}
