use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::TcpListener;

use super::*;
use crate::carrier::{Acceptor, Wire};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn server_key() -> SecretKey {
    SecretKey::from_seed([2; 32])
}

fn gkd() -> Probe {
    Probe::Gkd { server_key: server_key().public() }
}

#[tokio::test]
async fn a_gkd_server_is_known_over_tcp_and_over_any_stream() {
    for plain in [false, true] {
        let acceptor = Acceptor::new(&server_key()).unwrap().with_plain(plain);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async { acceptor.accept(listener.accept().await.unwrap().0, soon()).await };
        assert_eq!(tokio::join!(probe(address, soon()), server).0.unwrap(), gkd());

        let (near, far) = duplex(4096);
        let server = acceptor.accept(Wire::brought(far), soon());
        assert_eq!(tokio::join!(probe_stream(near, soon()), server).0.unwrap(), gkd());
    }
}

#[tokio::test]
async fn what_answers_otherwise_or_hangs_up_is_not_gkd() {
    for answer in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"",
    ] {
        let (near, mut far) = duplex(4096);
        let server = async {
            let _ = far.read(&mut [0; 4096]).await;
            far.write_all(answer).await.unwrap();
            drop(far);
        };
        let told = tokio::join!(probe_stream(near, soon()), server).0;
        assert!(matches!(told, Ok(Probe::Other { .. })), "{answer:?}: {told:?}");
    }
}

#[tokio::test]
async fn an_echo_is_not_gkd() {
    let (near, mut far) = duplex(8192);
    let echo = tokio::spawn(async move {
        let mut buf = [0; 4096];
        while let Ok(len @ 1..) = far.read(&mut buf).await {
            if far.write_all(&buf[..len]).await.is_err() {
                return;
            }
        }
    });
    let told = probe_stream(near, soon()).await;
    assert!(matches!(told, Ok(Probe::Other { .. })), "{told:?}");
    echo.await.unwrap();
}

#[tokio::test]
async fn who_closes_at_once_is_not_gkd_however_the_kernel_tells_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for linger in [None, Some(Duration::ZERO)] {
        let server = async {
            let (tcp, _) = listener.accept().await.unwrap();
            socket2::SockRef::from(&tcp).set_linger(linger).unwrap();
        };
        let told = tokio::join!(probe(address, soon()), server).0;
        assert!(matches!(told, Ok(Probe::Other { .. })), "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_and_half_an_answer_end_at_the_deadline() {
    for answer in [&b""[..], b"\x16\x03\x03\x00\x7a\x02\x00"] {
        let (near, mut far) = duplex(4096);
        far.write_all(answer).await.unwrap();
        let told = probe_stream(near, soon()).await;
        assert!(matches!(told, Err(ProbeError::Deadline)), "{told:?}");
    }
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let told = probe(address, soon()).await;
    assert!(matches!(told, Err(ProbeError::Unreachable(_))), "{told:?}");
}
