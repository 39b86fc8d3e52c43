//! What carries the bytes of a destination that was reached, until both directions have ended or rules come into force that
//! forbid it ([`Reached`]).

use std::net::SocketAddr;
#[cfg(unix)]
use std::path::{Path, PathBuf};

use bytes::Bytes;
use gkd_core::fair_limit::FairPlace;
use gkd_core::proto::id::PeerId;
use gkd_core::proto::packet::ResetCode;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::net::{TcpStream, UdpSocket};

use super::{Exit, ExitError};
use crate::connection::VirtualConnection;
use crate::destination::{Destination, Target};
use crate::dial::{DialCause, DialFailure};
use crate::policy::{InForce, Seen};
use crate::relay::{End, Relayed, relay};
use crate::rules::Denial;
use crate::socket::StreamSocket;
use crate::udp::exit::{Guide, to_any, to_one};
use crate::ws::form::Mapping;
use crate::ws::serve::behind;

/// A Unix socket, and by rules the path that it really has; none where this end itself named it.
#[cfg(unix)]
pub(super) struct UnixSocket {
    pub(super) stream: UnixStream,
    pub(super) real: Option<PathBuf>,
}

/// What the rules judge of a destination that was reached.
pub(super) struct Goal {
    pub(super) destination: Destination,
    /// Its address, where it has one.
    pub(super) address: Option<SocketAddr>,
}

/// A destination that was reached.
pub(super) struct Reached<S> {
    pub(super) socket: S,
    pub(super) goal: Goal,
    /// The policy that it was dialled by.
    pub(super) seen: Seen,
    /// None where the connection's bytes are the destination's.
    pub(super) mapping: Option<Box<Mapping>>,
    /// What a relay read of the socket and the connection has not accepted.
    pub(super) unsent: Bytes,
    pub(super) _place: Option<FairPlace>,
}

impl<S> Reached<S> {
    pub(super) fn map_socket<T>(self, map: impl FnOnce(S) -> T) -> Reached<T> {
        let Self { socket, goal, seen, mapping, unsent, _place } = self;
        Reached { socket: map(socket), goal, seen, mapping, unsent, _place }
    }
}

impl Exit {
    /// Carries bytes until both directions have ended. No function that is async itself: it would keep its arguments twice,
    /// and most connections wait in it.
    #[expect(clippy::manual_async_fn, reason = "it would keep its arguments twice")]
    pub(super) fn relay<'a, C: VirtualConnection>(
        &'a self,
        connection: &'a C,
        reached: &'a mut Reached<TcpStream>,
    ) -> impl Future<Output = Result<Relayed, ExitError>> + Send + 'a {
        async move {
            let Reached { socket, goal, seen, unsent, .. } = reached;
            let relayed = tokio::select! {
                // A connection that ended with its session ended for that, and not for rules that changed with it.
                biased;
                relayed = relay(socket, connection, unsent, &self.relay) => relayed,
                // The relay resets both sides when it is dropped.
                denial = forbidden(&self.policy, *seen, connection, goal) => {
                    return Err(ExitError::Forbidden(goal.destination.clone(), denial));
                }
            };
            let Relayed { up, down, end } = &relayed;
            tracing::debug!("{}: {down} bytes up, {up} down, {end:?}", goal.destination);
            Ok(relayed)
        }
    }

    /// The same over a Unix socket.
    #[cfg(unix)]
    pub(super) async fn relay_unix<C: VirtualConnection>(
        &self,
        connection: &C,
        reached: Reached<UnixSocket>,
    ) -> Result<Relayed, ExitError> {
        let Reached { socket: UnixSocket { mut stream, real }, goal, seen, mut unsent, .. } = reached;
        let relayed = tokio::select! {
            // As above.
            biased;
            relayed = relay(&mut stream, connection, &mut unsent, &self.relay) => relayed,
            denial = forbidden_socket(&self.policy, seen, connection, &goal.destination, &real) => {
                return Err(ExitError::Forbidden(goal.destination, denial));
            }
        };
        let Relayed { up, down, end } = &relayed;
        tracing::debug!("{}: {down} bytes up, {up} down, {end:?}", goal.destination);
        Ok(relayed)
    }

    /// Carries bytes between WebSocket and what is plain.
    pub(super) async fn map<C: VirtualConnection, S: StreamSocket>(
        &self,
        connection: &C,
        mut reached: Reached<S>,
    ) -> Result<Relayed, ExitError> {
        let Some(mapping) = &reached.mapping else {
            return Err(ExitError::NotOffered(reached.goal.destination));
        };
        let mapped = tokio::select! {
            biased;
            mapped = behind(connection, &mut reached.socket, mapping, self.relay.half_closed_for) => mapped,
            // What is dropped resets both sides.
            denial = forbidden(&self.policy, reached.seen, connection, &reached.goal) => {
                return Err(ExitError::Forbidden(reached.goal.destination, denial));
            }
        };
        let copied = mapped.map_err(|error| ExitError::WebSocket(reached.goal.destination.clone(), error))?;
        tracing::debug!(
            "{}: {} bytes to WebSocket, {} from it",
            reached.goal.destination,
            copied.to_ws,
            copied.to_plain
        );
        let (up, down) = match **mapping {
            Mapping::FromWs(_) => (copied.to_ws, copied.to_plain),
            Mapping::ToWs(..) => (copied.to_plain, copied.to_ws),
        };
        Ok(Relayed { up, down, end: End::Finished })
    }

    /// Carries datagrams until either end has enough.
    pub(super) async fn relay_datagrams<C: VirtualConnection>(
        &self,
        connection: &C,
        reached: Reached<UdpSocket>,
    ) -> Result<Relayed, ExitError> {
        let relayed = tokio::select! {
            relayed = to_one(connection, &reached.socket, self.idle()) => relayed,
            denial = forbidden(&self.policy, reached.seen, connection, &reached.goal) => {
                connection.reset(ResetCode::APPLICATION);
                return Err(ExitError::Forbidden(reached.goal.destination, denial));
            }
        };
        let Relayed { up, down, end } = &relayed;
        tracing::debug!("{}: {down} bytes up, {up} down, {end:?}", reached.goal.destination);
        Ok(relayed)
    }

    /// Carries datagrams, each to where it says.
    pub(super) async fn relay_to_any<C: VirtualConnection>(
        &self,
        connection: &C,
    ) -> Result<Relayed, ExitError> {
        connection.confirm(Ok(()));
        let guide = DatagramGuide { exit: self, peer: connection.peer() };
        let relayed = to_any(connection, &guide, self.idle()).await;
        let Relayed { up, down, end } = &relayed;
        tracing::debug!("datagrams: {down} bytes up, {up} down, {end:?}");
        Ok(relayed)
    }
}

