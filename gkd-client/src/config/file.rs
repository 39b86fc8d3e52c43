//! The configuration file: TOML, everything that the command line can say, nothing unknown.
//!
//! ```toml
//! links = ["gkd://KEY@server.example:9990"]   # or link_file = "laptop.link", beside this file
//! tunnels = 4                                 # or "auto": 4 at first, and more as long as they bring something
//! local = ["mixed://127.0.0.1:1080"]          # or tables [[listener]], below
//! remote = ["tcp://8080:localhost:3000"]      # at the server
//! bind = ["eth0"]
//! via = "http://proxy.example:3128"           # or "env": the proxy that https_proxy or all_proxy names
//! congestion = "auto"
//! plain = false
//! log = "info"                                # warn, info, debug, trace
//! log_format = "text"                         # text, json
//!
//! [timeouts]                                  # a number with its unit: ms, s, m or h
//! dial = "10s"                                # for a tunnel while none is up; with strict for the far end's dial
//! handshake = "10s"                           # for a tunnel to come up, and a program to say what it wants
//! half_closed = "1h"                          # for a connection of which one direction has ended, the other idle
//! udp_idle = "2m"                             # for a flow of datagrams on which nothing moves
//! resume = "60s"                              # for tunnels to come back, before all connections are reset
//! silent = "20s"                              # for a tunnel that owes an answer, before it is dropped
//!
//! [[listener]]                                # one listener, beside those of `local` and `remote`
//! name = "database"                           # shown in the log and by status; each name once
//! local = "tcp://5432:db.internal:5432"       # or remote
//!
//! [[service]]                                 # a web service that the server answers for
//! name = "shop"                               # as the user's rules there allow; several of one name share its requests
//! to = "http://127.0.0.1:3000"                # or "h2c://127.0.0.1:50051", or a folder: "/srv/files"
//! weight = 1                                  # its share beside others, 1 to 1000
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use gkd_proxy::program::{self, Failure};
use serde::Deserialize;
use toml::{Spanned, Value};

use super::layer::{Layer, NamedText, Origin, ServiceText, Text};
use super::note_mode;

/// The most bytes that are read.
const MAX_FILE: u64 = 1024 * 1024;

/// What the file may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Contents {
    links: Vec<Spanned<String>>,
    link_file: Option<Spanned<String>>,
    /// A number or `"auto"`.
    tunnels: Option<Spanned<Value>>,
    local: Vec<Spanned<String>>,
    remote: Vec<Spanned<String>>,
    bind: Vec<Spanned<String>>,
    congestion: Option<Spanned<String>>,
    plain: Option<Spanned<bool>>,
    via: Option<Spanned<String>>,
    log: Option<Spanned<String>>,
    log_format: Option<Spanned<String>>,
    timeouts: BTreeMap<Spanned<String>, Spanned<String>>,
    listener: Vec<Spanned<WrittenListener>>,
    service: Vec<Spanned<WrittenService>>,
}

/// One listener as a table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenListener {
    name: Option<Spanned<String>>,
    local: Option<Spanned<String>>,
    remote: Option<Spanned<String>>,
}

/// One service as a table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenService {
    name: Option<Spanned<String>>,
    to: Option<Spanned<String>>,
    /// A number.
    weight: Option<Spanned<Value>>,
}

/// The most characters of a listener's name: it stands in front of log lines.
const MAX_NAME: usize = 32;

/// Reads a configuration file; `named` is what named it, unless it stands where one is looked for.
pub(super) fn read(path: &Path, named: Option<&Text>, notes: &mut Vec<String>) -> Result<Layer, Failure> {
    let shown = path.display();
    let wrong = |error| {
        let mend = match named {
            Some(named) => format!("name another with {}, or leave it out", named.origin),
            None => "make it readable, or name another with --config".to_owned(),
        };
        Failure::config(format_args!("the configuration {shown} cannot be read: {error}: {mend}"))
    };
    let file = File::open(path).map_err(wrong)?;
    let mut bytes = Vec::new();
    (&file).take(MAX_FILE).read_to_end(&mut bytes).map_err(wrong)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
        let (line, _) = program::place(&good, good.len());
        Failure::config(format_args!("{shown} line {line}: this is not UTF-8 text: write it anew"))
    })?;
    let layer = parse(path, &text)?;
    if !layer.links.is_empty() {
        note_mode(path, &file, "a key", notes);
    } else if layer.via.as_ref().is_some_and(|via| via.text.contains('@')) {
        note_mode(path, &file, "a proxy's password", notes);
    }
    Ok(layer)
}

