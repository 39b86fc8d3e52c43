//! The handshake: what both ends say before the first packet of a tunnel. [`Hello`] from the client, then
//! [`Welcome`] or [`Reject`] from the server. Who the other end is was proved before, by the carrier.
//!
//! The three are framed like packets (type, length, body), so that one reader serves for both. Nothing
//! else precedes a Welcome, and an end knows of the other's limits only what stands here.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::id::{BootId, SessionId, TunnelId};
use crate::packet::{DecodeError, Header, kind, put_reason, take_reason};
use crate::varint;

/// The version of the protocol that this crate speaks.
pub const VERSION: u64 = 1;

/// The most dead tunnels that one Hello or Welcome speaks of.
pub const MAX_DEAD_TUNNELS: usize = 256;

/// The largest body of a handshake message, in bytes; what is declared longer is refused unread.
pub const MAX_HANDSHAKE: usize = 8 * 1024;

/// How many counted packets of a dead tunnel had arrived at the end that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadTunnel {
    /// The tunnel; nothing more is read from it.
    pub tunnel: TunnelId,
    /// Its frozen count.
    pub count: u64,
}

/// What one end tells the other of its limits. Unknown parameters are passed over; absent ones have the
/// value of [`Parameters::default`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parameters {
    /// Credit that every connection begins with, in charge; at least 256 KiB.
    pub connection_window: u64,
    /// Credit that the session begins with, in charge; at least 256 KiB.
    pub session_window: u64,
    /// The largest payload of a Data packet that this end takes, in bytes; 1,024 to 65,536.
    pub max_payload: u64,
    /// How many live connections the other end may have opened at a time.
    pub max_connections: u64,
}

/// The least value of both windows.
pub const MIN_WINDOW: u64 = 256 * 1024;

impl Default for Parameters {
    fn default() -> Self {
        Self {
            connection_window: MIN_WINDOW,
            session_window: MIN_WINDOW,
            max_payload: 1024,
            max_connections: 16,
        }
    }
}

impl Parameters {
    const CONNECTION_WINDOW: u64 = 1;
    const SESSION_WINDOW: u64 = 2;
    const MAX_PAYLOAD: u64 = 3;
    const MAX_CONNECTIONS: u64 = 4;

    fn encode(&self, out: &mut impl BufMut) {
        let pairs = [
            (Self::CONNECTION_WINDOW, self.connection_window),
            (Self::SESSION_WINDOW, self.session_window),
            (Self::MAX_PAYLOAD, self.max_payload),
            (Self::MAX_CONNECTIONS, self.max_connections),
        ];
        varint::put(out, pairs.len() as u64);
        for (id, value) in pairs {
            varint::put(out, id);
            varint::put(out, value);
        }
    }

    fn decode(body: &mut Bytes) -> Option<Self> {
        let mut parameters = Self::default();
        // Every pair takes two bytes at least, so the body's bound is the loop's.
        for _ in 0..varint::take(body)? {
            let (id, value) = (varint::take(body)?, varint::take(body)?);
            let allowed = match id {
                Self::CONNECTION_WINDOW => {
                    parameters.connection_window = value;
                    value >= MIN_WINDOW
                }
                Self::SESSION_WINDOW => {
                    parameters.session_window = value;
                    value >= MIN_WINDOW
                }
                Self::MAX_PAYLOAD => {
                    parameters.max_payload = value;
                    (1024..=crate::packet::MAX_PAYLOAD as u64).contains(&value)
                }
                Self::MAX_CONNECTIONS => {
                    parameters.max_connections = value;
                    true
                }
                _ => true,
            };
            if !allowed {
                return None;
            }
        }
        Some(parameters)
    }
}

fn put_dead(out: &mut impl BufMut, dead: &[DeadTunnel]) {
    varint::put(out, dead.len() as u64);
    for DeadTunnel { tunnel, count } in dead {
        varint::put(out, tunnel.0);
        varint::put(out, *count);
    }
}

