//! Which Unix sockets of this end a user may reach ([`Paths`]).
//!
//! A path is compared as it is written, part by part as bytes: nothing is looked up here. Whoever dials asks twice, for
//! the path that was asked for and for the one that it leads to, so that no link leads further than these allow.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::destination::{DestinationError, UnixPath};

/// What stands for all sockets of a folder, at the end of its path.
const ALL: &str = "/*";

/// Sockets that may be reached; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths(Box<[PathRule]>);

/// `/run/app.sock`, one socket, or `/run/app/*`, all that stand in one folder, but not in those below it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathRule {
    /// Of the socket, or of the folder.
    path: Box<str>,
    is_folder: bool,
}

/// Words name no sockets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathRuleError {
    /// No absolute path, or one that no socket can have.
    #[error(transparent)]
    Path(#[from] DestinationError),
    /// A part that is none: such a path is written in several ways.
    #[error("\"{}\" holds an empty part, . or ..: write the path without", .0.escape_debug())]
    Part(Box<str>),
    /// A star within, or of the root.
    #[error("\"{}\" holds a * that stands for no sockets of one folder: write /run/app/* for all in /run/app", .0.escape_debug())]
    Star(Box<str>),
}

impl Paths {
    /// Those of all rules.
    pub fn new(rules: impl IntoIterator<Item = PathRule>) -> Self {
        Self(rules.into_iter().collect())
    }

    /// Whether a socket of this path is among them.
    pub fn permit(&self, path: &Path) -> bool {
        self.0.iter().any(|rule| rule.means(path))
    }
}

impl PathRule {
    fn means(&self, path: &Path) -> bool {
        // As bytes: a path's own comparison would pass over what is written in another way.
        let (path, own) = (path.as_os_str().as_encoded_bytes(), self.path.as_bytes());
        if !self.is_folder {
            return path == own;
        }
        let name = path.strip_prefix(own).and_then(|rest| rest.strip_prefix(b"/"));
        name.is_some_and(|name| !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/'))
    }
}

impl FromStr for PathRule {
    type Err = PathRuleError;

    fn from_str(words: &str) -> Result<Self, PathRuleError> {
        let folder = words.strip_suffix(ALL);
        let path = folder.unwrap_or(words);
        if path.contains('*') || folder == Some("") {
            return Err(PathRuleError::Star(words.into()));
        }
        UnixPath::new(words)?;
        let is_none = |part: &str| matches!(part, "" | "." | "..");
        if path.split('/').skip(1).any(is_none) {
            return Err(PathRuleError::Part(words.into()));
        }
        Ok(Self { path: path.into(), is_folder: folder.is_some() })
    }
}

impl fmt::Display for PathRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.path.escape_debug(), if self.is_folder { ALL } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(rules: &[&str]) -> Paths {
        Paths::new(rules.iter().map(|rule| rule.parse().unwrap()))
    }

    #[test]
    fn a_socket_or_those_of_one_folder_are_meant_and_no_other() {
        let all = paths(&["/run/app.sock", "/run/app/*"]);
        for (path, permitted) in [
            ("/run/app.sock", true),
            ("/run/app/a", true),
            ("/run/app/a b.sock", true),
            ("/run/app/..sock", true),
            ("/run/app.sock2", false),
            ("/run/app.soc", false),
            ("/run/app.sock/", false),
            ("/run//app.sock", false),
            ("/run/./app.sock", false),
            ("/run/app/../app.sock", false),
            ("/run/app", false),
            ("/run/app/", false),
            ("/run/app/.", false),
            ("/run/app/..", false),
            ("/run/app/../docker.sock", false),
            ("/run/app//a", false),
            ("/run/app/below/a", false),
            ("/run/application", false),
            ("/RUN/app.sock", false),
            ("run/app.sock", false),
            ("", false),
        ] {
            assert_eq!(all.permit(Path::new(path)), permitted, "{path}");
        }
        assert!(!Paths::default().permit(Path::new("/run/app.sock")));
    }

    #[test]
    fn what_names_no_sockets_is_refused_with_the_mend() {
        let long = format!("/{}", "n".repeat(103));
        for (words, part) in [
            ("", "is no path of a socket"),
            ("app.sock", "is no path of a socket"),
            (&long, "at most 103 bytes"),
            ("/run/\u{1b}[31m", "is no path of a socket"),
            ("/", "holds an empty part"),
            ("/run/app/", "holds an empty part"),
            ("/run//app", "holds an empty part"),
            ("/run/../app", "holds an empty part, . or .."),
            ("/run/./app/*", "holds an empty part, . or .."),
            ("/*", "write /run/app/* for all in /run/app"),
            ("/run/*.sock", "write /run/app/*"),
            ("/run/*/app", "write /run/app/*"),
            ("*", "write /run/app/*"),
        ] {
            let error = words.parse::<PathRule>().unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains(char::is_control), "{words:?}: {error}");
        }
        for words in ["/run/app.sock", "/run/app/*"] {
            assert_eq!(words.parse::<PathRule>().unwrap().to_string(), words);
        }
    }
}
