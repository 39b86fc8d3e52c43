//! Users: their names ([`UserName`]), and the commands that add, renew, remove and list them.
//!
//! The commands edit `server.toml`, and then have the server that runs on the same directory read it anew, as it does at
//! a HUP. What it answered, or that none did, is told on standard error.

mod edit;

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use gkd_core::identity::{SecretKey, public_text};
use gkd_proxy::program::control::AskError;
use gkd_proxy::program::{self, Failure};

use crate::cli::{PublicOption, UserCommand};
use crate::config::{Config, User};
use crate::dir::{self, Dir};
use crate::public_name::{self, PublicName};
use crate::run::Reloaded;
use crate::status::{self, UserSessions};
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
    let lock = lock(dir)?;
    let config = Config::load(dir)?;
    let server = dir.read_key()?.public();
    let public = match public.public.or(config.public) {
        Some(public) => public,
        None => found(&config.listen)?,
    };
    let key = SecretKey::generate();
    let link = public.link(server, key.clone());
    change(dir, |edit| put(edit, name, &public_text(&key.public())))?;
    drop(lock);
    // Before the link, which nobody may take: the old one has ended all the same.
    tell_server(dir);
    print_link(&link.to_string(), name)
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
    let lock = lock(dir)?;
    Config::load(dir)?;
    change(dir, |edit| edit.remove(name))?;
    drop(lock);
    eprintln!("{name} is removed");
    tell_server(dir);
    Ok(())
}

/// A line for each: the name, a tab, the public key; and where a server answers, a tab and how many sessions there are.
fn list(dir: &Dir) -> Result<(), Failure> {
    let users = Config::load(dir)?.users;
    let live = live_sessions(dir);
    let line = |user: &User| {
        let sessions = live.as_ref().map(|live| live.get(user.name.as_str()).copied().unwrap_or(0));
        let sessions =
            sessions.map(|live| format!("\t{}", program::count(live, "session"))).unwrap_or_default();
        format!("{}\t{}{sessions}\n", user.name, public_text(&user.key))
    };
    let lines: String = users.iter().map(line).collect();
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
    // A user who is removed may be one that a service names.
    Config::parse(&text).map_err(|problems| {
        let words = problems.of(&path);
        Failure::config(format!("nothing is changed, for the file would be wrong then: {words}"))
    })?;
    dir::replace(&path, &text)
}

/// How many sessions each user has, where a server answers.
fn live_sessions(dir: &Dir) -> Option<HashMap<String, usize>> {
    let users: Vec<UserSessions> = serde_json::from_value(status::ask(dir, status::USERS).ok()?).ok()?;
    Some(users.into_iter().map(|user| (user.name, user.sessions)).collect())
}

/// Has the running server read the file that was changed, and says what came of it. The file is changed either way.
fn tell_server(dir: &Dir) {
    let path = dir.config();
    let path = path.display();
    let due = "at a HUP (kill -HUP, or systemctl reload)";
    match status::ask(dir, status::RELOAD).map(serde_json::from_value::<Reloaded>) {
        Ok(Ok(reloaded)) => {
            eprintln!(
                "the running server took it over: {} ended",
                program::count(reloaded.sessions_ended, "session")
            );
            for setting in reloaded.restart {
                eprintln!("{setting} differs from what it was started with: that takes a restart");
            }
        }
        Err(AskError::Nobody(socket)) => eprintln!(
            "{path} is changed, and no server was found that runs on it (none answers at {}): one that runs \
             nevertheless takes it up {due}, any other when it is started",
            socket.display()
        ),
        Err(AskError::Refused(words)) => eprintln!("the running server did not take it over: {words}"),
        Ok(Err(error)) => eprintln!("the running server answered otherwise ({error}): it takes it up {due}"),
        Err(error) => eprintln!("{path} is changed, and {error}: it takes it up {due}"),
    }
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
