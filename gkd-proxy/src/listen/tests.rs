use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use super::*;
use crate::connection::VirtualConnection;
use crate::destination::Destination;
use crate::dial::Dialer;
use crate::exit::Exit;
use crate::memory::{self, Memory};
use crate::rules::Rules;

async fn listening(form: &str) -> (Listening, UnboundedReceiver<Memory>) {
    listening_with(form, &ListenConfig::default()).await
}

async fn listening_with(form: &str, config: &ListenConfig) -> (Listening, UnboundedReceiver<Memory>) {
    let (opener, far) = memory::opener();
    (listen(&form.parse().unwrap(), opener, config).await.unwrap(), far)
}

async fn program(listening: &Listening) -> TcpStream {
    TcpStream::connect(listening.local_addrs()[0]).await.unwrap()
}

/// An exit that reaches loopback, serving whatever comes.
fn serve_far_ends(mut far: UnboundedReceiver<Memory>) {
    let dialer = Dialer::new(Rules::allow(["127.0.0.0/8".parse().unwrap()]));
    let exit = Arc::new(Exit::new(dialer, RelayConfig::default()));
    tokio::spawn(async move {
        while let Some(connection) = far.recv().await {
            let exit = Arc::clone(&exit);
            tokio::spawn(async move { exit.serve(connection).await });
        }
    });
}

/// A destination that sends back what it gets.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = socket.split();
                tokio::io::copy(&mut reader, &mut writer).await?;
                writer.shutdown().await
            });
        }
    });
    addr
}