/// Reads the text of the file at `path`.
pub(super) fn parse(path: &Path, text: &str) -> Result<Layer, Failure> {
    let contents: Contents = toml::from_str(text).map_err(|error| {
        let (line, _) = program::place(text, error.span().map_or(0, |span| span.start));
        let message = program::with_mend(&without_strings(error.message()));
        Failure::config(format_args!("{} line {line}: {message}", path.display()))
    })?;
    let at = |span: Range<usize>| Origin::Line(path.to_owned(), program::place(text, span.start).0);
    let one = |value: Spanned<String>| Text { origin: at(value.span()), text: value.into_inner() };
    let all = |values: Vec<Spanned<String>>| -> Vec<_> { values.into_iter().map(one).collect() };
    let unnamed = |values| all(values).into_iter().map(NamedText::from).collect::<Vec<_>>();
    let (mut local, mut remote) = (unnamed(contents.local), unnamed(contents.remote));
    let mut names = HashMap::new();
    for table in contents.listener {
        let place = at(table.span());
        let WrittenListener { name, local: here, remote: there } = table.into_inner();
        let name = name.map(one);
        if let Some(name) = &name {
            name.read(check_name)?;
            if let Some(first) = names.insert(name.text.clone(), name.origin.clone()) {
                let words = format!("the listener {} stands twice, first in {first}: rename one", name.text);
                return Err(name.wrong(words));
            }
        }
        match (here, there) {
            (Some(form), None) => local.push(NamedText { name, form: one(form) }),
            (None, Some(form)) => remote.push(NamedText { name, form: one(form) }),
            (None, None) => {
                return Err(wrong_listener(place, "has no form: write local = \"mixed://1080\", say"));
            }
            (Some(_), Some(_)) => {
                return Err(wrong_listener(place, "has both local and remote: make it two"));
            }
        }
    }
    let number = |value: Spanned<Value>| Text { origin: at(value.span()), text: bare(value.get_ref()) };
    let service = |table: Spanned<WrittenService>| {
        let place = at(table.span());
        let lacks = |what: &str| Failure::config(format_args!("{place}: a service has no {what}"));
        let WrittenService { name, to, weight } = table.into_inner();
        Ok(ServiceText {
            name: one(name.ok_or_else(|| lacks("name: write name = \"shop\", say"))?),
            to: one(to.ok_or_else(|| lacks("target: write to = \"http://127.0.0.1:3000\", say"))?),
            weight: weight.map(number),
        })
    };
    let services = contents.service.into_iter().map(service).collect::<Result<_, Failure>>()?;
    Ok(Layer {
        links: all(contents.links),
        link_file: contents.link_file.map(one).map(|link_file| beside(path, link_file)),
        tunnels: contents.tunnels.map(number),
        local,
        remote,
        services,
        bind: all(contents.bind),
        congestion: contents.congestion.map(one),
        plain: contents
            .plain
            .map(|value| Text { origin: at(value.span()), text: value.get_ref().to_string() }),
        via: contents.via.map(one),
        config: None,
        log_format: contents.log_format.map(one),
        log_level: contents.log.map(one),
        timeouts: contents.timeouts.into_iter().map(|(name, time)| (one(name), one(time))).collect(),
    })
}

fn wrong_listener(place: Origin, words: &str) -> Failure {
    Failure::config(format_args!("{place}: a listener {words}"))
}

/// Letters and digits of any script, `-`, `_` and `.`.
fn check_name(name: &str) -> Result<(), String> {
    let known = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    if (1..=MAX_NAME).contains(&name.chars().count()) && name.chars().all(known) {
        return Ok(());
    }
    Err(format!(
        "\"{}\" is no name of a listener: write 1 to {MAX_NAME} letters, digits, '-', '_' and '.'",
        name.escape_debug()
    ))
}

/// A relative path is one from the directory of the configuration.
fn beside(path: &Path, link_file: Text) -> Text {
    let directory = path.parent().unwrap_or(Path::new(""));
    Text { text: directory.join(&link_file.text).to_string_lossy().into_owned(), ..link_file }
}

fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// An error of a wrong type quotes the value, which may be a link; and it may have several lines.
fn without_strings(message: &str) -> String {
    let message = message.trim().replace('\n', ": ");
    let Some((before, rest)) = message.split_once("string \"") else { return message };
    match rest.rsplit_once("\", ") {
        Some((_, after)) => format!("{before}a string, {after}"),
        None => format!("{before}a string"),
    }
}
