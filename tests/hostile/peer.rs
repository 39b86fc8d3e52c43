//! [`Peer`]: one end of one tunnel, whose handshake is honest and whose packets are the test's. And honest ends beside
//! it, which must notice nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gkd_core::carrier::{self, Carrier, CarrierKind, Dial, ws};
use gkd_core::identity::{PublicKey, SecretKey, new_session_id};
use gkd_core::link::Link;
use gkd_core::{Client, Connection, Server};
use gkd_proto::SessionConfig;
use gkd_proto::handshake::{Hello, Reject, VERSION, Welcome, decode_answer};
use gkd_proto::id::{ConnectionId, PacketNumber, SessionId, Side, TunnelId};
use gkd_proto::packet::{Account, Ack, CloseCode, Connect, Credit, Data, Packet, Reset, ResetCode};
use gkd_tests::Serving;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{content, read_all, spawn_echo, within};

/// The carriers that a server takes.
pub(crate) const KINDS: [CarrierKind; 3] = [CarrierKind::Plain, CarrierKind::Tls, CarrierKind::Ws];

/// The largest number that a packet can hold.
pub(crate) const MOST: u64 = (1 << 62) - 1;

/// Where a server is, and how it is spoken to.
#[derive(Clone, Copy)]
pub(crate) struct At {
    pub(crate) address: SocketAddr,
    pub(crate) key: PublicKey,
    pub(crate) kind: CarrierKind,
}

impl At {
    pub(crate) fn server(server: &Server, kind: CarrierKind) -> Self {
        Self { address: server.local_addr().unwrap(), key: server.key(), kind }
    }

    /// A process, and the key of its one user.
    pub(crate) fn process(serving: &Serving, kind: CarrierKind) -> (Self, SecretKey) {
        let link: Link = serving.link.parse().unwrap();
        (Self { address: ([127, 0, 0, 1], serving.port).into(), key: link.server, kind }, link.user)
    }

    /// The carrier's handshake, over a connection that is there.
    pub(crate) async fn carrier(
        &self,
        tcp: TcpStream,
        key: &SecretKey,
        session: SessionId,
        tunnel: TunnelId,
    ) -> Carrier {
        let web = self.web();
        let dial = Dial { kind: self.kind, key, server: Some(self.key), session, tunnel, web: Some(&web) };
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        carrier::connect(tcp, &dial, deadline).await.unwrap()
    }

    /// Which WebSocket is asked for, where it is spoken to in one.
    pub(crate) fn web(&self) -> ws::Target {
        let address = self.address.to_string().parse().unwrap();
        ws::Target::new(&address, self.address.port(), &ws::Options::default())
    }

    pub(crate) async fn dial(&self) -> TcpStream {
        let tcp = within("dial", TcpStream::connect(self.address)).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp
    }
}

pub(crate) fn hello(session: SessionId, tunnel: u64, exists: bool) -> Hello {
    let parameters = SessionConfig::default().parameters();
    Hello { version: VERSION, session, tunnel: TunnelId(tunnel), exists, parameters, dead: Vec::new() }
}

/// One end of one tunnel.
pub(crate) struct Peer {
    pub(crate) session: SessionId,
    pub(crate) tunnel: TunnelId,
    pub(crate) welcome: Welcome,
    reader: ReadHalf<Carrier>,
    writer: WriteHalf<Carrier>,
    buf: BytesMut,
    /// Counted packets that arrived.
    pub(crate) counted: u64,
}

impl Peer {
    /// A fresh session under this key, and its first tunnel.
    pub(crate) async fn join(at: At, key: &SecretKey) -> Self {
        Self::say(at, key, &hello(new_session_id(), 0, false)).await.unwrap()
    }

    /// Another tunnel of the same session.
    pub(crate) async fn again(&self, at: At, key: &SecretKey, tunnel: u64) -> Self {
        Self::say(at, key, &hello(self.session, tunnel, true)).await.unwrap()
    }

    /// Says this Hello.
    pub(crate) async fn say(at: At, key: &SecretKey, hello: &Hello) -> Result<Self, Reject> {
        let mut carrier = at.carrier(at.dial().await, key, hello.session, hello.tunnel).await;
        let mut buf = BytesMut::new();
        hello.encode(&mut buf);
        carrier.write_all(&buf).await.unwrap();
        carrier.flush().await.unwrap();
        buf.clear();
        let answer = within("answer", async {
            loop {
                if let Some(answer) = decode_answer(&mut buf).unwrap() {
                    return answer;
                }
                assert!(carrier.read_buf(&mut buf).await.unwrap() > 0, "closed without an answer");
            }
        });
        let welcome = answer.await?;
        let (reader, writer) = tokio::io::split(carrier);
        Ok(Self { session: hello.session, tunnel: hello.tunnel, welcome, reader, writer, buf, counted: 0 })
    }

