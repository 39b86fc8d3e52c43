//! Users: their names ([`UserName`]), and the commands that add, renew, remove and list them.
//!
//! The commands edit `server.toml` and tell nobody: a running server reads it at the next HUP.

mod edit;

use std::fmt;
use std::str::FromStr;

use gkd_core::identity::{SecretKey, public_text};
use gkd_proxy::program::{self, Failure};

use crate::cli::{PublicOption, UserCommand};
use crate::config::Config;
use crate::dir::{self, Dir};
use crate::public_name::{self, PublicName};
use edit::Edit;

/// The most characters of a name: it stands in log lines.
const MAX_NAME: usize = 64;

/// How a user is called: letters and digits of any script, `-`, `_`, `.`, `@`, `+`, and single blanks within.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct UserName(Box<str>);

/// Words are no user's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NameError {
    Empty,
    TooLong(usize),
    Character(char),
    Blank,
    Dash,
}

impl UserName {
    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let known = |c: char| c.is_alphanumeric() || "-_.@+ ".contains(c);
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        let len = text.chars().count();
        if len > MAX_NAME {
            return Err(NameError::TooLong(len));
        }
        if let Some(c) = text.chars().find(|c| !known(*c)) {
            return Err(NameError::Character(c));
        }
        if text.starts_with(' ') || text.ends_with(' ') || text.contains("  ") {
            return Err(NameError::Blank);
        }
        if text.starts_with('-') {
            return Err(NameError::Dash);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NameError {}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the user's name is empty: write one such as alice"),
            Self::TooLong(len) => {
                write!(f, "the user's name has {len} characters, {MAX_NAME} are the most: shorten it")
            }
            Self::Character(c) => write!(
                f,
                "the user's name has a wrong character, {c:?}: letters, digits, '-', '_', '.', '@', '+' and \
                 single blanks stand in one"
            ),
            Self::Blank => f.write_str(
                "the user's name begins or ends with a blank, or has two in a row: leave them out",
            ),
            Self::Dash => f.write_str("the user's name begins with '-', like an option: begin it otherwise"),
        }
    }
}

/// Does what a `user` command asks for.
pub(crate) fn execute(dir: &Dir, command: UserCommand) -> Result<(), Failure> {
    match command {
        UserCommand::Add { name, reverse, public } => {
            give_key(dir, &name, public, |edit, name, key| edit.add(name, key, &reverse))
        }
        UserCommand::Renew { name, public } => give_key(dir, &name, public, Edit::renew),
        UserCommand::Remove { name } => remove(dir, &name),
        UserCommand::List => list(dir),
    }
}

/// Makes a key for a user, puts the public half into the file, and prints the link with the secret one.
fn give_key(
    dir: &Dir,
    name: &UserName,
    public: PublicOption,
    put: impl FnOnce(&mut Edit, &UserName, &str) -> Result<(), edit::EditError>,
) -> Result<(), Failure> {
    let _lock = lock(dir)?;
    let config = Config::load(dir)?;
    let server = dir.read_key()?.public();
    let public = match public.public.or(config.public) {
        Some(public) => public,
        None => found(&config.listen)?,
    };
    let key = SecretKey::generate();
    let link = public.link(server, key.clone());
    change(dir, |edit| put(edit, name, &public_text(&key.public())))?;
    print_link(&link.to_string(), name)?;
    tell_due(dir);
    Ok(())
}

fn found(listen: &[crate::listen::ListenAddress]) -> Result<PublicName, Failure> {
    let usual = crate::listen::ListenAddress::usual();
    let found = public_name::find(if listen.is_empty() { &usual } else { listen });
    let Some(found) = found else {
        let words = "the port of this server is not known before it runs: say how clients reach it with --public HOST:PORT";
        return Err(Failure::config(words));
    };
    if let Some(note) = found.note {
        eprintln!("{note}");
    }
    Ok(found.name)
}

/// The link alone on standard output. It was made, so a failure must say how to come by another.
pub(crate) fn print_link(link: &str, name: &UserName) -> Result<(), Failure> {
    program::print(format!("{link}\n").as_bytes()).map_err(|failure| {
        Failure::config(format!(
            "{failure}: the link is lost, gkd-server user renew '{name}' makes a new one"
        ))
    })
}

fn remove(dir: &Dir, name: &UserName) -> Result<(), Failure> {
    let _lock = lock(dir)?;
    Config::load(dir)?;
    change(dir, |edit| edit.remove(name))?;
    eprintln!("{name} is removed");
    tell_due(dir);
    Ok(())
}

/// A line for each: the name, a tab, the public key.
fn list(dir: &Dir) -> Result<(), Failure> {
    let users = Config::load(dir)?.users;
    let lines: String =
        users.iter().map(|user| format!("{}\t{}\n", user.name, public_text(&user.key))).collect();
    program::print(lines.as_bytes())?;
    match users.len() {
        0 => eprintln!("there is no user: gkd-server user add NAME makes one"),
        _ => eprintln!(
            "these are public keys; the server keeps no secrets, so an old link cannot be printed again: \
             gkd-server user renew NAME makes a new one"
        ),
    }
    Ok(())
}

fn lock(dir: &Dir) -> Result<Option<std::fs::File>, Failure> {
    // Without a configuration there is nothing to lock; reading it will say so.
    if dir::exists(&dir.config())? { dir.lock().map(Some) } else { Ok(None) }
}

/// Edits the file, which is right before and afterwards.
fn change(dir: &Dir, edit: impl FnOnce(&mut Edit) -> Result<(), edit::EditError>) -> Result<(), Failure> {
    let path = dir.config();
    let wrong = |error: &dyn fmt::Display| Failure::config(format!("{}: {error}", path.display()));
    let mut document = Edit::parse(&dir.read_config()?).map_err(|error| wrong(&error))?;
    edit(&mut document).map_err(|error| wrong(&error))?;
    let text = document.text();
    Config::parse(&text).map_err(|problems| Failure::bug(problems.of(&path)))?;
    dir::replace(&path, &text)
}

fn tell_due(dir: &Dir) {
    eprintln!(
        "{} is changed: a running server takes it up at a HUP (kill -HUP, or systemctl reload), or when it is \
         started anew",
        dir.config().display()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_letters_digits_and_a_few_others() {
        for name in ["alice", "Bob 2", "jürgen@example.org", "a-b_c.d+e", &"x".repeat(64)] {
            assert_eq!(name.parse::<UserName>().unwrap().as_str(), name);
        }
        for name in [
            "",
            " ",
            " a",
            "a ",
            "a  b",
            "-a",
            "a\n",
            "a\u{1b}[31m",
            "a\u{202e}b",
            "a/b",
            "\"",
            &"x".repeat(65),
        ] {
            let words = name.parse::<UserName>().unwrap_err().to_string();
            assert!(!words.contains(char::is_control), "{words:?}");
        }
    }
}