#[tokio::test]
async fn mixed_tells_socks_from_http_and_closes_the_rest() {
    let (listening, mut far) = listening("mixed://127.0.0.1:0").await;
    let mut socks = program(&listening).await;
    socks.write_all(b"\x05\x01\x00\x05\x01\x00\x03\x01a\x00\x50").await.unwrap();
    assert_eq!(&far.recv().await.unwrap().destination()[..], b"\x01\x03\x01a\x00\x50");

    let mut http = program(&listening).await;
    http.write_all(b"CONNECT b:80 HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(&far.recv().await.unwrap().destination()[..], b"\x01\x03\x01b\x00\x50");

    for other in [&b"\x04\x01\x00\x50\x01\x02\x03\x04\x00"[..], b"\x16\x03\x01", b"\x00", b"\xff", b""] {
        let mut other_program = program(&listening).await;
        other_program.write_all(other).await.unwrap();
        other_program.shutdown().await.unwrap();
        // Closed without a word; bytes that were not read make it a reset.
        let mut answer = Vec::new();
        let _ = other_program.read_to_end(&mut answer).await;
        assert!(answer.is_empty(), "{other:?}");
    }
}

#[tokio::test]
async fn everything_together_reaches_a_real_destination() {
    let (listening, far) = listening("mixed://0").await;
    serve_far_ends(far);
    let echo = echo().await;
    let mut socks = program(&listening).await;
    let [a, b] = echo.port().to_be_bytes();
    socks.write_all(&[5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, a, b]).await.unwrap();
    let mut http = program(&listening).await;
    http.write_all(format!("CONNECT {echo} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
    // Each with an answer ahead of the echo.
    for (program, ahead) in [(&mut socks, 12), (&mut http, 0)] {
        let content = vec![7; 1_000_000];
        let (mut reader, mut writer) = program.split();
        let mut got = Vec::new();
        let write = async {
            writer.write_all(&content).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        tokio::join!(write, async { reader.read_to_end(&mut got).await.unwrap() });
        let ahead =
            if ahead == 0 { got.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4 } else { ahead };
        assert!(got[ahead..] == content);
    }
}

#[tokio::test]
async fn a_forward_leads_where_it_says() {
    let (listening, far) = listening(&format!("tcp://0:127.0.0.1:{}", echo().await.port())).await;
    serve_far_ends(far);
    let mut program = program(&listening).await;
    program.write_all(b"echo").await.unwrap();
    let mut read = [0; 4];
    program.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"echo");
}

#[tokio::test]
async fn a_forward_that_does_not_reach_its_target_resets() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for target in [closed.to_string(), "10.0.0.1:80".into()] {
        let (listening, far) = listening(&format!("tcp://0:{target}")).await;
        serve_far_ends(far);
        let error = program(&listening).await.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_range_forwards_port_by_port() {
    // A range of four free ports: others may take one in between, so several are tried.
    for first in (20_000..60_000).step_by(1_237) {
        let (opener, mut far) = memory::opener();
        let form = format!("tcp://{first}-{}:name.example:7000-7003", first + 3);
        let Ok(listening) = listen(&form.parse().unwrap(), opener, &ListenConfig::default()).await else {
            continue;
        };
        assert_eq!(listening.local_addrs().len(), 4);
        for (index, addr) in listening.local_addrs().iter().enumerate() {
            assert_eq!(addr.port(), first + index as u16);
            let _program = TcpStream::connect(addr).await.unwrap();
            let destination = Destination::decode(far.recv().await.unwrap().destination()).unwrap();
            assert_eq!(destination.to_string(), format!("name.example:{}", 7000 + index));
        }
        return;
    }
    panic!("no four free ports");
}

#[tokio::test]
async fn a_forward_tells_its_target_who_the_client_is() {
    let (listening, mut far) = listening("tcp://0:name.example:80?proxy=v2").await;
    let mut program = program(&listening).await;
    program.write_all(b"hello").await.unwrap();
    let header = proxy_header::encode(program.local_addr().unwrap(), program.peer_addr().unwrap());
    let got = far.recv().await.unwrap().read(header.len() + 5).await.unwrap();
    assert_eq!(got, [&header[..], b"hello"].concat());
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_mend() {
    let (first, _far) = listening("mixed://0").await;
    let form = format!("socks5://me:secret@{}", first.local_addrs()[0].port());
    let error =
        listen(&form.parse().unwrap(), memory::opener().0, &ListenConfig::default()).await.unwrap_err();
    let words = error.to_string();
    assert!(words.contains("another program has the port") && !words.contains("secret"), "{words}");
}

#[tokio::test]
async fn programs_that_say_nothing_do_not_keep_others_out() {
    let config = ListenConfig { max_handshakes: 8, ..ListenConfig::default() };
    let (listening, mut far) = listening_with("mixed://0", &config).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(program(&listening).await);
    }
    let mut honest = program(&listening).await;
    honest.write_all(b"CONNECT b:80 HTTP/1.1\r\n\r\n").await.unwrap();
    timeout(Duration::from_secs(5), far.recv()).await.unwrap().unwrap();
    // The oldest have given way.
    assert_eq!(silent[0].read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn stopping_closes_the_port_and_lets_what_runs_go_on() {
    let (listening, mut far) = listening("tcp://0:name.example:80").await;
    let mut program_there = program(&listening).await;
    let far_end = far.recv().await.unwrap();
    assert_eq!(listening.serving(), 1);
    listening.stop();
    listening.closed().await;
    assert!(TcpStream::connect(listening.local_addrs()[0]).await.is_err());
    // Others may have the port at once, what still runs notwithstanding.
    drop(TcpListener::bind(listening.local_addrs()[0]).await.unwrap());
    assert_eq!(listening.serving(), 1);
    program_there.write_all(b"still").await.unwrap();
    assert_eq!(far_end.read(5).await.unwrap(), b"still");
    assert!(timeout(Duration::from_millis(50), listening.ended()).await.is_err());
    listening.abort();
    listening.ended().await;
    assert!(program_there.read_u8().await.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset));
    far_end.until_reset().await;
}

#[tokio::test]
async fn a_dropped_listener_ends_what_it_serves() {
    let (listening, mut far) = listening("tcp://0:name.example:80").await;
    let mut program = program(&listening).await;
    let far_end = far.recv().await.unwrap();
    drop(listening);
    assert!(program.read_u8().await.is_err());
    far_end.until_reset().await;
}
