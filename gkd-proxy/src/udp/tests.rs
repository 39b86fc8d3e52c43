use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use super::*;
use crate::destination::{Destination, Target};
use crate::dial::{Dialer, Resolve, Resolving};
use crate::exit::{Exit, ExitError};
use crate::listen::{ListenConfig, Listening, listen};
use crate::memory::{self, Memory};
use crate::relay::{End, RelayConfig};
use crate::rules::Rules;

/// So long a test waits for what has to come.
const LONG: Duration = Duration::from_secs(20);

/// So long it waits for what must not.
const SHORT: Duration = Duration::from_millis(100);

fn exit(relay: RelayConfig) -> Arc<Exit> {
    let rules = Rules::allow(["127.0.0.1/32".parse().unwrap(), "::1/128".parse().unwrap()]);
    Arc::new(Exit::new(Dialer::new(rules).with_resolver(ToLoopback), relay))
}

/// Every name leads here, and first to where nothing may go.
struct ToLoopback;

impl Resolve for ToLoopback {
    fn resolve(&self, _: &str, port: u16) -> Resolving {
        Box::pin(async move { Ok(vec![([127, 0, 0, 2], port).into(), ([127, 0, 0, 1], port).into()]) })
    }
}

fn serve_far_ends(mut far: UnboundedReceiver<Memory>) {
    let exit = exit(RelayConfig::default());
    tokio::spawn(async move {
        while let Some(connection) = far.recv().await {
            exit.clone().spawn(connection);
        }
    });
}

async fn listening(form: &str, config: &ListenConfig) -> (Listening, UnboundedReceiver<Memory>) {
    let (opener, far) = memory::opener();
    (listen(&form.parse().unwrap(), opener, config).await.unwrap(), far)
}

/// A destination that sends back what it gets, behind the port that it comes from.
async fn echo() -> SocketAddr {
    let socket = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (payload, from) = recv_from(&socket).await.unwrap();
            socket.send_to(&payload, from).await.unwrap();
        }
    });
    addr
}

async fn program(to: SocketAddr) -> UdpSocket {
    let socket = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap();
    socket
}

async fn expect(socket: &UdpSocket, payload: &[u8]) {
    let received = timeout(LONG, recv(socket)).await.unwrap().unwrap();
    assert!(received == payload, "{} bytes instead of {}", received.len(), payload.len());
}

async fn expect_nothing(socket: &UdpSocket) {
    assert!(timeout(SHORT, recv(socket)).await.is_err());
}

#[tokio::test]
async fn each_program_gets_its_own_answers_and_the_largest_datagram_passes() {
    let form = format!("udp://127.0.0.1:0:{}", echo().await);
    let (listening, far) = listening(&form, &ListenConfig::default()).await;
    serve_far_ends(far);
    let one = program(listening.local_addrs()[0]).await;
    let other = program(listening.local_addrs()[0]).await;
    let largest = vec![7; MAX_PAYLOAD];
    one.send(b"one").await.unwrap();
    other.send(&largest).await.unwrap();
    expect(&one, b"one").await;
    expect(&other, &largest).await;
    // An empty one is a datagram too.
    one.send(b"").await.unwrap();
    expect(&one, b"").await;
    assert_eq!(listening.serving(), 2);
    listening.stop();
    timeout(LONG, listening.ended()).await.expect("flows end with their listener");
}

#[tokio::test]
async fn a_flow_ends_at_both_ends_when_it_is_idle_and_begins_anew() {
    let destination = echo().await;
    let relay = RelayConfig { udp_idle_for: Duration::from_millis(50), ..RelayConfig::default() };
    let config = ListenConfig { relay, ..ListenConfig::default() };
    let (listening, mut far) = listening(&format!("udp://127.0.0.1:0:{destination}"), &config).await;
    let program = program(listening.local_addrs()[0]).await;
    let exit = exit(RelayConfig::default());
    for _ in 0..2 {
        program.send(b"hello").await.unwrap();
        let served = exit.clone().spawn(far.recv().await.unwrap());
        expect(&program, b"hello").await;
        let relayed = timeout(LONG, served).await.unwrap().unwrap().unwrap();
        assert!(matches!(relayed.end, End::Finished), "{:?}", relayed.end);
        assert_eq!((relayed.down, relayed.up), (5, 5));
    }
}