/// Where the datagrams of one peer may go.
struct DatagramGuide<'a> {
    exit: &'a Exit,
    peer: PeerId,
}

impl Guide for DatagramGuide<'_> {
    type Place = Option<FairPlace>;

    async fn resolve(&self, target: Target) -> Result<Vec<SocketAddr>, DialFailure> {
        self.exit.dialer.resolve(self.peer, &target).await
    }

    fn permits(&self, target: &Target, address: SocketAddr) -> bool {
        let judged = self.exit.policy.terms(self.peer).rules.check(target.host().name(), address);
        if let Err(denial) = judged {
            let cause = DialCause::Denied(address.ip(), denial);
            self.exit.complain(self.peer, &ExitError::Dial(Destination::Udp(target.clone()), cause.into()));
        }
        judged.is_ok()
    }

    fn place(&self) -> Option<Option<FairPlace>> {
        let place = self.exit.place(self.peer).ok();
        if place.is_none() {
            self.exit.complain(self.peer, &ExitError::Busy(Destination::UdpAny));
        }
        place
    }
}

/// Waits until rules come into force that forbid this address. One that is not known is gone, and forbidden to nobody.
fn forbidden<'a, C: VirtualConnection>(
    policy: &'a InForce,
    seen: Seen,
    connection: &'a C,
    goal: &'a Goal,
) -> impl Future<Output = Denial> + Send + 'a {
    policy.forbidden(seen, move |policy| {
        let rules = &policy.terms(connection.peer()).rules;
        goal.address.and_then(|address| rules.check(goal.destination.name(), address).err())
    })
}

/// The same of a Unix socket: its path as it was asked for, and the one that it really has.
#[cfg(unix)]
fn forbidden_socket<'a, C: VirtualConnection>(
    policy: &'a InForce,
    seen: Seen,
    connection: &'a C,
    destination: &'a Destination,
    real: &'a Option<PathBuf>,
) -> impl Future<Output = Denial> + Send + 'a {
    policy.forbidden(seen, move |policy| {
        let (Destination::Unix(asked), Some(real)) = (destination, real) else { return None };
        let rules = &policy.terms(connection.peer()).rules;
        rules.check_path(Path::new(asked.as_str())).and_then(|()| rules.check_path(real)).err()
    })
}
