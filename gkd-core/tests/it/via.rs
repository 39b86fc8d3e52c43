//! Servers behind an HTTP proxy: one that leads on, one that wants a password, and those that do neither.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gkd_core::carrier::CarrierKind;
use gkd_core::identity::SecretKey;
use gkd_core::link::Link;
use gkd_core::{Client, ClientBuilder, Error, ProxyError, Server, TunnelDialError, Via};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::support::{Relay, connection, content, read_all, spawn_echo, until, within};

/// What a proxy does with a CONNECT.
#[derive(Clone)]
enum Manner {
    /// Leads to this address, whatever it is asked for.
    Leads(SocketAddr),
    /// The same, its answer in pieces and after a while.
    LeadsSlowly(SocketAddr),
    /// The same for whoever brings this proof.
    Wants(&'static str, SocketAddr),
    /// Says this and closes.
    Says(Vec<u8>),
    /// Says nothing.
    Waits,
}

/// A proxy that remembers what it was asked.
struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    listening: AbortHandle,
}

impl Proxy {
    async fn that(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heads = asked.clone();
        let listening = tokio::spawn(async move {
            while let Ok((program, _)) = listener.accept().await {
                tokio::spawn(serve(program, manner.clone(), heads.clone()));
            }
        })
        .abort_handle();
        Self { address, asked, listening }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn serve(mut program: TcpStream, manner: Manner, asked: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = program.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    asked.lock().unwrap().push(head.clone());
    let target = match manner {
        Manner::Leads(target) | Manner::LeadsSlowly(target) => target,
        Manner::Wants(proof, target) if head.to_lowercase().contains(&proof.to_lowercase()) => target,
        Manner::Wants(..) => {
            let refusal = b"HTTP/1.1 407 Who is it?\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 5\r\n\r\nsorry";
            program.write_all(refusal).await.ok();
            return;
        }
        Manner::Says(words) => {
            program.write_all(&words).await.ok();
            program.shutdown().await.ok();
            // A socket that is closed with something unread resets the connection, and the words with it.
            program.read_to_end(&mut Vec::new()).await.ok();
            return;
        }
        Manner::Waits => return std::future::pending().await,
    };
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    let answer = "HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\nContent-Length: 0\r\n\r\n";
    if matches!(manner, Manner::LeadsSlowly(_)) {
        for piece in answer.as_bytes().chunks(11) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            program.write_all(piece).await.unwrap();
        }
    } else {
        program.write_all(answer.as_bytes()).await.unwrap();
    }
    tokio::io::copy_bidirectional(&mut program, &mut far).await.ok();
}

async fn server() -> Server {
    within("bind", Server::builder().listen("127.0.0.1:0").plain(true).bind()).await.unwrap()
}

fn client(server: &Server, via: &str) -> ClientBuilder {
    Client::builder()
        .address(server.local_addr().unwrap())
        .server_key(server.key())
        .tunnels(2)
        .via(via.parse::<Via>().unwrap())
}

/// What a web server is told is the port of its own, not the proxy's.
#[tokio::test]
async fn a_web_server_behind_a_proxy_is_asked_for_as_the_link_names_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::that(Manner::Leads(listener.local_addr().unwrap())).await;
    let (server, user) = (SecretKey::generate().public(), SecretKey::generate());
    let link = Link {
        carrier: CarrierKind::Ws,
        ..Link::new(server, user, vec!["web.example:8443".parse().unwrap()])
    };
    let client = Client::builder().link(&link).tunnels(1).via(proxy.url().parse::<Via>().unwrap());
    let web = async {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tcp.read_u8().await.unwrap());
        }
        tcp.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        String::from_utf8(head).unwrap()
    };
    let (refused, head) = within("both", async { tokio::join!(client.connect(), web) }).await;
    assert!(head.contains("\r\nHost: web.example:8443\r\n"), "{head}");
    assert!(proxy.asked()[0].starts_with("CONNECT web.example:8443 "), "{:?}", proxy.asked());
    let error = refused.map(drop).unwrap_err().to_string();
    assert!(error.contains("the server at web.example:8443 (through the proxy at 127.0.0.1:"), "{error}");
}