fn take_dead(body: &mut Bytes) -> Option<Vec<DeadTunnel>> {
    let len = usize::try_from(varint::take(body)?).ok().filter(|len| *len <= MAX_DEAD_TUNNELS)?;
    (0..len)
        .map(|_| Some(DeadTunnel { tunnel: TunnelId(varint::take(body)?), count: varint::take(body)? }))
        .collect()
}

fn take_array<const N: usize>(body: &mut Bytes) -> Option<[u8; N]> {
    (body.len() >= N).then(|| {
        let mut array = [0; N];
        body.copy_to_slice(&mut array);
        array
    })
}

/// The client's first message on every tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version that the client speaks.
    pub version: u64,
    /// The session that the tunnel belongs to.
    pub session: SessionId,
    /// The tunnel's new id.
    pub tunnel: TunnelId,
    /// The session should exist already: if the server does not know it, it creates nothing and rejects.
    pub exists: bool,
    /// The client's limits.
    pub parameters: Parameters,
    /// Every tunnel that the client counts as dead and that is not yet settled.
    pub dead: Vec<DeadTunnel>,
}

/// The server lets the tunnel into its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version that the server speaks.
    pub version: u64,
    /// This life of the session at the server: another after a restart, and when the session had expired and was
    /// made again under the same id.
    pub boot: BootId,
    /// The session was known before this Hello.
    pub known: bool,
    /// The server's limits.
    pub parameters: Parameters,
    /// Every tunnel that the server counts as dead and that is not yet settled, those of the Hello among them.
    pub dead: Vec<DeadTunnel>,
}

/// The server does not let the tunnel in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}{}{reason}", if .reason.is_empty() { "" } else { ": " })]
pub struct Reject {
    /// Why.
    pub code: RejectCode,
    /// Why, in words.
    pub reason: String,
}

/// Why a server rejects a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RejectCode {
    /// The key is not that of a user; told alike to unknown and to revoked ones.
    #[error("the server does not know this key")]
    UnknownUser,
    /// The session should exist and does not.
    #[error("the server has no such session")]
    NoSuchSession,
    /// A limit of the server is met.
    #[error("the server is at a limit")]
    Busy,
    /// The server does not speak the client's version.
    #[error("the server does not speak this version of the protocol")]
    Version,
    /// The server is going down.
    #[error("the server is going down")]
    GoingDown,
    /// The Hello makes no sense: a tunnel's id used twice, say.
    #[error("the server refuses what the client said")]
    Protocol,
    /// A code of a later version.
    #[error("the server rejects this tunnel (code {0})")]
    Other(u64),
}

impl RejectCode {
    fn code(self) -> u64 {
        match self {
            Self::UnknownUser => 1,
            Self::NoSuchSession => 2,
            Self::Busy => 3,
            Self::Version => 4,
            Self::GoingDown => 5,
            Self::Protocol => 6,
            Self::Other(code) => code,
        }
    }

    fn from_code(code: u64) -> Self {
        let known = [
            Self::UnknownUser,
            Self::NoSuchSession,
            Self::Busy,
            Self::Version,
            Self::GoingDown,
            Self::Protocol,
        ];
        known.into_iter().find(|known| known.code() == code).unwrap_or(Self::Other(code))
    }
}

impl Reject {
    /// A rejection with nothing to add to its code.
    pub fn new(code: RejectCode) -> Self {
        Self { code, reason: String::new() }
    }
}

/// The server's answer to a [`Hello`].
pub type Answer = Result<Welcome, Reject>;

impl Hello {
    /// Appends this message to `out`.
    pub fn encode(&self, out: &mut impl BufMut) {
        let mut body = Vec::new();
        varint::put(&mut body, self.version);
        body.put_slice(&self.session.0);
        varint::put(&mut body, self.tunnel.0);
        body.put_u8(u8::from(self.exists));
        self.parameters.encode(&mut body);
        put_dead(&mut body, &self.dead);
        put_message(out, kind::HELLO, &body);
    }

