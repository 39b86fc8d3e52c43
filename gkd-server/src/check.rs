//! `gkd-server check`: is the configuration right? Reads what `run` would read, and opens nothing.

use gkd_proxy::program::{self, Failure, count};
use gkd_proxy::service::config::HttpConfig;

use crate::config::Config;
use crate::dir::Dir;
use crate::listen::ListenAddress;

/// Says that the configuration is right.
///
/// # Errors
/// It is not: a line for each mistake.
pub(crate) fn check(dir: &Dir) -> Result<(), Failure> {
    let config = Config::load(dir)?;
    dir.read_key()?;
    config
        .congestion
        .check()
        .map_err(|error| Failure::config(format!("{}: {error}", dir.config().display())))?;
    config.check_site(&dir.config())?;
    config.check_http(&dir.config())?;
    if let Some(warning) = dir.config_warning() {
        eprintln!("warning: {warning}");
    }
    let site = config.site().map(|site| format!(", shows {site} to visitors")).unwrap_or_default();
    let http = config.http().map(services).unwrap_or_default();
    let listen = if config.listen.is_empty() { ListenAddress::usual() } else { config.listen };
    let listen: Vec<_> = listen.iter().map(ToString::to_string).collect();
    let users = match config.users.len() {
        0 => "no user, so that nobody can come in".to_owned(),
        users => count(users, "user"),
    };
    let path = dir.config();
    program::print(
        format!("{} is right: {users}, listens on {}{site}{http}\n", path.display(), listen.join(", "))
            .as_bytes(),
    )
}

/// The front, and how much stands behind it.
fn services(http: &HttpConfig) -> String {
    let listen: Vec<_> = http.listen.iter().map(ToString::to_string).collect();
    format!(", answers for {} at {}", count(http.services.len(), "service"), listen.join(", "))
}
