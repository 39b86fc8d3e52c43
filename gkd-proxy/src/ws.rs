//! WebSocket (RFC 6455) mapped to a plain stream of bytes: [`StreamToWs`] and [`WsToStream`], and the listeners that do the
//! same with a tunnel in between.
//!
//! One connection of a program becomes one WebSocket, or one WebSocket one connection. Nothing here looks into the bytes.
//!
//! | on the WebSocket | on the plain stream |
//! |---|---|
//! | a text or binary message, in one frame or many | its bytes, in order; where one message ends and the next begins is not told |
//! | an empty message | nothing |
//! | ping | nothing; it is answered with its pong |
//! | pong | nothing |
//! | Close with 1000, 1001 or no code | the end of this direction. What the program still sends goes on as messages, and its end is the answer to the Close |
//! | Close so, and then nobody any more | what the program still sends has nowhere to go: it is read for two seconds at the most, then the stream is reset |
//! | Close with another code | a reset |
//! | an end without Close | a reset |
//! | a frame that breaks the protocol; text that is no UTF-8 | a reset; the WebSocket gets Close with 1002, 1007 |
//!
//! | on the plain stream | on the WebSocket |
//! |---|---|
//! | what one read gives, at most 64 KiB | one binary message; as text where that is asked for, cut between characters |
//! | no UTF-8, where text is asked for | Close 1007; the plain stream is reset |
//! | the end of this direction | Close 1000, or the other end's own Close where that came first. Messages are still taken until the other end's Close, as long as they come |
//! | a reset | Close 1011 |
//! | nothing, and nothing from the WebSocket either, for 30 s | a ping, so that proxies in between do not forget the connection |
//!
//! WebSocket has no half-close, but an end may answer a Close late (section 5.5.1): these mappings do so when all was said, and
//! take what comes until the other end's Close. So the two in a row pass the end of one direction on as it is, and a program that
//! ends its request by closing and waits for the answer (`nc -N`) gets it. Most other peers answer a Close at once and send no
//! more, browsers among them, and throw away what comes behind their own: for them the end of one direction is that of both,
//! and where the program goes on nevertheless, they wait for its end as long as they wait for an answer to their Close, a few
//! seconds, and then are gone.
//!
//! Either side stops the other: what one read gave waits in each direction, 64 KiB at the most, and while it does, nothing more is
//! read. No message is put together: its bytes go on as they come, so it and each of its frames may have any length, as browsers
//! and many libraries send a message in one; and text that breaks off in the middle has gone on up to there. An idle mapping
//! holds no buffer.
//!
//! No extension is used, and so nothing is compressed. Of the subprotocols that a client names, the first is taken: what
//! is behind, only the client knows.
//!
//! | room | what is in it |
//! |---|---|
//! | `stream_to_ws`, `ws_to_stream` | the two for programs that embed them |
//! | `serve`, `form` | the two for listeners, and how these are written |
//! | `accept`, `connect`, `upgrade`, `url` | the opening handshake at either end |
//! | `copy`, `text` | messages to bytes, and bytes to messages |
//! | `frames` | a WebSocket over a stream, on the codec of `gkd-core` |
//! | `side` | streams that can be reset |

mod accept;
mod connect;
mod copy;
pub(crate) mod form;
mod frames;
pub(crate) mod serve;
pub(crate) mod side;
mod stream_to_ws;
mod text;
pub(crate) mod upgrade;
pub(crate) mod url;
mod ws_to_stream;

use std::io;
use std::time::Duration;

use crate::destination::DestinationError;
use crate::dial::DialFailure;

pub use accept::{Accept, Refusal};
pub use copy::Copied;
pub use form::{FromWs, ToWs};
pub use stream_to_ws::StreamToWs;
pub use tokio_rustls::rustls::ClientConfig;
pub use url::{WsUrl, WsUrlError};
pub use ws_to_stream::WsToStream;

/// After how much silence a ping is sent: the shortest time-outs of usual proxies are a minute.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(30);

/// The least of that.
const PING_LEAST: Duration = Duration::from_secs(1);

