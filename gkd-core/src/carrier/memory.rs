//! A carrier in memory, for tests and for both ends in one process. No handshake: each end is told the
//! other's key.

use gkd_proto::id::PeerId;

use super::Carrier;

/// Two ends of one pipe, the client's and the server's; each way holds `capacity` bytes at the most. The
/// client's end knows the server's key as its peer, and the other way round.
pub fn pair(client: PeerId, server: PeerId, capacity: usize) -> (Carrier, Carrier) {
    let (clients, servers) = tokio::io::duplex(capacity);
    (Carrier::brought(clients, server), Carrier::brought(servers, client))
}
