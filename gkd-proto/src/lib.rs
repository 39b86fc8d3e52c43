//! The protocol of gkd, without IO: virtual connections striped over N tunnels.
//!
//! A [`Session`] is one end of what a client and a server share. It is given bytes, time and carriers, and tells
//! what to write where; it opens nothing, reads no clock and spawns nothing, so that it runs on any runtime and is
//! tested in virtual time. Usable alone as well: the [packet codec](packet), the [`ReorderBuffer`], and the
//! accounts of [credit].
//!
//! # The run loop
//! Mutate, then drain until there is nothing more. Two sessions over one perfect tunnel:
//!
//! ```
//! use std::{sync::Arc, time::Instant};
//! use bytes::{Buf, Bytes, BytesMut};
//! use gkd_proto::id::{BootId, SessionId, Side};
//! use gkd_proto::{Event, Read, Session, SessionConfig, Transmit};
//!
//! let (now, id, config) = (Instant::now(), SessionId([1; 16]), Arc::new(SessionConfig::default()));
//! let mut client = Session::new(config.clone(), Side::Client, id, 1, now);
//! let mut server = Session::new(config, Side::Server, id, 2, now);
//!
//! // The handshake of a tunnel: both messages travel encoded, before any packet.
//! let hello = client.hello(now)?;
//! let welcome = server.handle_hello(now, &hello, BootId([0; 16]), false)?;
//! client.handle_welcome(now, hello.tunnel, &welcome)?;
//!
//! let connection = client.open(now, Bytes::from_static(b"echo"))?;
//! client.connection(now, connection).unwrap().write_slice(b"hello")?;
//!
//! // Carry packets until neither end has more.
//! let mut out = Transmit::new();
//! loop {
//!     let mut moved = false;
//!     for (from, to) in [(&mut client, &mut server) as (&mut Session, &mut Session)] {
//!         while from.poll_transmit(now, hello.tunnel, 64 * 1024, &mut out) {
//!             let mut bytes = BytesMut::from(&out.copy_to_bytes(out.remaining())[..]);
//!             to.handle_recv(now, hello.tunnel, &mut bytes)?;
//!             moved = true;
//!         }
//!     }
//!     if !moved { break }
//! }
//!
//! let Some(Event::Accepted { connection, destination }) = server.poll_event() else { panic!() };
//! assert_eq!(destination, "echo");
//! let read = server.connection(now, connection).unwrap().read(1024);
//! assert_eq!(read, Read::Data(Bytes::from_static(b"hello")));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it does not do
//! It proves no identity and encrypts nothing: that is the carrier's. It does not know what a destination is.
//! It never dials: a driver decides when a tunnel is wanted.

#![forbid(unsafe_code)]

pub mod budget;
pub mod config;
pub mod credit;
pub mod error;
pub mod handshake;
pub mod id;
pub mod packet;
pub mod reorder;
pub mod session;
pub mod transmit;
pub mod varint;

pub use budget::MemoryBudget;
pub use config::SessionConfig;
pub use reorder::ReorderBuffer;
pub use session::{
    CloseCause, ConnectionMut, DropReason, Event, PathSample, Read, Session, SessionStats, TunnelStats,
};
pub use transmit::Transmit;
