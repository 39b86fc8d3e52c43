//! Which connection a packet belongs to, and what of TCP it carries.

/// Addresses, ports and protocol of an IPv4 packet; all zero for anything else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Flow {
    /// Source and destination.
    addresses: [u8; 8],
    ports: [u8; 4],
    protocol: u8,
}

/// A TCP segment that carries payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) sequence: u32,
    pub(super) payload: u32,
}

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Reads as much as there is; the lab's packets are whole and never fragments.
pub(super) fn parse(packet: &[u8]) -> (Flow, Option<Segment>) {
    parse_ipv4(packet).unwrap_or_default()
}

fn parse_ipv4(packet: &[u8]) -> Option<(Flow, Option<Segment>)> {
    let first = *packet.first()?;
    if first >> 4 != 4 {
        return None;
    }
    let header = usize::from(first & 15) * 4;
    let protocol = *packet.get(9)?;
    let mut flow = Flow { addresses: packet.get(12..20)?.try_into().ok()?, ports: [0; 4], protocol };
    if protocol == TCP || protocol == UDP {
        flow.ports = packet.get(header..header + 4)?.try_into().ok()?;
    }
    let segment = if protocol == TCP { segment(packet, header) } else { None };
    Some((flow, segment))
}

fn segment(packet: &[u8], header: usize) -> Option<Segment> {
    let tcp = packet.get(header..)?;
    let sequence = u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?);
    let payload = tcp.len().checked_sub(usize::from(*tcp.get(12)? >> 4) * 4)?;
    (payload > 0).then_some(Segment { sequence, payload: payload as u32 })
}
