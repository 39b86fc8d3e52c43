//! From settings to a [`Client`], and from its first failures to a verdict: whether trying on makes sense.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use gkd_core::proto::SessionConfig;
use gkd_core::proto::handshake::RejectCode;
use gkd_core::{Client, ClientBuilder, Error, Path, TunnelDialError};
use gkd_proxy::program::Failure;
use tokio::runtime::Runtime;

use crate::config::Settings;

/// How long the server may take to be told that it is over.
const CLOSE: Duration = Duration::from_secs(2);

/// What a client of these settings is told.
///
/// # Errors
/// There is no link.
pub(crate) fn builder(settings: &Settings) -> Result<ClientBuilder, Failure> {
    if settings.links.is_empty() {
        return Err(Failure::usage(
            "no link: give the line that the server printed, gkd-client 'gkd://KEY@HOST:PORT', or put it into \
             GKD_LINK or a file (--link-file)",
        ));
    }
    let timeouts = &settings.timeouts;
    let builder = Client::builder();
    let builder = if settings.auto { builder.auto_tunnels() } else { builder.tunnels(settings.tunnels) };
    let mut builder = builder
        .congestion(settings.congestion.clone())
        .session(timeouts.session(SessionConfig::default()))
        .dial_timeout(timeouts.handshake);
    for link in &settings.links {
        builder = builder.link(link);
    }
    if let Some(via) = &settings.reaching.via {
        builder = builder.via(via.clone());
    }
    for host in &settings.reaching.direct {
        builder = builder.direct(host.clone());
    }
    for bind in &settings.bind {
        builder = builder.bind(bind.clone());
    }
    Ok(builder)
}

/// What keeps a client from starting at all: what was asked for contradicts itself or cannot be had.
pub(crate) fn cannot_start(error: Error) -> Failure {
    Failure::config(error)
}

/// Waits until all tunnels of a client are up, but no longer than this; how many are.
pub(crate) async fn all_up(client: &Client, within: Duration) -> usize {
    let mut states = client.watch();
    let all = states.wait_for(|state| state.tunnels_up == state.tunnels);
    tokio::time::timeout(within, all).await.ok();
    client.tunnels_up()
}

/// Tells the server that the client has seen enough; it is not waited for long.
pub(crate) async fn close_at_once(client: &Client) {
    tokio::time::timeout(CLOSE, client.close_within(Duration::ZERO)).await.ok();
}

/// The runtime of the program.
pub(crate) fn runtime(builder: &mut tokio::runtime::Builder) -> Result<Runtime, Failure> {
    builder
        .enable_all()
        .build()
        .map_err(|error| Failure::unavailable(format_args!("the system gives no threads or events: {error}")))
}

/// Judges failed dials. A network that is down is no reason to end; a server that refuses is.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// How many paths there are.
    paths: usize,
    /// Those whose server proved another key, or whose proxy wants another password.
    wrong: HashSet<String>,
}

impl Verdict {
    pub(crate) fn new(paths: usize) -> Self {
        Self { paths, wrong: HashSet::new() }
    }

    /// A dial failed: is it of use to go on? `was_up` says whether a tunnel ever was, `up` how many are.
    pub(crate) fn dial_failed(
        &mut self,
        path: &Arc<Path>,
        error: &TunnelDialError,
        was_up: bool,
        up: usize,
    ) -> Result<(), Failure> {
        // Once the server was reached, a stranger in its place, or a proxy that takes the password no more, is a fault of
        // the network, and may go again. Its own
        // word that this user is gone does not, when nothing that came in before is left.
        let counts = if was_up { up == 0 && matches!(error, TunnelDialError::Rejected { .. }) } else { true };
        if !counts || !error.is_final() {
            return Ok(());
        }
        // One of several paths may lead to a stranger, and the others to the server.
        if matches!(error, TunnelDialError::Carrier(_) | TunnelDialError::Proxy(_)) {
            self.wrong.insert(path.to_string());
            if self.wrong.len() < self.paths {
                return Ok(());
            }
        }
        Err(Failure::refused(in_words(error)))
    }
}

