//! Services behind hyper's server on a loopback socket, with web servers of all kinds behind them.

mod bodies;
mod desertions;
mod http2;
mod retries;
mod rosters;
mod upgrades;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2 as client2};
use hyper::header::HeaderName;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::*;
use crate::service::config::{HealthCheck, HostRewrite, ServiceConfig, TargetConfig, TargetForm};

/// Longer than anything that is waited for takes.
const HANG: Duration = Duration::from_secs(30);

/// What a test sends.
type TestBody = UnsyncBoxBody<Bytes, io::Error>;

/// Services that are served on a port of 127.0.0.1, with HTTP/1.1 and HTTP/2.
struct Served {
    services: Arc<Services>,
    address: SocketAddr,
    listening: AbortHandle,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// A web server that is up until it is dropped, with its connections.
struct Web {
    address: SocketAddr,
    running: AbortHandle,
    /// How many connections it took.
    connections: Arc<AtomicUsize>,
}

impl Drop for Web {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Web {
    /// One that does this with each connection.
    async fn raw<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::at("127.0.0.1:0".parse().unwrap(), serve).await
    }

    async fn at<F>(address: SocketAddr, serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // One that was there before may be about to go.
        let bound = async {
            loop {
                match TcpListener::bind(address).await {
                    Ok(listener) => return listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        let listener = timeout(HANG, bound).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let running = tokio::spawn(async move {
            // Dropped with this task: all of its connections are.
            let mut serving = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                serving.spawn(serve(socket));
            }
        })
        .abort_handle();
        Self { address, running, connections }
    }

    /// A proper one, of HTTP/1.1 and HTTP/2, that answers so.
    async fn proper<F>(answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<TestBody>> + Send + 'static,
    {
        Self::raw(move |socket| http(socket, answer.clone())).await
    }

    /// One that answers with its name.
    async fn named(name: &'static str) -> Self {
        Self::proper(move |_| async move { Response::new(text(name)) }).await
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn http(&self) -> TargetConfig {
        TargetConfig::new(TargetForm::Http(self.address.to_string().parse().unwrap()), 1)
    }

    fn h2c(&self) -> TargetConfig {
        TargetConfig::new(TargetForm::H2c(self.address.to_string().parse().unwrap()), 1)
    }
}

/// A port where nobody listens.
async fn nobody() -> TargetConfig {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    TargetConfig::new(TargetForm::Http(address.parse().unwrap()), 1)
}

async fn http<F>(socket: TcpStream, answer: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static)
where
    F: Future<Output = Response<TestBody>> + Send + 'static,
{
    let answer = service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    builder.serve_connection_with_upgrades(TokioIo::new(socket), answer).await.ok();
}

fn text(words: impl Into<Bytes>) -> TestBody {
    Full::new(words.into()).map_err(|never| match never {}).boxed_unsync()
}

fn empty() -> TestBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Whoever sends to it feeds a body.
fn channel() -> (tokio::sync::mpsc::Sender<io::Result<Frame<Bytes>>>, TestBody) {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let frames = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    (sender, BodyExt::boxed_unsync(http_body_util::StreamBody::new(frames)))
}

/// The service "shop" of every host with these targets.
fn shop(targets: impl IntoIterator<Item = TargetConfig>) -> ServiceConfig {
    let mut service = ServiceConfig::new("shop");
    service.hosts = vec!["*".parse().unwrap()];
    service.targets = targets.into_iter().collect();
    service
}

fn config(services: impl IntoIterator<Item = ServiceConfig>) -> HttpConfig {
    HttpConfig { services: services.into_iter().collect(), ..HttpConfig::default() }
}

impl Served {
    async fn new(config: HttpConfig) -> Self {
        let contents: Contents = Arc::new(|path| Arc::new(Folder(path.display().to_string())));
        let services = Services::new(&config, contents);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answering = Arc::clone(&services);
        let listening = tokio::spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((socket, client)) = listener.accept().await {
                serving.spawn(front(socket, client, address, Arc::clone(&answering)));
            }
        })
        .abort_handle();
        Self { services, address, listening }
    }

    async fn shop(targets: impl IntoIterator<Item = TargetConfig>) -> Self {
        Self::new(config([shop(targets)])).await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// What comes back for these bytes until the connection ends.
    async fn visit(&self, request: &str) -> Said {
        let mut visitor = self.connect().await;
        visitor.write_all(request.as_bytes()).await.unwrap();
        Said::read(&mut visitor).await
    }

    /// A GET of this path with further lines of the head.
    async fn get(&self, path: &str, lines: &str) -> Said {
        let head = format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n");
        self.visit(&format!("{head}{lines}\r\n")).await
    }

    async fn http1(&self) -> http1::SendRequest<TestBody> {
        let (sender, http) = http1::handshake(TokioIo::new(self.connect().await)).await.unwrap();
        tokio::spawn(http.with_upgrades());
        sender
    }

    async fn http2(&self) -> client2::SendRequest<TestBody> {
        let io = TokioIo::new(self.connect().await);
        let (sender, http) = client2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(http);
        sender
    }

    /// The only target of the only service.
    fn target(&self) -> TargetStatus {
        self.services.status().remove(0).targets.remove(0)
    }
}

/// A front that judges nothing.
async fn front(socket: TcpStream, client: SocketAddr, local: SocketAddr, services: Arc<Services>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let visit = Visit { client, peer: client, local, tls: false, id: "id-1".into() };
        let request = request.map(|body| body.map_err(io::Error::other).boxed_unsync());
        let services = Arc::clone(&services);
        async move { Ok::<_, Infallible>(services.answer(request, visit).await.response) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().enable_connect_protocol();
    builder.serve_connection_with_upgrades(TokioIo::new(socket), answer).await.ok();
}

/// A folder that says its path, and what it was asked for.
struct Folder(String);

impl Content for Folder {
    fn answer(
        self: Arc<Self>,
        request: Request<ServiceBody>,
        _: &Visit,
    ) -> BoxFuture<'static, Response<ServiceBody>> {
        Box::pin(async move { Response::new(text(format!("{}{}", self.0, request.uri()))) })
    }

    fn name(&self) -> &str {
        &self.0
    }
}

/// An answer as it came.
#[derive(Debug)]
struct Said {
    /// In small letters.
    head: String,
    /// What came behind it, chunked or not.
    body: Vec<u8>,
}

impl Said {
    async fn read(visitor: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        // An end by reset is one.
        timeout(HANG, visitor.read_to_end(&mut bytes)).await.unwrap().ok();
        let end = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap_or_else(|| {
            panic!("there is no head: {:?}", String::from_utf8_lossy(&bytes));
        });
        let body = bytes.split_off(end + 4);
        Self { head: String::from_utf8(bytes).unwrap().to_ascii_lowercase(), body }
    }

    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Reads a head, byte by byte so that nothing of the body is lost; what there is of one where it ends before.
async fn read_head(socket: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match socket.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

/// Reads a head, says these words and ends.
async fn say(mut socket: TcpStream, words: impl AsRef<[u8]>) {
    read_head(&mut socket).await;
    socket.write_all(words.as_ref()).await.ok();
    socket.shutdown().await.ok();
    socket.read_to_end(&mut Vec::new()).await.ok();
}

/// Answers each request with its head.
async fn mirror(mut socket: TcpStream) {
    loop {
        let head = read_head(&mut socket).await;
        if head.is_empty() {
            return;
        }
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
        socket.write_all(answer.as_bytes()).await.ok();
    }
}

/// Waits until something is so.
async fn until(what: impl Fn() -> bool) {
    let looked = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(HANG, looked).await.expect("it does not come to be");
}

fn request(method: &str, path: &str, body: TestBody) -> Request<TestBody> {
    let request = Request::builder().method(method).uri(path).header("host", "shop.example");
    request.body(body).unwrap()
}

/// The same for HTTP/2.
fn request2(method: &str, path: &str, body: TestBody) -> Request<TestBody> {
    Request::builder().method(method).uri(format!("http://shop.example{path}")).body(body).unwrap()
}

async fn words_of<B: hyper::body::Body>(answer: Response<B>) -> String
where
    B::Error: std::fmt::Debug,
{
    let all = timeout(HANG, answer.into_body().collect()).await.unwrap().unwrap();
    String::from_utf8(all.to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn hosts_and_paths_lead_to_their_services() {
    let (shop_web, admin_web) = (Web::named("shop").await, Web::named("admin").await);
    let mut first = shop([shop_web.http()]);
    first.hosts = vec!["shop.example".parse().unwrap(), "*.shop.example".parse().unwrap()];
    let mut second = shop([admin_web.http()]);
    (second.name, second.hosts) = ("admin".into(), first.hosts.clone());
    second.paths = vec!["/admin".into()];
    let served = Served::new(config([first, second])).await;
    for (host, path, answer) in [
        ("shop.example", "/", "shop"),
        ("SHOP.example:8080", "/x?/admin", "shop"),
        ("a.b.shop.example", "/admin/x", "admin"),
        ("shop.example.", "/admin", "admin"),
        ("shop.example", "/administrator", "shop"),
    ] {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert_eq!(served.visit(&head).await.text(), answer, "{host}{path}");
    }
    let unknown = served.visit("GET / HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n").await;
    assert_eq!((unknown.status(), unknown.header("x-request-id")), (404, Some("id-1")), "{unknown:?}");
    let two = served.get("/", "Host: shop.example\r\n").await;
    assert_eq!(two.status(), 400);
}

#[tokio::test]
async fn the_target_reads_the_request_and_who_sent_it() {
    let web = Web::raw(mirror).await;
    let served = Served::shop([web.http()]).await;
    let said = served
        .get(
            "/a//b?c=d%20e",
            "Cookie: x=y\r\nX-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\n\
             X-Request-Id: forged\r\nProxy: http://forged\r\nX_Forwarded_For: 203.0.113.9\r\nKeep-Alive: timeout=5\r\n\
             Upgrade: h2c\r\nHTTP2-Settings: x\r\nTE: trailers, deflate\r\nProxy-Authorization: Basic x\r\n",
        )
        .await;
    let told = said.text();
    assert!(told.starts_with("get /a//b?c=d%20e http/1.1\r\n"), "{told}");
    let port = served.address.port();
    for line in [
        "host: shop.example",
        "cookie: x=y",
        "x-forwarded-for: 127.0.0.1",
        "forwarded: for=127.0.0.1;host=\"shop.example\";proto=http",
        "x-forwarded-proto: http",
        "x-forwarded-host: shop.example",
        &format!("x-forwarded-port: {port}"),
        "x-real-ip: 127.0.0.1",
        "x-request-id: id-1",
        "te: trailers",
        "connection: te",
    ] {
        assert!(told.contains(&format!("\r\n{line}\r\n")), "{line}: {told}");
    }
    for gone in ["203.0.113.9", "forged", "keep-alive", "upgrade", "authorization", "deflate", "via:"] {
        assert!(!told.contains(gone), "{gone}: {told}");
    }
}

#[tokio::test]
async fn the_host_is_rewritten_where_the_service_says_so() {
    let web = Web::raw(mirror).await;
    for (rewrite, host) in [
        (HostRewrite::Keep, "shop.example".to_owned()),
        (HostRewrite::Target, web.address.to_string()),
        (HostRewrite::Name("inside.example:81".into()), "inside.example:81".into()),
    ] {
        let mut service = shop([web.http()]);
        service.host = rewrite;
        let said = Served::new(config([service])).await.get("/", "").await;
        assert!(said.text().contains(&format!("\r\nhost: {host}\r\n")), "{said:?}");
        assert!(said.text().contains("\r\nx-forwarded-host: shop.example\r\n"), "{said:?}");
    }
    // HTTP/1.0 knows requests without.
    let served = Served::shop([web.http()]).await;
    let said = served.visit("GET / HTTP/1.0\r\n\r\n").await;
    assert!(said.text().contains(&format!("\r\nhost: {}\r\n", web.address)), "{said:?}");
    assert!(!said.text().contains("x-forwarded-host"), "{said:?}");
}

#[tokio::test]
async fn who_comes_without_tls_is_sent_on_or_away() {
    let web = Web::named("shop").await;
    let mut service = shop([web.http()]);
    service.https = Https::Redirect;
    let mut config = config([service.clone()]);
    let served = Served::new(config.clone()).await;
    let said = served.get("/a?b=c", "").await;
    assert_eq!((said.status(), said.header("location")), (308, Some("https://shop.example/a?b=c")));
    let said = served
        .visit("POST /a HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!((said.status(), said.header("location")), (308, Some("https://[::1]/a")));
    // A proxy of ours in front, which ended TLS there.
    config.trusted = vec!["127.0.0.0/8".parse().unwrap()];
    served.services.reload(&config);
    assert_eq!(served.get("/", "X-Forwarded-Proto: https\r\n").await.text(), "shop");
    assert_eq!(served.get("/", "X-Forwarded-Proto: http\r\n").await.status(), 308);
    config.services[0].https = Https::Only;
    served.services.reload(&config);
    assert_eq!(served.get("/", "").await.status(), 404);
    assert_eq!(served.get("/", "X-Forwarded-Proto: https\r\n").await.text(), "shop");
}

#[tokio::test]
async fn headers_of_one_hop_do_not_come_back() {
    let web = Web::raw(|socket| {
        say(
            socket,
            "HTTP/1.1 404 Not Here\r\nServer: mine\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nConnection: x-mine\r\nX-Mine: 1\r\n\
             Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nContent-Length: 4\r\n\r\nnone",
        )
    })
    .await;
    let said = Served::shop([web.http()]).await.get("/", "").await;
    assert_eq!((said.status(), said.text()), (404, "none"));
    assert!(said.head.contains("server: mine") && said.head.matches("set-cookie: ").count() == 2, "{said:?}");
    for gone in ["x-mine", "keep-alive", "proxy-authenticate"] {
        assert!(!said.head.contains(gone), "{said:?}");
    }
}

#[tokio::test]
async fn a_folder_answers_on_this_machine() {
    let folder = TargetConfig::new(TargetForm::Folder("/srv/files".into()), 1);
    let served = Served::shop([folder]).await;
    assert_eq!(served.get("/a/b?c", "").await.text(), "/srv/files/a/b?c");
    assert_eq!(served.target().requests, 1);
}

#[tokio::test]
async fn a_connect_is_refused_and_what_is_behind_it_is_no_request() {
    let web = Web::named("shop").await;
    let served = Served::shop([web.http()]).await;
    let said = served
        .visit("CONNECT shop.example:443 HTTP/1.1\r\nHost: shop.example:443\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    assert_eq!((said.status(), said.head.matches("http/1.1 ").count()), (501, 1), "{said:?}");
    assert!(!said.text().contains("shop"), "{said:?}");
    assert_eq!(web.connections(), 0);
}

#[tokio::test]
async fn a_service_without_a_target_is_503_and_says_nothing_of_the_inside() {
    let said = Served::shop([]).await.get("/", "Accept: text/html\r\n").await;
    assert_eq!((said.status(), said.header("x-request-id")), (503, Some("id-1")));
    let said = Served::shop([nobody().await]).await.get("/", "").await;
    assert_eq!(said.status(), 502);
    assert!(said.text().contains("id-1") && !said.text().contains("127.0.0.1"), "{said:?}");
}
