//! The mappings between a program or destination, whose socket is here, and a connection of a session: for listeners of
//! this end ([`from_ws`], [`to_ws`]), and behind those of the other ([`behind`]).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::accept::{Refusal, accept};
use super::connect::{Connect, connect};
use super::copy::{Copied, Copying, Watch};
use super::form::{FromWs, Mapping, ToWs};
use super::side::{Socket, Virtual};
use super::{WsConfig, WsError, WsUrl};
use crate::connection::{Opener, VirtualConnection};
use crate::destination::Destination;
use crate::outlet::Outlet;
use crate::proxy_header;
use crate::slots::Slot;
use crate::socket::{self, StreamSocket};

/// Serves a program that speaks WebSocket over a connection to a plain destination. `first` goes there ahead of what the
/// program sends.
pub(crate) async fn from_ws<O: Opener>(
    socket: &mut TcpStream,
    first: Bytes,
    to: &Destination,
    options: &FromWs,
    slot: Slot,
    outlet: &Outlet<O>,
) {
    let (reader, writer) = socket.split();
    let socket: &TcpStream = writer.as_ref();
    let reach = || async {
        let refused = |error| Refusal::not_reached(&to.to_string(), &error);
        let connection = outlet.open(to).await.map_err(refused)?;
        if options.strict {
            outlet.reached(to, &connection).await.map_err(refused)?;
        }
        Ok(connection)
    };
    let overdue = async move {
        let overdue = slot.overdue().await;
        tracing::debug!("a program was closed before it asked for a WebSocket: {overdue}");
        WsError::TimedOut
    };
    let side = Socket { reader, socket };
    let (ws, connection) = match Box::pin(accept(side, &options.accept, overdue, reach)).await {
        Ok(opened) => opened,
        Err(error) => return tracing::debug!("no WebSocket for a program: {error}"),
    };
    let time = outlet.half_closed_for();
    let copied = Copying::new(ws, Virtual(&connection), first, &options.messages, time)
        .watching(Some(socket_lost(socket)), Some(connection_lost(&connection)))
        .run()
        .await;
    outlet.mapped(to, &connection, &copied);
}

/// Serves a program that does not speak WebSocket over a connection to a WebSocket server.
pub(crate) async fn to_ws<O: Opener>(
    socket: &mut TcpStream,
    to: &Destination,
    url: &WsUrl,
    options: &ToWs,
    outlet: &Outlet<O>,
) {
    // It was logged why.
    let Ok(connection) = Box::pin(outlet.open(to)).await else { return socket::reset_on_drop(socket) };
    let (reader, writer) = socket.split();
    let socket: &TcpStream = writer.as_ref();
    let asked = Connect { url, protocol: options.protocol.as_deref(), tls: None };
    let opened = tokio::select! {
        opened = outlet.opened_in_time(connect(Virtual(&connection), asked)) => opened,
        error = socket_lost(socket) => Err(WsError::Plain(error)),
    };
    let copied = match opened {
        Ok(ws) => {
            let (side, time) = (Socket { reader, socket }, outlet.half_closed_for());
            Copying::new(ws, side, Bytes::new(), &options.messages, time)
                .watching(Some(connection_lost(&connection)), Some(socket_lost(socket)))
                .run()
                .await
        }
        Err(error) => {
            connection.reset(gkd_core::proto::packet::ResetCode::STREAM);
            socket::reset_on_drop(socket);
            // The program learns no more than a reset, so the log says why. Where the dial failed, it will say that.
            if !matches!(error, WsError::Plain(_))
                && !matches!(connection.connected().now_or_never(), Some(Err(_)))
            {
                outlet.complain(&format!("{url}: {error}"));
            }
            Err(error)
        }
    };
    outlet.mapped(to, &connection, &copied);
}

/// Serves a connection that a program opened which came to a listener of the other end; `socket` is that of the
/// destination.
pub(crate) async fn behind<S: StreamSocket, C: VirtualConnection>(
    connection: &C,
    socket: &mut S,
    mapping: &Mapping,
    half_closed_for: Duration,
) -> Result<Copied, WsError> {
    let mapped = match mapping {
        Mapping::FromWs(options) => behind_from_ws(connection, socket, options, half_closed_for).await,
        Mapping::ToWs(url, options) => {
            behind_to_ws(connection, socket, (url, options), half_closed_for).await
        }
    };
    if mapped.is_err() {
        // Without effect where it has ended.
        connection.reset(gkd_core::proto::packet::ResetCode::STREAM);
        socket.reset_on_drop();
    }
    mapped
}

async fn behind_from_ws<S: StreamSocket, C: VirtualConnection>(
    connection: &C,
    socket: &mut S,
    options: &FromWs,
    half_closed_for: Duration,
) -> Result<Copied, WsError> {
    let mut side = Virtual(connection);
    let limit = WsConfig::default().handshake_timeout;
    let first = match options.proxy_header {
        // The other end put it ahead of all that the program sends; it belongs to the destination.
        true => timeout(limit, take_proxy_header(&mut side)).await.unwrap_or(Err(WsError::TimedOut))?,
        false => Bytes::new(),
    };
    let overdue = async {
        tokio::time::sleep(limit).await;
        WsError::TimedOut
    };
    let (ws, ()) = Box::pin(accept(side, &options.accept, overdue, || async { Ok(()) })).await?;
    let (reader, writer) = socket.split();
    let socket: &S = writer.as_ref();
    Copying::new(ws, Socket { reader, socket }, first, &options.messages, half_closed_for)
        .watching(Some(connection_lost(connection)), Some(socket_lost(socket)))
        .run()
        .await
}

async fn behind_to_ws<S: StreamSocket, C: VirtualConnection>(
    connection: &C,
    socket: &mut S,
    (url, options): (&WsUrl, &ToWs),
    half_closed_for: Duration,
) -> Result<Copied, WsError> {
    let (reader, writer) = socket.split();
    let socket: &S = writer.as_ref();
    let asked = Connect { url, protocol: options.protocol.as_deref(), tls: None };
    let connected = Box::pin(connect(Socket { reader, socket }, asked));
    let ws = timeout(WsConfig::default().handshake_timeout, connected).await;
    let ws = ws.unwrap_or(Err(WsError::TimedOut))?;
    Copying::new(ws, Virtual(connection), Bytes::new(), &options.messages, half_closed_for)
        .watching(Some(socket_lost(socket)), Some(connection_lost(connection)))
        .run()
        .await
}

/// Reads the header of the PROXY protocol, as it is.
async fn take_proxy_header<C: VirtualConnection>(side: &mut Virtual<'_, C>) -> Result<Bytes, WsError> {
    let mut header = BytesMut::zeroed(proxy_header::HEAD);
    side.read_exact(&mut header).await.map_err(WsError::Lost)?;
    let Some(rest) = proxy_header::rest(&header) else {
        return Err(WsError::Protocol("the header of the PROXY protocol is missing".to_owned()));
    };
    header.resize(proxy_header::HEAD + rest, 0);
    side.read_exact(&mut header[proxy_header::HEAD..]).await.map_err(WsError::Lost)?;
    Ok(header.freeze())
}

/// Waits for a reset of the socket.
fn socket_lost<S: StreamSocket>(socket: &S) -> Watch<'_> {
    Box::pin(socket.error())
}

/// Waits for a reset of the connection.
fn connection_lost<C: VirtualConnection>(connection: &C) -> Watch<'_> {
    Box::pin(async {
        connection.lost().await;
        std::io::ErrorKind::ConnectionReset.into()
    })
}
