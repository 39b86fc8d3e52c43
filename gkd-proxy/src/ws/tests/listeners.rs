//! The listeners in both directions, over a session in memory.

use futures::{SinkExt, StreamExt};
use gkd_core::proto::packet::ResetCode;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::Message;

use super::*;
use crate::connection::VirtualConnection;
use crate::destination::Destination;
use crate::ws::WsToStream;

/// A WebSocket server that leads to an echo.
async fn ws_echo() -> SocketAddr {
    let (echo, listener) = (echo().await, TcpListener::bind("127.0.0.1:0").await.unwrap());
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(WsToStream::new(socket, echo).copy_bidirectional());
        }
    });
    addr
}

/// Sends some MiB through a plain stream with an echo behind, and looks at every byte.
async fn echoes(io: TcpStream) {
    let content: Vec<u8> =
        (0..3_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (mut reader, mut writer) = io.into_split();
    let sent = content.clone();
    let write = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer
    });
    let mut got = vec![0; content.len()];
    timeout(LONG, reader.read_exact(&mut got)).await.unwrap().unwrap();
    assert!(got == content);
    // Its end goes there and comes back.
    let mut writer = write.await.unwrap();
    writer.shutdown().await.unwrap();
    assert_eq!(timeout(LONG, reader.read(&mut [0])).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn tcp_to_websocket_and_back_is_the_same_bytes() {
    let (listening, far) =
        listening(&format!("tcp://0:ws://{}/x?y", ws_echo().await), &ListenConfig::default()).await;
    serve_far_ends(far);
    echoes(program(&listening).await).await;
}

#[tokio::test]
async fn a_server_that_speaks_no_websocket_resets_the_program() {
    let (listening, far) =
        listening(&format!("tcp://0:ws://{}/", echo().await), &ListenConfig::default()).await;
    serve_far_ends(far);
    let error = timeout(LONG, program(&listening).await.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_range_leads_port_by_port_and_the_header_goes_ahead() {
    let (listening, mut far) = listening("ws://0:name.example:80?proxy=v2", &ListenConfig::default()).await;
    let mut io = program(&listening).await;
    upgrade(&mut io).await;
    io.write_all(&frame(0x82, b"hello")).await.unwrap();
    let header = crate::proxy_header::encode(io.local_addr().unwrap(), io.peer_addr().unwrap());
    let far_end = far.recv().await.unwrap();
    assert_eq!(Destination::decode(far_end.destination()).unwrap().to_string(), "name.example:80");
    assert_eq!(far_end.read(header.len() + 5).await.unwrap(), [&header[..], b"hello"].concat());
    // A reset of the far end is told.
    far_end.reset(ResetCode::STREAM);
    let mut close = [0; 4];
    timeout(LONG, io.read_exact(&mut close)).await.unwrap().unwrap();
    assert_eq!((close[0], close[2..].to_vec()), (0x88, 1011u16.to_be_bytes().to_vec()));
}

#[tokio::test]
async fn a_program_that_vanishes_is_a_reset_even_while_nothing_is_read() {
    let (listening, mut far) = listening("ws://0:name.example:80", &ListenConfig::default()).await;
    let mut io = program(&listening).await;
    upgrade(&mut io).await;
    let far_end = far.recv().await.unwrap();
    // More than the connection takes.
    let message = frame(0x82, &vec![1; 1024 * 1024]);
    timeout(LONG, io.write_all(&message)).await.unwrap().unwrap();
    far_end.read(1).await.unwrap();
    io.set_zero_linger().unwrap();
    drop(io);
    assert_eq!(timeout(LONG, far_end.until_reset()).await.unwrap(), ResetCode::STREAM);
}

#[tokio::test]
async fn an_aborted_listener_resets_what_it_serves() {
    let (listening, mut far) = listening("ws://0:name.example:80", &ListenConfig::default()).await;
    let mut io = program(&listening).await;
    upgrade(&mut io).await;
    let far_end = far.recv().await.unwrap();
    listening.abort();
    listening.ended().await;
    assert!(io.read_u8().await.is_err());
    far_end.until_reset().await;
}

mod at_the_other_end {
    use super::*;
    use crate::reverse::tests::Server;
    use crate::reverse::{Offers, listen_remotely};

    /// Where a listener at the other end listens.
    async fn remotely(form: &str) -> (SocketAddr, crate::reverse::Remote) {
        let (server, offers) = (Server::new(), Offers::new());
        let remote = listen_remotely(&form.parse().unwrap(), server.session(1, &offers), &offers).unwrap();
        let mut standing = remote.watch();
        let there = timeout(
            LONG,
            standing.wait_for(|standing| matches!(standing, crate::reverse::Standing::Listens(_))),
        );
        let address = match &*there.await.unwrap().unwrap() {
            crate::reverse::Standing::Listens(address) => *address,
            other => panic!("{other:?}"),
        };
        (address, remote)
    }

    #[tokio::test]
    async fn websocket_leads_to_what_is_plain_here() {
        let (address, _remote) = remotely(&format!("ws://0:{}", echo().await)).await;
        let io = TcpStream::connect(address).await.unwrap();
        let (mut ws, _) = tokio_tungstenite::client_async("ws://a.example/", io).await.unwrap();
        ws.send(Message::text("hello")).await.unwrap();
        assert_eq!(timeout(LONG, ws.next()).await.unwrap().unwrap().unwrap(), Message::binary(&b"hello"[..]));
        ws.close(None).await.unwrap();
        assert_eq!(timeout(LONG, ws.next()).await.unwrap().unwrap().unwrap(), Message::Close(None));
        let mut bad = TcpStream::connect(address).await.unwrap();
        bad.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(timeout(LONG, read_head(&mut bad)).await.unwrap().starts_with("HTTP/1.1 426 "));
    }

    #[tokio::test]
    async fn what_is_plain_leads_to_a_websocket_server_here() {
        let (address, _remote) = remotely(&format!("tcp://0:ws://{}/", ws_echo().await)).await;
        echoes(TcpStream::connect(address).await.unwrap()).await;
    }

    #[tokio::test]
    async fn the_header_of_the_other_end_reaches_the_destination() {
        let destination = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let form = format!("ws://0:{}?proxy=v2", destination.local_addr().unwrap());
        let (address, _remote) = remotely(&form).await;
        let mut io = TcpStream::connect(address).await.unwrap();
        upgrade(&mut io).await;
        io.write_all(&frame(0x82, b"hello")).await.unwrap();
        let header = crate::proxy_header::encode(io.local_addr().unwrap(), address);
        let mut got = vec![0; header.len() + 5];
        let (mut socket, _) = destination.accept().await.unwrap();
        timeout(LONG, socket.read_exact(&mut got)).await.unwrap().unwrap();
        assert_eq!(got, [&header[..], b"hello"].concat());
    }
}
