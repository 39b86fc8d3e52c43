//! One TCP connection, as fast as many.
//!
//! gkd carries each connection of a program over N real TCP connections at once, the tunnels, and puts it in
//! order again at the other end. A line that gives one TCP connection a fraction of its bandwidth (loss, a
//! long way, a limit per connection) then gives a single download the sum of N. A tunnel that dies costs
//! nothing but its share: what it carried goes out on the others, and it is dialled again.
//!
//! This crate is the library, for programs of which both ends are yours. (To speed up programs as they are,
//! there are the binaries `gkd-server` and `gkd-client`, a proxy.)
//!
//! # A server
//! ```no_run
//! use gkd::Server;
//! use tokio::io;
//!
//! # async fn server() -> gkd::Result<()> {
//! let server = Server::bind("0.0.0.0:9990").await?;
//! while let Some((conn, addr)) = server.accept().await {
//!     tokio::spawn(async move {
//!         let (r, w) = &mut (&conn, &conn);
//!         io::copy(r, w).await.unwrap();
//!     });
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # A client, over four tunnels
//! ```no_run
//! use gkd::Client;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # async fn client() -> gkd::Result<()> {
//! let client = Client::connect("127.0.0.1:9990", 4).await?;
//! let mut conn = client.get_connection().await?;
//! conn.write_all(&[1, 1, 1]).await?;
//! conn.read_exact(&mut [0; 3]).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A [`Connection`] reads and writes as a TCP stream does: tokio's `AsyncRead` and `AsyncWrite`, each half
//! closed on its own, dropped as a kernel's socket is.
//!
//! # Encrypted, with keys
//! The calls above take the unencrypted carrier and any key, for paths that are trusted. The builders have TLS 1.3
//! with an Ed25519 key at each end and no certificates:
//!
//! ```
//! use gkd::identity::SecretKey;
//! use gkd::link::Link;
//! use gkd::{Client, Server};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let user = SecretKey::generate();
//! let known = user.public();
//! let server = Server::builder()
//!     .listen("127.0.0.1:0")
//!     .authorise(move |peer| match *peer == known {
//!         true => Ok(gkd::Admission::default()),
//!         false => Err(gkd::proto::handshake::Reject::new(
//!             gkd::proto::handshake::RejectCode::UnknownUser,
//!         )),
//!     })
//!     .bind()
//!     .await?;
//!
//! // All that the user needs, in one line of text: addresses, the server's key, the user's own.
//! let address = server.local_addr()?.to_string().parse()?;
//! let link = Link::new(server.key(), user, vec![address]).to_string();
//!
//! let client = Client::builder().link(&link.parse()?).tunnels(4).connect().await?;
//! let mut conn = client.get_connection().await?;
//! conn.write_all(b"hello").await?;
//!
//! let (mut accepted, _) = server.accept().await.ok_or("the server was shut down")?;
//! let mut buf = [0; 5];
//! accepted.read_exact(&mut buf).await?;
//! assert_eq!((&buf, accepted.peer()), (b"hello", known));
//! # Ok(())
//! # }
//! ```
//!
//! # Other runtimes
//! With the feature `futures-io`, [`Connection`] has the traits of `futures` as well, and outside of a tokio
//! runtime [`Client`] and [`Server`] start one of their own: the programs above run unchanged on async-std and smol,
//! as `examples/async-std` and `examples/smol` show.
//!
//! # WebSocket
//! `StreamToWs` and `WsToStream` (with the feature `websocket`, which is on by default) carry a plain stream to a
//! WebSocket server and a WebSocket client to a plain stream: with a [`Connection`] for either side a tunnel is in
//! between, and without one they work as well.
//!
//! ```no_run
//! use gkd::{Client, StreamToWs, WsToStream};
//! use tokio::net::TcpListener;
//!
//! # #[cfg(feature = "websocket")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // Plain TCP on 8082 leads to a WebSocket server.
//! let (io, _) = TcpListener::bind("127.0.0.1:8082").await?.accept().await?;
//! StreamToWs::new(io, "ws://127.0.0.1:8081/path").copy_bidirectional().await?;
//!
//! // WebSocket on 8081 leads to what the other end of a tunnel has.
//! let client = Client::connect("127.0.0.1:9990", 4).await?;
//! let (io, _) = TcpListener::bind("127.0.0.1:8081").await?.accept().await?;
//! WsToStream::over(io, client.get_connection().await?).copy_bidirectional().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # More
//! Both ends open connections and both accept ([`Client::accept`], [`SessionHandle::open`]). [`connect_streams`]
//! and [`accept_streams`] make a session of streams that the caller brings; [`probe`] tells whether a server
//! speaks gkd. What travels stands in `docs/PROTOCOL.md`; the protocol alone, without any IO, is the crate
//! `gkd-proto`, here as [`proto`].

#![forbid(unsafe_code)]

#[doc(inline)]
pub use gkd_core::*;
#[cfg(feature = "websocket")]
#[doc(inline)]
pub use gkd_proxy::ws::{self, StreamToWs, WsToStream};
