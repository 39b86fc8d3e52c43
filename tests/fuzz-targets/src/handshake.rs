//! Bytes of a tunnel to the messages of its handshake. The first byte decides whether they can be one; a
//! message that was taken is within the bounds, and is written in bytes that read as the same message; one that
//! is cut short waits for the rest and allocates nothing for it.

use bytes::BytesMut;
use gkd_proto::handshake::{Answer, Hello, MAX_DEAD_TUNNELS, MIN_WINDOW, Parameters, VERSION, decode_answer};
use gkd_proto::packet::{DecodeError, MAX_PAYLOAD, MAX_REASON, kind};

/// Reads `data` as a client's first bytes, and as a server's.
pub fn handshake(data: &[u8]) {
    if let Some(hello) = take(data, Hello::decode, &[kind::HELLO]) {
        check(&hello.parameters, hello.dead.len());
        // Of another version only these two are read, and only they can be written again.
        if hello.version == VERSION {
            again(&hello, |out| hello.encode(out), Hello::decode);
        }
    }
    match take(data, decode_answer, &[kind::WELCOME, kind::REJECT]) {
        None => {}
        Some(Ok(welcome)) => {
            check(&welcome.parameters, welcome.dead.len());
            again::<Answer>(&Ok(welcome.clone()), |out| welcome.encode(out), decode_answer);
        }
        Some(Err(reject)) => {
            // What is not UTF-8 grows when it is made readable, and is cut when it is written.
            assert!(reject.reason.len() <= 3 * MAX_REASON);
            assert!(!reject.to_string().is_empty());
            if reject.reason.len() <= MAX_REASON {
                again::<Answer>(&Err(reject.clone()), |out| reject.encode(out), decode_answer);
            }
        }
    }
}

/// How a message is taken from the front of a buffer.
type Decode<T> = fn(&mut BytesMut) -> Result<Option<T>, DecodeError>;

fn take<T>(data: &[u8], decode: Decode<T>, kinds: &[u64]) -> Option<T> {
    let mut buf = BytesMut::from(data);
    let before = (buf.as_ptr(), buf.len(), buf.capacity());
    let taken = decode(&mut buf);
    let known = data.first().is_none_or(|first| kinds.contains(&u64::from(*first)));
    assert!(known || taken.is_err(), "what is not of gkd waits for more");
    match taken {
        Ok(Some(message)) => {
            let len = data.len() - buf.len();
            for cut in 0..len {
                let waits = matches!(decode(&mut BytesMut::from(&data[..cut])), Ok(None));
                assert!(waits, "cut at {cut} of {len} it does not wait");
            }
            return Some(message);
        }
        Ok(None) => {
            assert_eq!((buf.as_ptr(), buf.len(), buf.capacity()), before, "it waits and changed something");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    None
}

fn again<T: PartialEq + std::fmt::Debug>(message: &T, encode: impl FnOnce(&mut BytesMut), decode: Decode<T>) {
    let mut bytes = BytesMut::new();
    encode(&mut bytes);
    let read = decode(&mut bytes);
    assert_eq!(
        read.as_ref().map(Option::as_ref),
        Ok(Some(message)),
        "it reads otherwise when it was written"
    );
    assert!(bytes.is_empty());
}

fn check(parameters: &Parameters, dead: usize) {
    assert!(dead <= MAX_DEAD_TUNNELS);
    assert!(parameters.connection_window >= MIN_WINDOW && parameters.session_window >= MIN_WINDOW);
    assert!((1024..=MAX_PAYLOAD as u64).contains(&parameters.max_payload));
}