/// What messages a mapping sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Messages {
    /// Whether text messages are sent, for programs that take no other. Default no: binary ones, which can hold all bytes.
    pub text: bool,
    /// After how much silence a ping is sent, of a second at least; none for never. Default 30 s.
    pub ping_every: Option<Duration>,
}

impl Default for Messages {
    fn default() -> Self {
        Self { text: false, ping_every: Some(PING_EVERY) }
    }
}

/// How a mapping behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WsConfig {
    /// What it sends.
    pub messages: Messages,
    /// How long the opening handshake may take. Default 10 s.
    pub handshake_timeout: Duration,
    /// How long it goes on of which one direction has ended and the other is idle. Default 1 h.
    pub half_closed_for: Duration,
}

impl Default for WsConfig {
    fn default() -> Self {
        Self {
            messages: Messages::default(),
            handshake_timeout: Duration::from_secs(10),
            half_closed_for: crate::RelayConfig::default().half_closed_for,
        }
    }
}

/// Why a mapping did not begin, or did not end in order.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WsError {
    /// The address of the WebSocket server is none.
    #[error("{0}")]
    Url(#[from] WsUrlError),
    /// The address of the plain server is none.
    #[error("{0}")]
    Address(#[from] DestinationError),
    /// The server was not reached.
    #[error("{0} was not reached: {1}")]
    Dial(Box<str>, #[source] DialFailure),
    /// A word that can be no subprotocol.
    #[error("\"{}\" is no subprotocol: write a word without spaces and commas", .0.escape_debug())]
    Subprotocol(Box<str>),
    /// TLS failed.
    #[error("no TLS with the WebSocket server: {0}")]
    Tls(#[source] io::Error),
    /// The server's certificate is not right.
    #[error(
        "the certificate of the WebSocket server is not valid for {host}: {cause}; check the address and this machine's \
         clock, or add who vouches for it to the certificates that this machine trusts (SSL_CERT_FILE names others)"
    )]
    Certificate {
        /// What it should be for.
        host: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The opening handshake took too long.
    #[error("the opening handshake was not over in time")]
    TimedOut,
    /// The client's opening handshake was no HTTP, or went beyond its bounds.
    #[error("the opening handshake failed: {0}")]
    Http(#[source] hyper::Error),
    /// What the server says in the opening handshake is no HTTP, goes beyond its bounds, or breaks off.
    #[error(
        "the WebSocket server does not answer in HTTP: {0}; check host and port, and write wss:// where it speaks TLS"
    )]
    NotHttp(#[source] hyper::Error),
    /// The client went away without a request.
    #[error("the client went away without asking for a WebSocket")]
    NoRequest,
    /// The client's request was refused.
    #[error("the client's request was refused with {0}")]
    Refused(Refusal),
    /// The server's answer is none that a WebSocket begins with.
    #[error("the WebSocket server did not open one: {}", .0.escape_debug())]
    Answer(String),
    /// The other end broke the protocol; it was told so with Close 1002, or 1007 where it gave a reason that is no UTF-8.
    #[error("the other end breaks the WebSocket protocol: {0}")]
    Protocol(String),
    /// The other end sent text that is no UTF-8; it was told so with Close 1007.
    #[error("the other end sent text that is no UTF-8: it has to send such bytes as binary messages")]
    BadText,
    /// The other end sent a Close that does not say that all is well.
    #[error("the other end closed the WebSocket with {code}{}", quoted(reason))]
    Closed {
        /// Its code.
        code: u16,
        /// Its words.
        reason: String,
    },
    /// The WebSocket ended without a Close.
    #[error("the WebSocket ended without a Close: {0}")]
    Lost(#[source] io::Error),
    /// The plain stream was reset, or failed; the WebSocket got Close 1011.
    #[error("the plain stream failed: {0}")]
    Plain(#[source] io::Error),
    /// The plain stream is no UTF-8 though text was asked for; the WebSocket got Close 1007.
    #[error("the plain stream is no UTF-8: send it as binary messages, without text")]
    NotText,
    /// One direction had ended, and the other was idle for too long; both were reset.
    #[error("one direction had ended and the other was idle for too long")]
    Idle,
}

fn quoted(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({})", reason.escape_debug()) }
}

#[cfg(test)]
mod tests;
