//! What the session says: every packet is sound, and within what the session was granted.

use std::collections::BTreeMap;

use ::bytes::BytesMut;
use gkd_proto::credit::charge;
use gkd_proto::id::{ConnectionId, TunnelId};
use gkd_proto::packet::{Account, Credit, Packet};

/// All that the session has said, and what it may say.
pub(super) struct Said {
    /// Counted packets of each tunnel.
    counted: BTreeMap<TunnelId, u64>,
    /// The last Ping of each tunnel.
    pinged: BTreeMap<TunnelId, u64>,
    sending: BTreeMap<ConnectionId, Sending>,
    /// The charge of all connections together.
    charged: u64,
    session_limit: u64,
    /// What every connection may be charged before a Credit.
    initial_limit: u64,
    /// What the session grants.
    session_grant: u64,
    grants: BTreeMap<ConnectionId, u64>,
    initial_grant: u64,
}

/// One connection's direction from the session.
#[derive(Default)]
struct Sending {
    limit: u64,
    next: u64,
    charged: u64,
}

impl Said {
    pub(super) fn new(initial_grant: u64, session_grant: u64) -> Self {
        Self {
            counted: BTreeMap::new(),
            pinged: BTreeMap::new(),
            sending: BTreeMap::new(),
            charged: 0,
            session_limit: 0,
            initial_limit: 0,
            session_grant,
            grants: BTreeMap::new(),
            initial_grant,
        }
    }

    /// Counted packets that it has sent on a tunnel.
    pub(super) fn counted(&self, tunnel: TunnelId) -> u64 {
        self.counted.get(&tunnel).copied().unwrap_or(0)
    }

    /// The token that it waits for.
    pub(super) fn pinged(&self, tunnel: TunnelId) -> u64 {
        self.pinged.get(&tunnel).copied().unwrap_or(0)
    }

    /// What it grants.
    pub(super) fn granted(&self, account: Account) -> u64 {
        match account {
            Account::Session => self.session_grant,
            Account::Connection(id) => self.grants.get(&id).copied().unwrap_or(self.initial_grant),
        }
    }

    /// What it has charged to a connection.
    pub(super) fn charged(&self, connection: ConnectionId) -> u64 {
        self.sending.get(&connection).map_or(0, |sending| sending.charged)
    }

    /// The other end tells its windows.
    pub(super) fn allow(&mut self, connection: u64, session: u64) {
        // Only the first Hello or Welcome counts, and any may be the first that is taken.
        self.initial_limit = self.initial_limit.max(connection);
        self.session_limit = self.session_limit.max(session);
    }

    /// The other end sends a Credit.
    pub(super) fn allow_more(&mut self, credit: &Credit) {
        match credit.account {
            Account::Session => self.session_limit = self.session_limit.max(credit.total),
            Account::Connection(id) => {
                let sending = self.sending.entry(id).or_default();
                sending.limit = sending.limit.max(credit.total);
            }
        }
    }

    /// Goes through what was written on a tunnel.
    pub(super) fn hear(&mut self, tunnel: TunnelId, mut bytes: BytesMut) {
        while let Some(packet) = Packet::decode(&mut bytes).expect("the session writes packets") {
            if packet.is_counted() {
                *self.counted.entry(tunnel).or_default() += 1;
            }
            self.packet(tunnel, packet);
        }
        assert!(bytes.is_empty(), "half a packet was written");
    }

    fn packet(&mut self, tunnel: TunnelId, packet: Packet) {
        match packet {
            Packet::Data(data) => {
                let initial = self.initial_limit;
                let sending = self.sending.entry(data.connection).or_default();
                assert!(data.number.0 <= sending.next, "{}: a number is left out", data.connection);
                // Below that it is sent again.
                if data.number.0 == sending.next {
                    let cost = charge(data.payload.len());
                    sending.next += 1;
                    sending.charged += cost;
                    self.charged += cost;
                    let limit = sending.limit.max(initial);
                    assert!(sending.charged <= limit, "{}: beyond its credit", data.connection);
                    assert!(self.charged <= self.session_limit, "beyond the session's credit");
                }
            }
            Packet::Finish(finish) => {
                let next = self.sending.get(&finish.connection).map_or(0, |sending| sending.next);
                assert_eq!(finish.number.0, next, "{}: a Finish that is not at the end", finish.connection);
            }
            Packet::Reset(reset) => {
                assert_eq!(
                    reset.total,
                    self.charged(reset.connection),
                    "{}: a wrong total",
                    reset.connection
                );
            }
            Packet::Credit(Credit { account, total }) => {
                // One that is made again tells the newest total.
                assert!(total >= self.granted(account), "{account:?}: credit is taken back");
                match account {
                    Account::Session => self.session_grant = total,
                    Account::Connection(id) => _ = self.grants.insert(id, total),
                }
            }
            Packet::Ping(ping) => _ = self.pinged.insert(tunnel, ping.token),
            Packet::Unknown(kind) => panic!("it writes the unknown type {kind:#x}"),
            _ => {}
        }
    }
}