    /// Takes a Hello from the front of `buf`; `Ok(None)` until it has arrived whole.
    ///
    /// # Errors
    /// Anything else than a Hello, refused before anything is allocated for it. A Hello of a later version
    /// is decoded as far as its version and session, the rest being that version's business: it is the
    /// server's to answer with [`RejectCode::Version`].
    pub fn decode(buf: &mut BytesMut) -> Result<Option<Self>, DecodeError> {
        let Some((kind, mut body)) = take_message(buf, &[kind::HELLO])? else { return Ok(None) };
        Self::decode_body(&mut body).map(Some).ok_or(DecodeError::Malformed { kind })
    }

    fn decode_body(body: &mut Bytes) -> Option<Self> {
        let version = varint::take(body)?;
        let session = SessionId(take_array(body)?);
        if version != VERSION {
            let (tunnel, parameters, dead) = (TunnelId(0), Parameters::default(), Vec::new());
            return Some(Self { version, session, tunnel, exists: false, parameters, dead });
        }
        let tunnel = TunnelId(varint::take(body)?);
        let exists = take_flag(body)?;
        let parameters = Parameters::decode(body)?;
        let dead = take_dead(body)?;
        body.is_empty().then_some(Self { version, session, tunnel, exists, parameters, dead })
    }
}

impl Welcome {
    /// Appends this message to `out`.
    pub fn encode(&self, out: &mut impl BufMut) {
        let mut body = Vec::new();
        varint::put(&mut body, self.version);
        body.put_slice(&self.boot.0);
        body.put_u8(u8::from(self.known));
        self.parameters.encode(&mut body);
        put_dead(&mut body, &self.dead);
        put_message(out, kind::WELCOME, &body);
    }

    fn decode_body(body: &mut Bytes) -> Option<Self> {
        let version = varint::take(body)?;
        let boot = BootId(take_array(body)?);
        let known = take_flag(body)?;
        let parameters = Parameters::decode(body)?;
        let dead = take_dead(body)?;
        body.is_empty().then_some(Self { version, boot, known, parameters, dead })
    }
}

impl Reject {
    /// Appends this message to `out`.
    pub fn encode(&self, out: &mut impl BufMut) {
        let mut body = Vec::new();
        varint::put(&mut body, self.code.code());
        put_reason(&mut body, &self.reason);
        put_message(out, kind::REJECT, &body);
    }

    fn decode_body(body: &mut Bytes) -> Option<Self> {
        let code = RejectCode::from_code(varint::take(body)?);
        let reason = take_reason(body)?;
        body.is_empty().then_some(Self { code, reason })
    }
}

/// Takes a Welcome or a Reject from the front of `buf`; `Ok(None)` until it has arrived whole.
///
/// # Errors
/// Anything else, refused before anything is allocated for it.
pub fn decode_answer(buf: &mut BytesMut) -> Result<Option<Answer>, DecodeError> {
    let Some((kind, mut body)) = take_message(buf, &[kind::WELCOME, kind::REJECT])? else { return Ok(None) };
    let answer = match kind {
        kind::WELCOME => Welcome::decode_body(&mut body).map(Ok),
        _ => Reject::decode_body(&mut body).map(Err),
    };
    answer.map(Some).ok_or(DecodeError::Malformed { kind })
}

fn take_flag(body: &mut Bytes) -> Option<bool> {
    (body.has_remaining()).then(|| body.get_u8()).filter(|flag| *flag <= 1).map(|flag| flag == 1)
}

fn put_message(out: &mut impl BufMut, kind: u64, body: &[u8]) {
    varint::put(out, kind);
    varint::put(out, body.len() as u64);
    out.put_slice(body);
}

