//! Accepts on any number of listeners in one task, each with its fair turn: the listeners that have somebody
//! waiting stand in a queue, and one that was served goes to its end. Goes on after every error of `accept`.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::net::{TcpListener, TcpStream};

use crate::seldom::Seldom;

/// How long a listener rests that cannot accept for want of descriptors or memory.
const REST: Duration = Duration::from_millis(100);

/// Gives every connection to `serve`, for ever. What keeps it from accepting is logged `seldom`.
pub(super) async fn accept_all(
    listeners: Vec<TcpListener>,
    seldom: &Seldom,
    mut serve: impl FnMut(TcpStream, SocketAddr),
) {
    let accept = |listener| accept_one(listener, seldom);
    let mut waiting: FuturesUnordered<_> = listeners.into_iter().map(accept).collect();
    while let Some((listener, accepted)) = waiting.next().await {
        if let Some((tcp, address)) = accepted {
            serve(tcp, address);
        }
        waiting.push(accept(listener));
    }
}

async fn accept_one(
    listener: TcpListener,
    seldom: &Seldom,
) -> (TcpListener, Option<(TcpStream, SocketAddr)>) {
    match listener.accept().await {
        Ok(accepted) => (listener, Some(accepted)),
        Err(error) => {
            if !is_of_the_connection(&error) {
                if let Some(more) = seldom.note("accept") {
                    tracing::warn!(
                        %error,
                        "cannot accept connections just now: out of descriptors or memory?{more}"
                    );
                }
                tokio::time::sleep(REST).await;
            }
            (listener, None)
        }
    }
}

/// The error is that of the connection which was to be accepted; the next may be good.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkDown,
        NetworkUnreachable, TimedOut,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | TimedOut
    )
}