#[tokio::test]
async fn an_exit_ends_a_flow_that_is_idle() {
    let (near, far) = memory::pair(Destination::Udp(echo().await.to_string().parse().unwrap()).encode());
    let relay = RelayConfig { udp_idle_for: Duration::from_millis(50), ..RelayConfig::default() };
    let relayed = timeout(LONG, exit(relay).serve(far)).await.unwrap().unwrap();
    assert!(matches!(relayed.end, End::Idle), "{:?}", relayed.end);
    timeout(LONG, ended(&near)).await.unwrap();
}

#[tokio::test]
async fn where_an_exit_ends_a_flow_ends_as_soon_as_it_is_quiet() {
    let one = echo().await;
    for destination in [Destination::Udp(one.to_string().parse().unwrap()), Destination::UdpAny] {
        let address = match destination {
            Destination::UdpAny => one.to_string().parse::<Target>().unwrap().to_bytes(),
            _ => Bytes::new(),
        };
        let (near, far) = memory::pair(destination.encode());
        let exit = exit(RelayConfig::default());
        let served = exit.clone().spawn(far);
        let talk = async || {
            near.send_datagram(address.clone(), "x".into()).unwrap();
            timeout(LONG, near.recv_datagram()).await.unwrap().unwrap()
        };
        talk().await;
        exit.end_quiet_flows();
        // One that is in use goes on, for longer than it may be quiet.
        let began = Instant::now();
        while began.elapsed() < QUIET + SHORT {
            assert_eq!(talk().await.1, "x");
            tokio::time::sleep(SHORT).await;
        }
        let relayed = timeout(LONG, served).await.expect("it ends").unwrap().unwrap();
        assert!(matches!(relayed.end, End::Idle), "{:?}", relayed.end);
        // And so does one that comes then.
        let (_near, far) = memory::pair(destination.encode());
        let relayed = timeout(LONG, exit.serve(far)).await.expect("it ends").unwrap();
        assert!(matches!(relayed.end, End::Idle), "{:?}", relayed.end);
    }
}

#[tokio::test]
async fn what_may_not_be_reached_is_not() {
    let outside = bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let form = format!("udp://127.0.0.1:0:{}", outside.local_addr().unwrap());
    let (listening, mut far) = listening(&form, &ListenConfig::default()).await;
    let program = program(listening.local_addrs()[0]).await;
    program.send(b"hello").await.unwrap();
    let error = exit(RelayConfig::default()).serve(far.recv().await.unwrap()).await.unwrap_err();
    assert!(matches!(error, ExitError::Dial(..)), "{error}");
    // A program that sends on does not open a connection for each datagram.
    for _ in 0..10 {
        program.send(b"hello").await.unwrap();
    }
    assert!(timeout(SHORT, far.recv()).await.is_err());
    expect_nothing(&outside).await;
}

#[tokio::test]
async fn a_destination_that_refuses_one_datagram_may_take_the_next() {
    let gone = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = gone.local_addr().unwrap();
    drop(gone);
    let (listening, far) = listening(&format!("udp://127.0.0.1:0:{addr}"), &ListenConfig::default()).await;
    serve_far_ends(far);
    let program = program(listening.local_addrs()[0]).await;
    program.send(b"lost").await.unwrap();
    tokio::time::sleep(SHORT).await;
    let back = bind(addr).unwrap();
    let received = timeout(LONG, async {
        loop {
            program.send(b"again").await.unwrap();
            if let Ok(received) = timeout(SHORT, recv(&back)).await {
                return received.unwrap();
            }
        }
    });
    assert_eq!(received.await.unwrap(), "again");
}