/// Bytes go through, there and back.
async fn assert_echo(client: &Client, server: Server) {
    let server = Arc::new(server);
    spawn_echo(server.clone());
    let sent = content(3, 1 << 20);
    let mut here = within("open", client.get_connection()).await.unwrap();
    let writing = async {
        here.write_all(&sent).await.unwrap();
        here.shutdown().await.unwrap();
    };
    within("write", writing).await;
    assert!(read_all(&here).await.unwrap() == sent);
}

/// Why no tunnel came up.
async fn refusal(builder: ClientBuilder) -> Arc<TunnelDialError> {
    match within("a refusal", builder.connect()).await.map(|_| ()) {
        Err(Error::Dial(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// That it is the proxy's fault.
fn of_proxy(error: &TunnelDialError) -> &ProxyError {
    match error {
        TunnelDialError::Proxy(error) => error,
        other => panic!("this is no fault of the proxy's: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_tunnel_goes_through_the_proxy() {
    let server = server().await;
    let address = server.local_addr().unwrap();
    let proxy = Proxy::that(Manner::Leads(address)).await;
    let client = within("connect", client(&server, &proxy.url()).connect()).await.unwrap();
    until("both tunnels", || client.tunnels_up() == 2).await;
    let path = client.tunnels()[0].path.to_string();
    assert_eq!(path, format!("{address} via {}", proxy.address));
    assert_echo(&client, server).await;
    for head in proxy.asked() {
        assert!(head.starts_with(&format!("CONNECT {address} HTTP/1.1\r\n")), "{head}");
        assert!(head.to_lowercase().contains(&format!("host: {address}\r\n")), "{head}");
        assert!(!head.to_lowercase().contains("authorization"), "{head}");
    }
    assert_eq!(proxy.asked().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_unencrypted_carrier_goes_through_a_slow_proxy() {
    let server = server().await;
    let proxy = Proxy::that(Manner::LeadsSlowly(server.local_addr().unwrap())).await;
    let plain = client(&server, &proxy.url()).carrier(gkd_core::carrier::CarrierKind::Plain);
    let client = within("connect", plain.connect()).await.unwrap();
    assert_echo(&client, server).await;
}

/// Only the proxy can know where it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_name_is_resolved_by_the_proxy() {
    let server = server().await;
    let proxy = Proxy::that(Manner::Leads(server.local_addr().unwrap())).await;
    let client = Client::builder()
        .address("server.behind.invalid:9990-9991")
        .server_key(server.key())
        .tunnels(2)
        .via(proxy.url().parse().unwrap());
    let client = within("connect", client.connect()).await.unwrap();
    until("both tunnels", || client.tunnels_up() == 2).await;
    let mut asked: Vec<_> =
        proxy.asked().iter().map(|head| head.lines().next().unwrap().to_owned()).collect();
    asked.sort_unstable();
    let ports = [9990, 9991].map(|port| format!("CONNECT server.behind.invalid:{port} HTTP/1.1"));
    assert_eq!(asked, ports);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_opens_and_a_wrong_one_is_final() {
    let server = server().await;
    // Base64 of "me:p@ss".
    let proof = "proxy-authorization: Basic bWU6cEBzcw==\r\n";
    let proxy = Proxy::that(Manner::Wants(proof, server.local_addr().unwrap())).await;
    let refused = refusal(client(&server, &proxy.url()).wait_for_network(true)).await;
    assert!(
        matches!(of_proxy(&refused), ProxyError::PasswordWanted { .. }) && refused.is_final(),
        "{refused}"
    );
    let wrong = format!("http://me:secret@{}", proxy.address);
    let refused = refusal(client(&server, &wrong).wait_for_network(true)).await;
    assert!(
        matches!(of_proxy(&refused), ProxyError::PasswordRefused { .. }) && refused.is_final(),
        "{refused}"
    );
    assert!(!refused.to_string().contains("secret"), "{refused}");
    let right = format!("http://me:p%40ss@{}", proxy.address);
    let client = within("connect", client(&server, &right).connect()).await.unwrap();
    assert_echo(&client, server).await;
}

/// Whatever a proxy says instead of leading on, it is told by its kind, is not final, and no tunnel comes up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_success_is_told() {
    let server = server().await;
    let much = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; 64 * 1024], b"\r\n\r\n".to_vec()].concat();
    let many = [b"HTTP/1.1 200 OK\r\n".to_vec(), b"X: y\r\n".repeat(1000), b"\r\n".to_vec()].concat();
    for (words, part) in [
        (b"HTTP/1.1 403 No\tway\r\nContent-Length: 0\r\n\r\n".to_vec(), "403 No\\tway: it may permit"),
        (b"HTTP/1.1 403 No\x1b[31m way\r\n\r\n".to_vec(), "is no HTTP proxy"),
        (
            b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\ngo away!\n".to_vec(),
            "403 Forbidden: it may permit",
        ),
        (b"HTTP/1.0 502 Bad Gateway\r\n\r\n".to_vec(), "502 Bad Gateway: it does not reach it"),
        (b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n".to_vec(), ""),
        (b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(), "is no HTTP proxy"),
        (b"\x15\x03\x01\x00\x02\x02\x46".to_vec(), "is no HTTP proxy"),
        (b"HTTP/1.1 9999999 OK\r\n\r\n".to_vec(), "is no HTTP proxy"),
        (much, "is no HTTP proxy"),
        (many, "is no HTTP proxy"),
        (b"".to_vec(), "closed the connection without an answer"),
        (b"HTTP/1.1 200 O".to_vec(), "closed the connection without an answer"),
    ] {
        let proxy = Proxy::that(Manner::Says(words)).await;
        let error = refusal(client(&server, &proxy.url()).tunnels(1)).await;
        let told = of_proxy(&error).to_string();
        assert!(told.contains(part) && told.contains(&proxy.address.to_string()), "{told}");
        assert!(!told.contains(char::is_control) && !error.is_final(), "{told}");
    }
}

/// What comes right behind the proxy's answer is the server's, and the carrier's to judge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_behind_the_answer_are_the_servers() {
    let server = server().await;
    let words = b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
    let proxy = Proxy::that(Manner::Says(words)).await;
    let error = within("a refusal", client(&server, &proxy.url()).connect()).await.unwrap_err().to_string();
    let (address, proxy) = (server.local_addr().unwrap(), proxy.address);
    let expected = format!("the server at {address} (through the proxy at {proxy}) does not speak gkd");
    assert!(error.starts_with(&expected), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_says_nothing_or_is_not_there_is_told() {
    let server = server().await;
    let proxy = Proxy::that(Manner::Waits).await;
    let hasty = client(&server, &proxy.url()).tunnels(1).dial_timeout(Duration::from_millis(300));
    let error = refusal(hasty).await;
    assert!(matches!(of_proxy(&error), ProxyError::TimedOut { .. }) && !error.is_final(), "{error}");
    let nobody = proxy.url();
    let address = proxy.address;
    drop(proxy);
    until("its port is closed", || std::net::TcpStream::connect(address).is_err()).await;
    let error = refusal(client(&server, &nobody).tunnels(1)).await;
    assert!(matches!(of_proxy(&error), ProxyError::Connect { .. }) && !error.is_final(), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_left_out_is_dialled_itself() {
    let server = server().await;
    let proxy = Proxy::that(Manner::Says(vec![])).await;
    let host = gkd_core::link::Host::Ip(server.local_addr().unwrap().ip());
    let client = within("connect", client(&server, &proxy.url()).direct(host).connect()).await.unwrap();
    assert_eq!(client.tunnels()[0].path.to_string(), server.local_addr().unwrap().to_string());
    assert!(proxy.asked().is_empty());
}

/// A proxy that ends what runs through it is asked again, and connections do not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnels_that_the_proxy_cuts_come_back_through_it() {
    let server = server().await;
    let proxy = Proxy::that(Manner::Leads(server.local_addr().unwrap())).await;
    let relay = Relay::to(proxy.address).await;
    let client = client(&server, &format!("http://{}", relay.address));
    let client = within("connect", client.connect()).await.unwrap();
    let (mut here, there) = connection(&client, &server).await;
    let sent = content(7, 4 << 20);
    let writing = async {
        for (turn, piece) in sent.chunks(1 << 20).enumerate() {
            here.write_all(piece).await.unwrap();
            if turn == 1 {
                relay.cut_all();
            }
        }
        here.shutdown().await.unwrap();
    };
    let (_, read) = tokio::join!(within("write", writing), read_all(&there));
    assert!(read.unwrap() == sent);
    assert!(proxy.asked().len() > 2, "tunnels were dialled again");
}