    pub(crate) async fn send(&mut self, packets: impl IntoIterator<Item = Packet>) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        packets.into_iter().for_each(|packet| packet.encode(&mut bytes));
        self.send_bytes(&bytes).await
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        within("the server reads", async {
            self.writer.write_all(bytes).await?;
            self.writer.flush().await
        })
        .await
    }

    /// The next packet; `None` when the server closed the tunnel.
    pub(crate) async fn next(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = Packet::decode(&mut self.buf).unwrap() {
                self.counted += u64::from(packet.is_counted());
                return Some(packet);
            }
            let read = within("the server writes", self.reader.read_buf(&mut self.buf)).await;
            if read.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// The next packet that this finds.
    pub(crate) async fn find<T>(&mut self, mut find: impl FnMut(Packet) -> Option<T>) -> T {
        loop {
            let packet = self.next().await.expect("the tunnel was closed");
            let close = match &packet {
                Packet::Close(close) => Some(close.clone()),
                _ => None,
            };
            match (find(packet), close) {
                (Some(found), _) => return found,
                (None, Some(close)) => panic!("the session was closed: {close:?}"),
                (None, None) => {}
            }
        }
    }

    /// Waits until the server has ended the session; its reason.
    pub(crate) async fn closed(&mut self) -> (CloseCode, String) {
        let told = self.find(|packet| match packet {
            Packet::Close(close) => Some((close.code, close.reason)),
            _ => None,
        });
        let told = told.await;
        assert!(self.next().await.is_none(), "the tunnel goes with its session");
        told
    }

    /// What acknowledges all that was read.
    pub(crate) fn ack(&self) -> Packet {
        Packet::Ack(Ack { tunnel: self.tunnel, count: self.counted, delay: 0 })
    }
}

pub(crate) fn id(index: u64) -> ConnectionId {
    ConnectionId::from_index(Side::Client, index)
}

pub(crate) fn connect(index: u64) -> Packet {
    connect_to(index, Bytes::new())
}

pub(crate) fn connect_to(index: u64, destination: Bytes) -> Packet {
    Packet::Connect(Connect { connection: id(index), destination })
}

pub(crate) fn data(index: u64, number: u64, payload: impl Into<Bytes>) -> Packet {
    Packet::Data(Data { connection: id(index), number: PacketNumber(number), payload: payload.into() })
}

pub(crate) fn reset(index: u64, total: u64) -> Packet {
    Packet::Reset(Reset { connection: id(index), code: ResetCode::APPLICATION, total })
}

/// Credit without end: for the session and for one connection.
pub(crate) fn all_credit(index: u64) -> [Packet; 2] {
    [Account::Session, Account::Connection(id(index))]
        .map(|account| Packet::Credit(Credit { account, total: MOST }))
}

/// A server in this process that takes everybody over both carriers.
pub(crate) async fn server(config: SessionConfig) -> Arc<Server> {
    let builder = Server::builder().listen("127.0.0.1:0").plain(true).session(config);
    Arc::new(builder.bind().await.unwrap())
}

/// As [`server`], answering every connection with its own bytes.
pub(crate) async fn echo_server(config: SessionConfig) -> Arc<Server> {
    let server = server(config).await;
    spawn_echo(server.clone());
    server
}

/// An honest client over two tunnels.
pub(crate) async fn honest(at: At, key: &SecretKey) -> Client {
    let builder = Client::builder().address(at.address).server_key(at.key).carrier(at.kind);
    within("log in", builder.key(key.clone()).tunnels(2).connect()).await.unwrap()
}

/// An exchange of an honest client with an echo: whole.
pub(crate) async fn exchange(connection: &Connection, len: usize) {
    let sent = content(len as u64, len);
    let writing = async {
        (&mut { connection }).write_all(&sent).await.unwrap();
        (&mut { connection }).shutdown().await.unwrap();
    };
    let (received, ()) = within("an exchange", async { tokio::join!(read_all(connection), writing) }).await;
    assert!(received.unwrap() == sent, "{len} bytes came back otherwise");
}

/// A sink behind a server: takes connections and reads what comes, as a destination for [`connect_to`].
pub(crate) async fn sink() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move { tokio::io::copy(&mut socket, &mut tokio::io::sink()).await });
        }
    });
    address
}

/// As the binaries write it into a Connect.
pub(crate) fn destination(address: SocketAddr) -> Bytes {
    gkd_proxy::Destination::Tcp(address.to_string().parse().unwrap()).encode()
}