/// Sends to a target, and who answers.
async fn ask(near: &Memory, target: &str, payload: &'static [u8]) -> (String, Bytes) {
    let target: Target = target.parse().unwrap();
    near.send_datagram(target.to_bytes(), Bytes::from_static(payload)).unwrap();
    let (from, payload) = timeout(LONG, near.recv_datagram()).await.unwrap().unwrap();
    (Target::from_bytes(&from).unwrap().to_string(), payload)
}

#[tokio::test]
async fn each_datagram_goes_where_it_says_by_the_rules() {
    let (one, other) = (echo().await, echo().await);
    let (near, far) = memory::pair(Destination::UdpAny.encode());
    let served = exit(RelayConfig::default()).spawn(far);
    assert_eq!(ask(&near, &one.to_string(), b"a").await, (one.to_string(), "a".into()));
    assert_eq!(ask(&near, &other.to_string(), b"b").await, (other.to_string(), "b".into()));
    // A name leads to the first of its addresses that is permitted, and is remembered.
    for payload in [&b"c"[..], b"d"] {
        let answer = ask(&near, &format!("a.name:{}", one.port()), payload).await;
        assert_eq!(answer, (one.to_string(), payload.into()));
    }
    // Neither what is forbidden nor what is malformed goes anywhere, and neither ends the flow.
    let outside = bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let target: Target = outside.local_addr().unwrap().to_string().parse().unwrap();
    near.send_datagram(target.to_bytes(), "x".into()).unwrap();
    near.send_datagram("garbage".into(), "x".into()).unwrap();
    near.send_datagram(Bytes::new(), "x".into()).unwrap();
    expect_nothing(&outside).await;
    assert_eq!(ask(&near, &one.to_string(), b"e").await.1, "e");
    drop(near);
    let relayed = timeout(LONG, served).await.unwrap().unwrap().unwrap();
    assert_eq!((relayed.down, relayed.up), (5, 5));
}

#[tokio::test]
async fn only_hosts_that_were_sent_to_may_answer() {
    let asked = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let stranger = bind("127.0.0.3:0".parse().unwrap()).unwrap();
    let (near, far) = memory::pair(Destination::UdpAny.encode());
    exit(RelayConfig::default()).spawn(far);
    let target: Target = asked.local_addr().unwrap().to_string().parse().unwrap();
    near.send_datagram(target.to_bytes(), "question".into()).unwrap();
    let (_, from) = timeout(LONG, recv_from(&asked)).await.unwrap().unwrap();
    stranger.send_to(b"forged", from).await.unwrap();
    asked.send_to(b"answer", from).await.unwrap();
    assert_eq!(timeout(LONG, near.recv_datagram()).await.unwrap().unwrap().1, "answer");
}

#[tokio::test]
async fn a_host_that_is_forbidden_meanwhile_does_not_answer_any_more() {
    let asked = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let other = echo().await;
    let (near, far) = memory::pair(Destination::UdpAny.encode());
    let exit = exit(RelayConfig::default());
    exit.clone().spawn(far);
    let target: Target = asked.local_addr().unwrap().to_string().parse().unwrap();
    near.send_datagram(target.to_bytes(), "question".into()).unwrap();
    let (_, from) = timeout(LONG, recv_from(&asked)).await.unwrap().unwrap();
    exit.set_policy(Rules::none());
    asked.send_to(b"late", from).await.unwrap();
    assert!(timeout(SHORT, near.recv_datagram()).await.is_err());
    // The flow goes on, by the rules that are in force.
    exit.set_policy(Rules::allow(["127.0.0.1/32".parse().unwrap()]));
    assert_eq!(ask(&near, &other.to_string(), b"x").await.1, "x");
}

const HELLO: &[u8] = &[5, 1, 0];

