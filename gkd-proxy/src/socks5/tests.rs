use std::sync::Arc;

use gkd_core::proto::packet::{DialError, ResetCode};
use tokio::io::{AsyncReadExt, DuplexStream, duplex};

use super::*;
use crate::connection::VirtualConnection;
use crate::destination::Destination;
use crate::memory::NoTunnel;
use crate::served::{self, Served};

const HELLO: &[u8] = &[5, 1, 0];
const CONNECT: &[u8] = b"\x05\x01\x00\x03\x0bexample.com\x01\xbb";

async fn served(credentials: Option<Credentials>, strict: bool) -> Served {
    let serve = move |socket, slot, outlet: Arc<_>| async move {
        serve(socket, credentials.as_ref(), strict, slot, &outlet).await;
    };
    served::served(serve).await
}

impl Served {
    async fn expect(&mut self, bytes: &[u8]) {
        let mut read = vec![0; bytes.len()];
        self.program.read_exact(&mut read).await.unwrap();
        assert_eq!(read, bytes);
    }

    async fn expect_reply(&mut self, reply: u8) {
        self.expect(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0]).await;
    }

    async fn expect_end(&mut self) {
        assert_eq!(self.program.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn connect_is_answered_at_once_and_carries_bytes() {
    let mut served = served(None, false).await;
    served.send(HELLO).await;
    served.expect(&[5, 0]).await;
    served.send(CONNECT).await;
    served.expect_reply(0).await;
    let far = served.far().await;
    assert_eq!(Destination::decode(far.destination()).unwrap().to_string(), "example.com:443");
    served.send(b"request").await;
    assert_eq!(far.read(7).await.unwrap(), b"request");
    far.write(b"answer").await.unwrap();
    served.expect(b"answer").await;
}

#[tokio::test]
async fn bytes_behind_the_request_are_kept() {
    let mut served = served(None, false).await;
    served.send(&[HELLO, CONNECT, b"early"].concat()).await;
    let far = served.far().await;
    assert_eq!(far.read(5).await.unwrap(), b"early");
}

#[tokio::test]
async fn every_form_of_address_is_understood() {
    for (address, shown) in [
        (&b"\x01\xc0\x00\x02\x01"[..], "192.0.2.1:80"),
        (b"\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01", "[2001:db8::1]:80"),
        (b"\x03\x04name", "name:80"),
        (b"\x03\x09192.0.2.1", "192.0.2.1:80"),
        (b"\x03\x0d[2001:db8::1]", "[2001:db8::1]:80"),
    ] {
        let mut served = served(None, false).await;
        served.send(&[HELLO, &[5, 1, 0], address, &[0, 80]].concat()).await;
        let far = served.far().await;
        assert_eq!(Destination::decode(far.destination()).unwrap().to_string(), shown);
    }
}

#[tokio::test]
async fn strict_answers_what_the_dial_brought() {
    for (result, reply) in [
        (Ok(()), 0),
        (Err(DialError::Failed), 1),
        (Err(DialError::Denied), 2),
        (Err(DialError::Unreachable), 4),
        (Err(DialError::NotResolved), 4),
        (Err(DialError::Refused), 5),
        (Err(DialError::TimedOut), 6),
    ] {
        let mut served = served(None, true).await;
        served.send(&[HELLO, CONNECT].concat()).await;
        served.expect(&[5, 0]).await;
        let far = served.far().await;
        far.confirm(result);
        served.expect_reply(reply).await;
        if reply != 0 {
            served.expect_end().await;
        }
    }
}

#[tokio::test]
async fn strict_answers_a_reset() {
    let mut served = served(None, true).await;
    served.send(&[HELLO, CONNECT].concat()).await;
    served.expect(&[5, 0]).await;
    served.far().await.reset(ResetCode::SESSION);
    served.expect_reply(1).await;
}

#[tokio::test]
async fn a_failed_dial_shows_as_a_reset_where_the_answer_was_success() {
    let mut served = served(None, false).await;
    served.send(&[HELLO, CONNECT].concat()).await;
    served.expect(&[5, 0]).await;
    served.expect_reply(0).await;
    served.far().await.confirm(Err(DialError::Refused));
    let error = served.program.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn without_a_tunnel_the_answer_is_a_failure_in_time() {
    let (mut program, service) = served::served_by(NoTunnel, |socket, slot, outlet| async move {
        serve(socket, None, false, slot, &outlet).await;
    })
    .await;
    program.write_all(&[HELLO, CONNECT].concat()).await.unwrap();
    let mut answer = [0; 2];
    program.read_exact(&mut answer).await.unwrap();
    // The clock stands still while something can be done, and jumps to the time-out otherwise.
    tokio::time::pause();
    let mut answer = [0; 10];
    program.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [5, 1, 0, 1, 0, 0, 0, 0, 0, 0]);
    service.await.unwrap();
}

#[tokio::test]
async fn user_and_password_are_asked_for() {
    let credentials = || Some(Credentials::new("me", "secret").unwrap());
    let mut served_right = served(credentials(), false).await;
    served_right.send(&[5, 2, 0, 2]).await;
    served_right.expect(&[5, 2]).await;
    served_right.send(b"\x01\x02me\x06secret").await;
    served_right.expect(&[1, 0]).await;
    served_right.send(CONNECT).await;
    served_right.expect_reply(0).await;
    served_right.far().await;

    for proof in [&b"\x01\x02me\x06wrong!"[..], b"\x01\x02ma\x06secret", b"\x01\x02me\x01s"] {
        let mut served_wrong = served(credentials(), false).await;
        served_wrong.send(&[5, 1, 2]).await;
        served_wrong.expect(&[5, 2]).await;
        served_wrong.send(&[proof, CONNECT].concat()).await;
        let mut answer = [0; 2];
        served_wrong.program.read_exact(&mut answer).await.unwrap();
        assert_ne!(answer[1], 0);
        served_wrong.expect_end().await;
        served_wrong.expect_nothing_opened().await;
    }
}

#[tokio::test]
async fn a_method_that_is_not_offered_is_refused() {
    // No proof where one is asked for; a proof, or GSSAPI, where none is.
    for (credentials, methods) in [
        (Some(Credentials::new("me", "secret").unwrap()), &[5, 1, 0][..]),
        (None, &[5, 1, 2]),
        (None, &[5, 1, 1]),
        (None, &[5, 0]),
    ] {
        let mut served = served(credentials, false).await;
        served.send(&[methods, CONNECT].concat()).await;
        served.expect(&[5, 0xff]).await;
        served.expect_end().await;
        served.expect_nothing_opened().await;
    }
}

#[tokio::test]
async fn connect_before_the_method_opens_nothing() {
    let mut served = served(None, false).await;
    served.send(&[CONNECT, CONNECT].concat()).await;
    // Its beginning reads as an offer of method 0; what follows is no request.
    served.expect(&[5, 0]).await;
    served.expect_end().await;
    served.expect_nothing_opened().await;
}

#[tokio::test]
async fn other_commands_and_wrong_destinations_are_answered() {
    for (request, reply) in [
        (&b"\x05\x02\x00\x01\x01\x02\x03\x04\x00\x50"[..], 7),
        (b"\x05\x09\x00\x01\x01\x02\x03\x04\x00\x50", 7),
        (b"\x05\x01\x00\x02\x01\x02\x03\x04\x00\x50", 8),
        (b"\x05\x01\x00\x01\x01\x02\x03\x04\x00\x00", 1),
        (b"\x05\x01\x00\x03\x00\x00\x50", 1),
        (b"\x05\x01\x00\x03\x03a\x1bb\x00\x50", 1),
        (b"\x05\x01\x00\x03\x03a b\x00\x50", 1),
    ] {
        let mut served = served(None, false).await;
        served.send(&[HELLO, request].concat()).await;
        served.expect(&[5, 0]).await;
        served.expect_reply(reply).await;
        served.expect_end().await;
        served.expect_nothing_opened().await;
    }
}

/// The handshake over memory, with what a program sends in all.
async fn handshake_of(sent: &[u8], credentials: Option<&Credentials>) -> Result<Target, HandshakeError> {
    let (mut program, mut socket): (DuplexStream, DuplexStream) = duplex(4096);
    program.write_all(sent).await.unwrap();
    program.shutdown().await.unwrap();
    let result = handshake(&mut socket, credentials).await;
    drop(program);
    match result? {
        Request::Connect(target) => Ok(target),
        Request::Associate { .. } => panic!("it asked for a connection"),
    }
}

#[tokio::test]
async fn a_handshake_that_is_cut_anywhere_ends_with_an_error() {
    let credentials = Credentials::new("me", "secret").unwrap();
    let whole = [HELLO, CONNECT].concat();
    let proven = [&[5, 1, 2], &b"\x01\x02me\x06secret"[..], CONNECT].concat();
    for (whole, credentials) in [(whole, None), (proven, Some(&credentials))] {
        assert!(handshake_of(&whole, credentials).await.is_ok());
        for cut in 0..whole.len() {
            assert!(handshake_of(&whole[..cut], credentials).await.is_err(), "cut at {cut}");
        }
        for flipped in 0..whole.len() {
            let mut wrong = whole.clone();
            wrong[flipped] ^= 0x80;
            // No panic, and an end: what it says is free.
            let _ = handshake_of(&wrong, credentials).await;
        }
    }
}

#[tokio::test]
async fn a_silent_program_is_closed_at_the_deadline() {
    for sent in [&[][..], &[5], HELLO, &[5, 1, 0, 5, 1, 0, 3, 200]] {
        let mut served = served(None, false).await;
        served.send(sent).await;
        tokio::time::pause();
        let began = tokio::time::Instant::now();
        served.service.await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 10);
        tokio::time::resume();
        // Closed; what was not read makes it a reset.
        let _ = served.program.read_to_end(&mut Vec::new()).await;
    }
}
