//! The configuration file: TOML, everything that the command line can say, nothing unknown.
//!
//! ```toml
//! links = ["gkd://KEY@server.example:9990"]   # or link_file = "laptop.link", beside this file
//! tunnels = 4                                 # or "auto"
//! local = ["mixed://127.0.0.1:1080"]
//! bind = ["eth0"]
//! congestion = "auto"
//! plain = false
//! log = "info"                                # warn, info, debug, trace
//! log_format = "text"                         # text, json
//! ```

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use toml::{Spanned, Value};

use super::layer::{Layer, Origin, Text};
use super::note_mode;
use crate::exit::Failure;

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
}

/// Reads a configuration file.
pub(super) fn read(path: &Path, notes: &mut Vec<String>) -> Result<Layer, Failure> {
    let wrong =
        |error| Failure::config(format_args!("the configuration {} cannot be read: {error}", path.display()));
    let file = File::open(path).map_err(wrong)?;
    let mut text = String::new();
    (&file).take(MAX_FILE).read_to_string(&mut text).map_err(wrong)?;
    let layer = parse(path, &text)?;
    if !layer.links.is_empty() {
        note_mode(path, &file, notes);
    }
    Ok(layer)
}

/// Reads the text of the file at `path`.
pub(super) fn parse(path: &Path, text: &str) -> Result<Layer, Failure> {
    let contents: Contents = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, &span));
        Failure::config(format_args!("{} line {line}: {}", path.display(), without_strings(error.message())))
    })?;
    let at = |span: Range<usize>| Origin::Line(path.to_owned(), line_of(text, &span));
    let one = |value: Spanned<String>| Text { origin: at(value.span()), text: value.into_inner() };
    let all = |values: Vec<Spanned<String>>| values.into_iter().map(one).collect();
    Ok(Layer {
        links: all(contents.links),
        link_file: contents.link_file.map(one).map(|link_file| beside(path, link_file)),
        tunnels: contents.tunnels.map(|value| Text { origin: at(value.span()), text: bare(value.get_ref()) }),
        local: all(contents.local),
        remote: all(contents.remote),
        bind: all(contents.bind),
        congestion: contents.congestion.map(one),
        plain: contents
            .plain
            .map(|value| Text { origin: at(value.span()), text: value.get_ref().to_string() }),
        via: contents.via.map(one),
        config: None,
        log_format: contents.log_format.map(one),
        log_level: contents.log.map(one),
    })
}

/// A relative path is one from the directory of the configuration.
fn beside(path: &Path, link_file: Text) -> Text {
    let directory = path.parent().unwrap_or(Path::new(""));
    Text { text: directory.join(&link_file.text).to_string_lossy().into_owned(), ..link_file }
}

fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    let before = text.as_bytes().get(..span.start).unwrap_or(text.as_bytes());
    before.iter().filter(|byte| **byte == b'\n').count() + 1
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