fn take_message(buf: &mut BytesMut, kinds: &[u64]) -> Result<Option<(u64, Bytes)>, DecodeError> {
    let Some(&first) = buf.first() else { return Ok(None) };
    // One byte decides, so that what is not gkd is refused at once and not when enough has come.
    if !kinds.contains(&u64::from(first)) {
        return Err(DecodeError::Refused { kind: u64::from(first) });
    }
    let Some(header) = Header::peek(buf)? else { return Ok(None) };
    if header.body > MAX_HANDSHAKE {
        let declared = header.body as u64;
        return Err(DecodeError::Oversize { kind: header.kind, declared, limit: MAX_HANDSHAKE });
    }
    if buf.len() < header.len + header.body {
        return Ok(None);
    }
    buf.advance(header.len);
    Ok(Some((header.kind, buf.split_to(header.body).freeze())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            version: VERSION,
            session: SessionId([7; 16]),
            tunnel: TunnelId(300),
            exists: true,
            parameters: Parameters { max_connections: 70_000, ..Parameters::default() },
            dead: vec![DeadTunnel { tunnel: TunnelId(2), count: 1 << 40 }],
        }
    }

    fn bytes(encode: impl FnOnce(&mut BytesMut)) -> BytesMut {
        let mut bytes = BytesMut::new();
        encode(&mut bytes);
        bytes
    }

    #[test]
    fn hello_survives_the_round_trip_and_every_cut_waits_for_more() {
        let whole = bytes(|out| hello().encode(out));
        assert_eq!(Hello::decode(&mut whole.clone()), Ok(Some(hello())));
        for cut in 0..whole.len() {
            assert_eq!(Hello::decode(&mut BytesMut::from(&whole[..cut])), Ok(None), "cut at {cut}");
        }
    }

    #[test]
    fn answers_survive_the_round_trip_and_every_cut_waits_for_more() {
        let Hello { version, parameters, dead, .. } = hello();
        let welcome = Welcome { version, boot: BootId([9; 16]), known: false, parameters, dead };
        let reject = Reject { code: RejectCode::Busy, reason: "full".into() };
        for answer in [Ok(welcome), Err(reject)] {
            let whole = bytes(|out| match &answer {
                Ok(welcome) => welcome.encode(out),
                Err(reject) => reject.encode(out),
            });
            assert_eq!(decode_answer(&mut whole.clone()), Ok(Some(answer)));
            for cut in 0..whole.len() {
                assert_eq!(decode_answer(&mut BytesMut::from(&whole[..cut])), Ok(None), "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_body_cut_short_inside_its_length_is_malformed() {
        let whole = bytes(|out| hello().encode(out));
        let header = Header::peek(&whole).unwrap().unwrap();
        let body = &whole[header.len..];
        for cut in 0..body.len() {
            let mut short = bytes(|out| put_message(out, kind::HELLO, &body[..cut]));
            assert!(Hello::decode(&mut short).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_later_version_is_recognised_whatever_follows() {
        let mut body = vec![VERSION as u8 + 1];
        body.extend([3; 16]);
        body.extend(b"whatever version 2 has to say");
        let hello = Hello::decode(&mut bytes(|out| put_message(out, kind::HELLO, &body))).unwrap().unwrap();
        assert_eq!((hello.version, hello.session), (VERSION + 1, SessionId([3; 16])));
    }

    #[test]
    fn what_is_not_gkd_is_refused_at_its_first_byte() {
        for foreign in [&b"GET / HTTP/1.1"[..], b"SSH-2.0", b"\x16\x03\x01", b"\x00"] {
            assert!(Hello::decode(&mut BytesMut::from(&foreign[..1])).is_err());
        }
    }

    #[test]
    fn windows_below_the_minimum_and_long_lists_are_refused() {
        let mut small = hello();
        small.parameters.session_window = MIN_WINDOW - 1;
        assert!(Hello::decode(&mut bytes(|out| small.encode(out))).is_err());
        let mut long = hello();
        long.dead = vec![DeadTunnel { tunnel: TunnelId(1), count: 1 }; MAX_DEAD_TUNNELS + 1];
        assert!(Hello::decode(&mut bytes(|out| long.encode(out))).is_err());
        let mut declared = BytesMut::from(&[kind::HELLO as u8, 0x80, 0x00, 0x20, 0x01][..]);
        assert!(matches!(Hello::decode(&mut declared), Err(DecodeError::Oversize { .. })));
    }
}
