//! One source of configuration as texts that know where they stand: [`Layer`].

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use gkd_proxy::program::Failure;

use crate::cli::{Listeners, Log, Reach};

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// On the command line, as this option or argument.
    Flag(&'static str),
    /// In this variable.
    Variable(&'static str),
    /// In this file, on this line.
    Line(PathBuf, usize),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) => f.write_str(name),
            Self::Line(path, line) => write!(f, "{} line {line}", path.display()),
        }
    }
}

/// A value as it was written. `Debug` may show a secret: for tests only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) origin: Origin,
}

impl Text {
    /// Reads the value. What is wrong with it is the caller's word, so that no secret is shown.
    pub(crate) fn read<T, E: fmt::Display>(
        &self,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, Failure> {
        read(&self.text).map_err(|error| self.wrong(error))
    }

    /// Says where the value stands, and what is wrong with it.
    pub(crate) fn wrong(&self, error: impl fmt::Display) -> Failure {
        let message = format!("{}: {error}", self.origin);
        match self.origin {
            Origin::Flag(_) => Failure::usage(message),
            Origin::Variable(_) | Origin::Line(..) => Failure::config(message),
        }
    }
}

/// A listener as it was written, with its name where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedText {
    pub(crate) name: Option<Text>,
    pub(crate) form: Text,
}

impl From<Text> for NamedText {
    fn from(form: Text) -> Self {
        Self { name: None, form }
    }
}

/// A service as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceText {
    pub(crate) name: Text,
    pub(crate) to: Text,
    pub(crate) weight: Option<Text>,
}

/// What one source says; an absent value leaves it to the next source.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    pub(crate) links: Vec<Text>,
    pub(crate) link_file: Option<Text>,
    pub(crate) tunnels: Option<Text>,
    pub(crate) local: Vec<NamedText>,
    pub(crate) remote: Vec<NamedText>,
    /// Only a file says them so.
    pub(crate) services: Vec<ServiceText>,
    pub(crate) bind: Vec<Text>,
    pub(crate) congestion: Option<Text>,
    pub(crate) plain: Option<Text>,
    pub(crate) via: Option<Text>,
    pub(crate) config: Option<Text>,
    pub(crate) log_format: Option<Text>,
    /// Only a file says this in words.
    pub(crate) log_level: Option<Text>,
    /// Names and times; only a file has them.
    pub(crate) timeouts: Vec<(Text, Text)>,
}

impl Layer {
    pub(crate) fn from_flags(reach: &Reach, listeners: &Listeners, log: &Log) -> Self {
        let text = |name, text: &str| Text { text: text.to_owned(), origin: Origin::Flag(name) };
        let one = |name, value: &Option<String>| value.as_ref().map(|value| text(name, value));
        let all =
            |name, values: &[String]| -> Vec<_> { values.iter().map(|value| text(name, value)).collect() };
        Self {
            links: all("LINK", &reach.links),
            link_file: one("--link-file", &reach.link_file),
            tunnels: one("--tunnels", &reach.tunnels),
            local: unnamed(all("--local", &listeners.local)),
            remote: unnamed(all("--remote", &listeners.remote)),
            services: Vec::new(),
            bind: all("--bind", &reach.bind),
            congestion: one("--congestion", &reach.congestion),
            plain: reach.plain.then(|| text("--plain", "true")),
            via: one("--via", &reach.via),
            config: one("--config", &reach.config),
            log_format: one("--log-format", &log.log_format),
            log_level: None,
            timeouts: Vec::new(),
        }
    }

    /// Several values stand in one variable with blanks between; an empty variable is as good as none.
    pub(crate) fn from_environment(environment: &Environment) -> Self {
        let text = |name, text: &str| Text { text: text.to_owned(), origin: Origin::Variable(name) };
        let one = |name| environment.get(name).map(|value| text(name, value.trim()));
        let all = |name| -> Vec<_> {
            let values = environment.get(name).unwrap_or_default();
            values.split_whitespace().map(|value| text(name, value)).collect()
        };
        Self {
            links: all("GKD_LINK"),
            link_file: one("GKD_LINK_FILE"),
            tunnels: one("GKD_TUNNELS"),
            local: unnamed(all("GKD_LOCAL")),
            remote: unnamed(all("GKD_REMOTE")),
            services: Vec::new(),
            bind: all("GKD_BIND"),
            congestion: one("GKD_CONGESTION"),
            plain: one("GKD_PLAIN"),
            via: one("GKD_VIA"),
            config: one("GKD_CONFIG"),
            log_format: one("GKD_LOG_FORMAT"),
            log_level: None,
            timeouts: Vec::new(),
        }
    }
}

/// Only a file has names.
fn unnamed(texts: Vec<Text>) -> Vec<NamedText> {
    texts.into_iter().map(NamedText::from).collect()
}

/// The environment, as far as it concerns the configuration.
#[derive(Debug, Default)]
pub(crate) struct Environment(HashMap<String, String>);

impl Environment {
    /// That of this process. What is not Unicode is read with replacement characters, and fails where it is
    /// read.
    pub(crate) fn of_process() -> Self {
        let others = ["XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "HOME"];
        let known =
            |name: &str| name.starts_with("GKD_") || others.contains(&name) || super::via::reads(name);
        let variables = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
        Self(variables.filter(|(name, _)| known(name)).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.trim().is_empty())
    }

    /// Where what lives as long as the user is logged in belongs (XDG Base Directory Specification). A path that is not
    /// absolute does not count there.
    #[cfg_attr(not(unix), expect(dead_code, reason = "control sockets are on Unix only"))]
    pub(crate) fn runtime_dir(&self) -> Option<PathBuf> {
        self.get("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|base| base.is_absolute())
    }

    /// Where a file of the configuration may be, the user's own first. The base directory is that of the XDG
    /// Base Directory Specification.
    pub(crate) fn config_files(&self, name: &str) -> Vec<PathBuf> {
        let own = self.get("XDG_CONFIG_HOME").map(PathBuf::from).filter(|base| base.is_absolute());
        let own = own.or_else(|| self.get("HOME").map(|home| PathBuf::from(home).join(".config")));
        let bases = own.into_iter().chain([PathBuf::from("/etc")]);
        bases.map(|base| base.join("gkd").join(name)).collect()
    }
}

#[cfg(test)]
impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}