/// A program that has a relay for its datagrams, and the relay's address.
async fn associated(listening: &Listening) -> (TcpStream, SocketAddr) {
    let mut control = TcpStream::connect(listening.local_addrs()[0]).await.unwrap();
    control.write_all(&[HELLO, b"\x05\x03\x00\x01\0\0\0\0\0\0"].concat()).await.unwrap();
    let mut reply = [0; 12];
    control.read_exact(&mut reply).await.unwrap();
    assert_eq!(&reply[..6], &[5, 0, 5, 0, 0, 1]);
    let ip: [u8; 4] = reply[6..10].try_into().unwrap();
    (control, SocketAddr::new(ip.into(), u16::from_be_bytes([reply[10], reply[11]])))
}

/// A datagram with its header.
fn wrapped(to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let IpAddr::V4(ip) = to.ip() else { panic!() };
    [&[0, 0, 0, 1][..], &ip.octets(), &to.port().to_be_bytes(), payload].concat()
}

#[tokio::test]
async fn socks_programs_send_datagrams_as_long_as_their_connection_is_there() {
    let (listening, mut far) = listening("socks5://127.0.0.1:0", &ListenConfig::default()).await;
    let (control, relay) = associated(&listening).await;
    let served = exit(RelayConfig::default()).spawn(far.recv().await.unwrap());
    let (one, other) = (echo().await, echo().await);
    let socket = program(relay).await;
    for (to, payload) in [(one, b"a"), (other, b"b")] {
        socket.send(&wrapped(to, payload)).await.unwrap();
        expect(&socket, &wrapped(to, payload)).await;
    }
    // A fragment, garbage, and another program's datagram lead nowhere.
    let mut fragment = wrapped(one, b"x");
    fragment[2] = 1;
    socket.send(&fragment).await.unwrap();
    socket.send(b"garbage").await.unwrap();
    let stranger = program(relay).await;
    stranger.send(&wrapped(one, b"x")).await.unwrap();
    expect_nothing(&stranger).await;
    expect_nothing(&socket).await;
    drop(control);
    let relayed = timeout(LONG, served).await.unwrap().unwrap().unwrap();
    assert_eq!((relayed.down, relayed.up), (2, 2));
}

#[tokio::test]
async fn a_socks_program_that_is_quiet_does_not_hold_the_end_of_its_listener_up() {
    let (listening, far) = listening("socks5://127.0.0.1:0", &ListenConfig::default()).await;
    serve_far_ends(far);
    let destination = echo().await;
    let (mut control, relay) = associated(&listening).await;
    let program = program(relay).await;
    program.send(&wrapped(destination, b"hello")).await.unwrap();
    timeout(LONG, recv(&program)).await.unwrap().unwrap();
    listening.stop();
    timeout(LONG, listening.ended()).await.expect("it ends");
    assert_eq!(control.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_port_that_a_socks_program_says_is_the_only_one() {
    let (listening, mut far) = listening("socks5://127.0.0.1:0", &ListenConfig::default()).await;
    let socket = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port().to_be_bytes();
    let mut control = TcpStream::connect(listening.local_addrs()[0]).await.unwrap();
    let request = [&b"\x05\x03\x00\x01\0\0\0\0"[..], &port].concat();
    control.write_all(&[HELLO, &request].concat()).await.unwrap();
    let mut reply = [0; 12];
    control.read_exact(&mut reply).await.unwrap();
    let relay = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), u16::from_be_bytes([reply[10], reply[11]]));
    exit(RelayConfig::default()).spawn(far.recv().await.unwrap());
    let to = echo().await;
    let stranger = program(relay).await;
    stranger.send(&wrapped(to, b"x")).await.unwrap();
    expect_nothing(&stranger).await;
    socket.connect(relay).await.unwrap();
    socket.send(&wrapped(to, b"y")).await.unwrap();
    expect(&socket, &wrapped(to, b"y")).await;
}
