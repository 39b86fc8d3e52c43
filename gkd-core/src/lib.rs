//! The tokio runtime of gkd: one TCP connection as fast as many.
//!
//! A [`Client`] and a [`Server`] hold N real TCP connections, the tunnels. Every [`Connection`] that a program
//! opens is cut into packets that all tunnels share; the other end puts them in order again. A tunnel that dies
//! costs nothing, it is dialled again.
//!
//! ```no_run
//! use gkd_core::{Client, Server};
//! use tokio::io::{self, AsyncReadExt, AsyncWriteExt};
//!
//! # async fn echo() -> gkd_core::Result<()> {
//! let server = Server::bind("0.0.0.0:9990").await?;
//! tokio::spawn(async move {
//!     while let Some((conn, _)) = server.accept().await {
//!         tokio::spawn(async move {
//!             let (r, w) = &mut (&conn, &conn);
//!             io::copy(r, w).await
//!         });
//!     }
//! });
//!
//! let client = Client::connect("127.0.0.1:9990", 4).await?;
//! let mut conn = client.get_connection().await?;
//! conn.write_all(&[1, 1, 1]).await?;
//! conn.read_exact(&mut [0; 3]).await?;
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! The calls above take the unencrypted carrier and any key. [`Client::builder`] and [`Server::builder`] have
//! TLS with raw public keys, [links](link::Link), several paths, windows, limits, and who may come in.
//! [`connect_streams`] and [`accept_streams`] make a session of streams that the caller brings.
//!
//! This crate offers no proxy and reads no file; of proxy protocols it knows the CONNECT that leads a client through one
//! ([`Via`]). What travels is decided in `gkd-proto`, which it drives; a destination is a string of bytes to it.

mod backoff;
pub mod buffers;
pub mod carrier;
mod client;
mod connection;
mod error;
pub mod fair_limit;
mod handshake;
pub mod identity;
pub mod link;
mod manager;
pub mod probe;
mod registry;
mod runtime;
pub mod seldom;
mod server;
mod session;
pub mod socket;
mod streams;
mod tunnel;

pub use client::{
    Client, ClientBuilder, ClientEvent, ClientState, DEFAULT_TUNNELS, IntoAddress, MAX_TUNNELS, Path,
    ProxyError, TunnelDialError, TunnelPlace, Via, ViaError,
};
pub use connection::Connection;
pub use error::{ConnectError, ConnectionReset, Error, Result, WriteAllByError};
pub use manager::SessionEnd;
pub use server::{
    Admission, Authorise, OnSession, Server, ServerBuilder, ServerStats, ShutdownHandle, Usage,
};
pub use session::SessionHandle;
pub use streams::{Multiplexer, accept_streams, connect_streams};

/// The sans-IO protocol that this crate drives: ids, codes and figures come from there.
pub use gkd_proto as proto;
