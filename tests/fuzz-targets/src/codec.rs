//! Bytes of a tunnel to packets. They are taken one by one or refused, in the order of their arrival, however
//! they are cut; a packet that was taken is written in bytes that read as the same packet; what has not arrived
//! whole is left as it is, with nothing allocated for what it declares.

use bytes::BytesMut;
use gkd_proto::packet::{DecodeError, Header, MAX_BODY, Packet};

/// Reads `data` as the bytes of one tunnel.
pub fn codec(data: &[u8]) {
    let whole = decode_all(&mut BytesMut::from(data));
    for packet in &whole.0 {
        let mut bytes = BytesMut::new();
        packet.encode(&mut bytes);
        let again = Packet::decode(&mut bytes);
        assert_eq!(again.as_ref(), Ok(&Some(packet.clone())), "it reads otherwise when it was written");
        assert!(bytes.is_empty(), "{packet:?} leaves bytes over");
    }
    // Cut anywhere, the same comes out of it.
    let at = data.first().map_or(0, |first| usize::from(*first) * data.len() / 256);
    let mut cut = BytesMut::from(&data[..at]);
    let (mut packets, mut end) = decode_all(&mut cut);
    if end.is_none() {
        cut.extend_from_slice(&data[at..]);
        let (more, then) = decode_all(&mut cut);
        packets.extend(more);
        end = then;
    }
    assert_eq!((packets, end), whole, "cut at {at}");
}

/// Everything that can be taken from the front of `buf`, and why no more can ever be.
fn decode_all(buf: &mut BytesMut) -> (Vec<Packet>, Option<DecodeError>) {
    let mut packets = Vec::new();
    loop {
        let before = (buf.as_ptr(), buf.len(), buf.capacity());
        match Packet::decode(buf) {
            Ok(Some(packet)) => {
                assert!(buf.len() < before.1, "a packet of no bytes");
                packets.push(packet);
            }
            Ok(None) => {
                assert_eq!(
                    (buf.as_ptr(), buf.len(), buf.capacity()),
                    before,
                    "it waits and changed something"
                );
                if let Ok(Some(header)) = Header::peek(buf) {
                    assert!(
                        header.body <= MAX_BODY && buf.len() < header.len + header.body,
                        "it is all there"
                    );
                }
                return (packets, None);
            }
            Err(error) => return (packets, Some(error)),
        }
    }
}