/// A failed dial in one sentence with its mend.
pub(crate) fn in_words(error: &TunnelDialError) -> String {
    match error {
        TunnelDialError::Rejected { server, reject } => match reject.code {
            RejectCode::UnknownUser => format!(
                "the server at {server} does not know this link's key: it was removed or renewed there; ask for a \
                 new link"
            ),
            RejectCode::Version => {
                format!(
                    "the server at {server} speaks another version of the protocol: update gkd on both ends"
                )
            }
            _ => error.to_string(),
        },
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use gkd_core::ProxyError;
    use gkd_core::carrier::{CarrierError, CarrierKind};
    use gkd_core::identity::SecretKey;
    use gkd_core::proto::handshake::Reject;

    use super::*;
    use gkd_proxy::program::Status;

    fn path(address: &str) -> Arc<Path> {
        Arc::new(Path {
            address: address.parse().unwrap(),
            bind: None,
            carrier: CarrierKind::Tls,
            via: None,
            web: None,
        })
    }

    fn rejected(code: RejectCode) -> TunnelDialError {
        TunnelDialError::Rejected { server: "a:1".to_owned(), reject: Reject::new(code) }
    }

    fn wrong_key() -> TunnelDialError {
        let key = SecretKey::from_seed([1; 32]).public();
        let server = "the server at a:1".to_owned();
        TunnelDialError::Carrier(CarrierError::WrongKey { server, expected: key, got: key })
    }

    #[test]
    fn an_unknown_user_is_told_at_once() {
        let failure = Verdict::new(2)
            .dial_failed(&path("a:1"), &rejected(RejectCode::UnknownUser), false, 0)
            .unwrap_err();
        assert_eq!(failure.status, Status::Refused);
        assert!(failure.message.starts_with("the server at a:1 does not know this link's key"), "{failure}");
    }

    #[test]
    fn a_wrong_key_ends_when_no_path_has_the_right_one() {
        let mut verdict = Verdict::new(2);
        assert!(verdict.dial_failed(&path("a:1"), &wrong_key(), false, 0).is_ok());
        assert!(verdict.dial_failed(&path("a:1"), &wrong_key(), false, 0).is_ok());
        let failure = verdict.dial_failed(&path("b:1"), &wrong_key(), false, 0).unwrap_err();
        assert_eq!(failure.status, Status::Refused);
        assert!(failure.message.contains("ask for a new link"), "{failure}");
    }

    #[test]
    fn a_user_that_was_removed_is_told_when_no_tunnel_is_left() {
        let mut verdict = Verdict::new(1);
        let removed = rejected(RejectCode::UnknownUser);
        assert!(verdict.dial_failed(&path("a:1"), &removed, true, 1).is_ok());
        assert_eq!(verdict.dial_failed(&path("a:1"), &removed, true, 0).unwrap_err().status, Status::Refused);
        // Another network than before, with a stranger in the server's place.
        assert!(verdict.dial_failed(&path("a:1"), &wrong_key(), true, 0).is_ok());
    }

    #[test]
    fn a_proxy_that_wants_another_password_ends_a_client_that_was_never_up() {
        let refused = || TunnelDialError::Proxy(ProxyError::PasswordRefused { proxy: "p:1".to_owned() });
        let mut verdict = Verdict::new(2);
        assert!(verdict.dial_failed(&path("a:1"), &refused(), false, 0).is_ok());
        let failure = verdict.dial_failed(&path("b:1"), &refused(), false, 0).unwrap_err();
        assert_eq!(failure.status, Status::Refused);
        assert!(failure.message.contains("--via http://USER:PASSWORD@p:1"), "{failure}");
        // Proxies lose sight of their users at times, and networks are changed.
        assert!(verdict.dial_failed(&path("a:1"), &refused(), true, 0).is_ok());
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        let mut verdict = Verdict::new(1);
        for error in [
            rejected(RejectCode::Busy),
            rejected(RejectCode::GoingDown),
            TunnelDialError::TimedOut { server: "a:1".to_owned() },
            TunnelDialError::Proxy(ProxyError::Closed { proxy: "p:1".to_owned() }),
        ] {
            assert!(verdict.dial_failed(&path("a:1"), &error, false, 0).is_ok(), "{error}");
        }
    }
}
