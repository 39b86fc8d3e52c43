//! What programs see of gkd: proxies and forwards at one end of a session, dials at the other.
//!
//! A [`Listener`] says what listens where; [`listen()`] opens it, and turns what connects there into
//! connections of a session, each with a [`Destination`]. At the other end an [`Exit`] decodes the
//! destination, dials it within [`Rules`], and relays. Either end may hold either, so a forward and a reverse
//! tunnel are the same code. In between stand two traits, [`Opener`] and [`VirtualConnection`]: this crate
//! knows no packet and no tunnel.
//!
//! | room | what is in it |
//! |---|---|
//! | [`destination`], [`listener`] | how things are written down |
//! | [`listen`](mod@listen) | ports and the programs that connect to them, with SOCKS5, HTTP and forwards behind |
//! | [`exit`], [`dial`], [`rules`] | reaching destinations, and which |
//! | [`udp`] | datagrams, at either end |
//! | [`ws`] | WebSocket on one side and plain bytes on the other |
//! | [`reverse`] | listeners that one end asks the other for |
//! | [`policy`], [`rate`] | what each peer may do, and how fast |
//! | [`relay`](mod@relay) | bytes between a socket and a connection |
//! | [`service`] | HTTP services by name: the front, the choice of a target, the way to it |
//! | [`site`] | what a visitor sees who comes with HTTP that is no tunnel |
//! | [`measure`], [`content`] | sending, swallowing and echoing, so that the way can be measured |
//! | [`program`] | what the programs have in common: log, signals, how they end |

#![forbid(unsafe_code)]

mod accept;
pub mod connection;
pub mod content;
pub mod credentials;
pub mod destination;
pub mod dial;
pub mod exit;
mod http_proxy;
mod inside;
pub mod listen;
pub mod listener;
mod lookups;
pub mod measure;
mod mixed;
mod outlet;
mod passing;
pub mod policy;
pub mod program;
mod proxy_header;
pub mod rate;
pub mod reach;
pub mod relay;
pub mod reverse;
pub mod rules;
pub mod service;
mod session;
pub mod site;
mod slots;
mod socket;
mod socks5;
pub mod udp;
pub mod ws;

#[cfg(any(test, feature = "memory"))]
pub mod memory;
#[cfg(test)]
mod served;

pub use connection::{Opener, VirtualConnection};
pub use credentials::Credentials;
pub use destination::{Destination, Host, Target};
pub use dial::Dialer;
pub use exit::Exit;
pub use listen::{ListenConfig, Listening, listen};
pub use listener::Listener;
pub use policy::Policy;
pub use reach::ReachError;
pub use relay::RelayConfig;
pub use rules::Rules;
pub use site::{Site, SiteConfig};
pub use ws::{StreamToWs, WsToStream};
