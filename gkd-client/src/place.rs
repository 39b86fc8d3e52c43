//! Where the control sockets of running clients are, and who answers there.
//!
//! A client has no directory of its own, and a user may run several: each has a socket `client-PID.sock` in
//! `$XDG_RUNTIME_DIR/gkd`, which is the user's alone and goes when the user does, or without that variable in
//! `/tmp/gkd-UID`, which is made for the user alone and refused when it is not. Whoever asks looks into both, and into
//! `/run/user/UID/gkd` as well, so that a client is found from where the variable is not set: by cron, or behind su.
//! `/tmp` is taken as it is, whatever TMPDIR says, for the two may differ in that as well.

use gkd_proxy::program::Failure;
use gkd_proxy::program::control::{AskError, Control, ControlError};
use serde_json::Value;

use crate::PROGRAM;
use crate::config::Environment;

/// What all sockets' names begin and end with, the process id between.
#[cfg(unix)]
const NAME: (&str, &str) = ("client-", ".sock");

/// The most sockets that are looked at.
#[cfg(unix)]
const MOST: usize = 256;

/// A client that answered.
pub(crate) struct Found {
    pub(crate) pid: u32,
    pub(crate) answer: Value,
}

/// The control socket of this client. Without one it runs all the same, and says so.
pub(crate) async fn open(environment: &Environment) -> Control {
    match try_open(environment).await {
        Ok(control) => control,
        Err(ControlError::Unsupported) => Control::none(),
        Err(error) => {
            tracing::warn!(
                "there is no control socket, so gkd-client status does not find this client: {error}"
            );
            Control::none()
        }
    }
}

#[cfg(unix)]
async fn try_open(environment: &Environment) -> Result<Control, ControlError> {
    use gkd_proxy::program::control::{make_own_folder, remove_dead};

    let (begin, end) = NAME;
    let name = format!("{begin}{}{end}", std::process::id());
    let mut first = None;
    for folder in [runtime_folder(environment), Some(folder_in_tmp())].into_iter().flatten() {
        let open = async {
            make_own_folder(&folder)?;
            // Clients that were killed could not.
            remove_dead(&folder, |name| pid_of(name).is_some()).await;
            Control::open(PROGRAM, &folder.join(&name)).await
        };
        match open.await {
            Ok(control) => return Ok(control),
            Err(error) => _ = first.get_or_insert(error),
        }
    }
    Err(first.unwrap_or(ControlError::Unsupported))
}

#[cfg(not(unix))]
async fn try_open(_environment: &Environment) -> Result<Control, ControlError> {
    Err(ControlError::Unsupported)
}

/// The client of this process id, or all that answer.
///
/// # Errors
/// None does.
#[cfg(unix)]
pub(crate) fn ask(environment: &Environment, pid: Option<u32>, command: &str) -> Result<Vec<Found>, Failure> {
    use gkd_proxy::program::control::{check_own_folder, user_id};

    let of_user = std::path::PathBuf::from(format!("/run/user/{}/gkd", user_id()));
    let mut folders: Vec<_> = [runtime_folder(environment), Some(of_user), Some(folder_in_tmp())].into();
    folders.dedup();
    let mut found = Vec::new();
    let mut wrong = Vec::new();
    for folder in folders.into_iter().flatten().filter(|folder| folder.exists()) {
        // Whoever else can write there could answer anything.
        if let Err(error) = check_own_folder(&folder) {
            wrong.push(error.to_string());
            continue;
        }
        for (number, path) in sockets(&folder).into_iter().filter(|(it, _)| pid.is_none_or(|pid| pid == *it))
        {
            match gkd_proxy::program::control::ask(PROGRAM, &path, command) {
                Ok(answer) => found.push(Found { pid: number, answer }),
                Err(AskError::Nobody(_)) => {}
                Err(error) => wrong.push(error.to_string()),
            }
        }
    }
    if !found.is_empty() {
        return Ok(found);
    }
    let whom = match pid {
        Some(pid) => format!("no client of this user with process id {pid} runs"),
        None => "no client of this user runs".to_owned(),
    };
    let looked: String = wrong.iter().map(|error| format!("; {error}")).collect();
    Err(Failure::unavailable(format_args!("{whom}: gkd-client LINK starts one{looked}")))
}

/// The client of this process id, or all that answer.
///
/// # Errors
/// None does: this system has no such sockets.
#[cfg(not(unix))]
pub(crate) fn ask(_: &Environment, _pid: Option<u32>, _command: &str) -> Result<Vec<Found>, Failure> {
    Err(Failure::unavailable(AskError::Unsupported))
}

#[cfg(unix)]
fn runtime_folder(environment: &Environment) -> Option<std::path::PathBuf> {
    environment.runtime_dir().map(|base| base.join("gkd"))
}

#[cfg(unix)]
fn folder_in_tmp() -> std::path::PathBuf {
    format!("/tmp/gkd-{}", gkd_proxy::program::control::user_id()).into()
}

/// The sockets of clients in a folder, by process id.
#[cfg(unix)]
fn sockets(folder: &std::path::Path) -> Vec<(u32, std::path::PathBuf)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let client = |entry: std::fs::DirEntry| Some((pid_of(entry.file_name().to_str()?)?, entry.path()));
    let mut sockets: Vec<_> = entries.flatten().filter_map(client).take(MOST).collect();
    sockets.sort_unstable();
    sockets
}

#[cfg(unix)]
fn pid_of(name: &str) -> Option<u32> {
    let (begin, end) = NAME;
    name.strip_prefix(begin)?.strip_suffix(end)?.parse().ok()
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_known_by_their_names() {
        for (name, pid) in [
            ("client-12.sock", Some(12)),
            ("client-.sock", None),
            ("client-x.sock", None),
            ("client-12.sock~", None),
            ("server-12.sock", None),
        ] {
            assert_eq!(pid_of(name), pid, "{name}");
        }
    }

    #[tokio::test]
    async fn the_runtime_directory_goes_first_and_what_a_killed_client_left_there_goes() {
        let base = tempfile::tempdir().unwrap();
        let environment = Environment::from([("XDG_RUNTIME_DIR", base.path().to_str().unwrap())]);
        let folder = base.path().join("gkd");
        std::fs::create_dir(&folder).unwrap();
        for name in ["client-1.sock", "other.sock"] {
            drop(std::os::unix::net::UnixListener::bind(folder.join(name)).unwrap());
        }
        let control = try_open(&environment).await.unwrap();
        assert!(folder.join(format!("client-{}.sock", std::process::id())).exists());
        assert!(!folder.join("client-1.sock").exists() && folder.join("other.sock").exists());
        drop(control);
        assert_eq!(sockets(&folder), []);
    }

    #[tokio::test]
    async fn a_runtime_directory_that_is_not_there_leaves_the_other_place() {
        let environment = Environment::from([("XDG_RUNTIME_DIR", "/no/where")]);
        drop(try_open(&environment).await.unwrap());
    }
}
