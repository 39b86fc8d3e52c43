//! How the two mappings stand in a listener's form: their options ([`FromWs`], [`ToWs`]).

use std::fmt;
use std::time::Duration;

use super::upgrade::is_token;
use super::url::foreign;
use super::{Accept, Messages, PING_EVERY, WsUrl};

/// The longest time between pings that makes sense, in seconds.
const MAX_PING: u64 = 24 * 3600;

/// What a listener for WebSocket has beside the place that it leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FromWs {
    /// What is sent to the client.
    pub messages: Messages,
    /// Whose upgrades are taken.
    pub accept: Accept,
    /// Whether the PROXY protocol's header (version 2) goes ahead towards the destination.
    pub proxy_header: bool,
    /// Whether the answer to an upgrade waits for the far end.
    pub strict: bool,
}

/// What a forward to a WebSocket server has beside its address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToWs {
    /// What is sent to the server.
    pub messages: Messages,
    /// The subprotocol that the server has to take.
    pub protocol: Option<Box<str>>,
}

/// What is done with the bytes of a program on their way to a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// The program speaks WebSocket, the destination does not.
    FromWs(FromWs),
    /// The destination speaks WebSocket, the program does not.
    ToWs(WsUrl, ToWs),
}

impl FromWs {
    /// What could be written.
    pub(crate) const OPTIONS: &str =
        "it has text=1, ping=SECONDS, path=/PATH, origin=https://HOST, strict=1 and proxy=v2";

    /// Takes one option; whether it is one.
    pub(crate) fn take(&mut self, option: &str) -> bool {
        match option.split_once('=') {
            Some(("strict", value)) => take_bool(value, &mut self.strict),
            Some(("proxy", "v2")) => {
                self.proxy_header = true;
                true
            }
            Some(("path", path)) if is_path(path) => {
                self.accept.path = Some(path.into());
                true
            }
            Some(("origin", origin)) if is_origin(origin) => {
                self.accept.origins.push(origin.into());
                true
            }
            _ => take_message_option(option, &mut self.messages),
        }
    }
}

impl ToWs {
    /// What could be written.
    pub(crate) const OPTIONS: &str =
        "behind the address, after #, it has text=1, ping=SECONDS and protocol=NAME";

    /// Takes one option; whether it is one.
    pub(crate) fn take(&mut self, option: &str) -> bool {
        match option.split_once('=') {
            Some(("protocol", name)) if is_token(name) => {
                self.protocol = Some(name.into());
                true
            }
            _ => take_message_option(option, &mut self.messages),
        }
    }
}

fn take_message_option(option: &str, messages: &mut Messages) -> bool {
    match option.split_once('=') {
        Some(("text", value)) => take_bool(value, &mut messages.text),
        Some(("ping", seconds)) if seconds.bytes().all(|byte| byte.is_ascii_digit()) => {
            let Ok(seconds @ ..=MAX_PING) = seconds.parse() else { return false };
            messages.ping_every = (seconds > 0).then(|| Duration::from_secs(seconds));
            true
        }
        _ => false,
    }
}

fn take_bool(value: &str, to: &mut bool) -> bool {
    *to = value == "1";
    matches!(value, "0" | "1")
}

/// A path as a request has it, without a query: one with it would be no request's.
fn is_path(path: &str) -> bool {
    path.starts_with('/') && !path.contains(['?', '#']) && foreign(path).is_none()
}

/// A scheme and an authority, as a browser sends them: `null`, which many pages have, would let all of those in.
fn is_origin(origin: &str) -> bool {
    let authority = origin.split_once("://").filter(|(scheme, _)| !scheme.is_empty()).map(|(_, rest)| rest);
    let right = |rest: &str| !rest.is_empty() && !rest.contains(['/', '?', '#', '@']);
    authority.is_some_and(right) && origin.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Options one behind the other, the first behind a sign of its own.
struct List<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    ahead: char,
}

impl List<'_, '_> {
    fn add(&mut self, option: fmt::Arguments<'_>) -> fmt::Result {
        write!(self.f, "{}{option}", std::mem::replace(&mut self.ahead, '&'))
    }

    fn add_messages(&mut self, messages: &Messages) -> fmt::Result {
        if messages.text {
            self.add(format_args!("text=1"))?;
        }
        match messages.ping_every {
            Some(PING_EVERY) => Ok(()),
            every => self.add(format_args!("ping={}", every.map_or(0, |every| every.as_secs()))),
        }
    }
}

/// As they stand in a form; nothing where all are as they are by default.
impl fmt::Display for FromWs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = List { f, ahead: '?' };
        list.add_messages(&self.messages)?;
        if let Some(path) = &self.accept.path {
            list.add(format_args!("path={path}"))?;
        }
        for origin in &self.accept.origins {
            list.add(format_args!("origin={origin}"))?;
        }
        if self.strict {
            list.add(format_args!("strict=1"))?;
        }
        if self.proxy_header {
            list.add(format_args!("proxy=v2"))?;
        }
        Ok(())
    }
}

/// Likewise.
impl fmt::Display for ToWs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = List { f, ahead: '#' };
        list.add_messages(&self.messages)?;
        match &self.protocol {
            Some(protocol) => list.add(format_args!("protocol={protocol}")),
            None => Ok(()),
        }
    }
}
