//! Names of what the protocol speaks about. Each counter has a type of its own, so that two kinds
//! cannot be swapped in a signature.

use std::fmt;

/// Which end of a session this is. The client dials tunnels; both ends open connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The end that dials tunnels and names them. Its connections have odd ids.
    Client,
    /// The end that accepts tunnels. Its connections have even ids.
    Server,
}

impl Side {
    /// The other end.
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// One identity: an Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub [u8; 32]);

/// One running client of a peer, and all that it shares with the server: 128 random bits, which mean
/// something only together with the [`PeerId`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub [u8; 16]);

/// One start of a server process: 128 random bits, drawn anew at every start.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BootId(pub [u8; 16]);

/// One real connection of a session, numbered from 0 by the client in the order of dialling; never
/// reused within the session. Below 2^62.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TunnelId(pub u64);

/// One virtual byte stream of a session. Odd from the client, even and at least 2 from the server,
/// dense, rising, never reused. Below 2^62.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

impl ConnectionId {
    /// The id of the `index`-th connection (from 0) that `side` opens.
    pub fn from_index(side: Side, index: u64) -> Self {
        match side {
            Side::Client => Self(2 * index + 1),
            Side::Server => Self(2 * index + 2),
        }
    }

    /// How many connections its opener had opened before this one.
    pub fn index(self) -> u64 {
        self.0.saturating_sub(1) / 2
    }

    /// The end that opened it.
    pub fn opener(self) -> Side {
        if self.0 % 2 == 1 { Side::Client } else { Side::Server }
    }
}

/// A connection's own counter of its sequenced packets in one direction, from 0. It never wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PacketNumber(pub u64);

impl PacketNumber {
    /// The number behind this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

macro_rules! shown_in_hex {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "("))?;
                hex(f, &self.0[..4])?;
                f.write_str("…)")
            }
        }
    )*};
}
shown_in_hex!(PeerId, SessionId, BootId);

macro_rules! shown_as_number {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
shown_as_number!(TunnelId, ConnectionId, PacketNumber);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_ids_are_dense_and_tell_their_opener() {
        for index in 0..5 {
            for side in [Side::Client, Side::Server] {
                let id = ConnectionId::from_index(side, index);
                assert_eq!((id.index(), id.opener()), (index, side));
            }
        }
        assert_eq!(ConnectionId::from_index(Side::Client, 0), ConnectionId(1));
        assert_eq!(ConnectionId::from_index(Side::Server, 0), ConnectionId(2));
    }
}
