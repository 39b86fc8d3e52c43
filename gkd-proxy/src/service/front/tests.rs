//! A front over loopback, with a made-up service behind it: what reaches that, and what a client reads.

mod bodies;
mod connections;
mod heads;
mod http2;
mod tls;

use std::convert::Infallible;
use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::StatusCode;
use hyper::body::Frame;
use hyper::header;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};
use tokio::sync::Notify;

use super::*;

/// Long enough for whatever is to happen, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// A service that answers by the path, and notes who asked for what.
#[derive(Default)]
struct Service {
    seen: Mutex<Vec<(String, Visit, hyper::HeaderMap)>>,
    /// Requests for `/never` and `/endless` that were given up.
    given_up: Arc<AtomicUsize>,
    let_go: Notify,
}

/// Counts its drop.
struct GivenUp(Arc<AtomicUsize>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn full(words: impl Into<Bytes>) -> ServiceBody {
    Full::new(words.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

impl Answer for Service {
    fn answer(
        self: Arc<Self>,
        mut request: Request<ServiceBody>,
        visit: Visit,
    ) -> BoxFuture<'static, Answered> {
        let path = request.uri().path().to_owned();
        let seen = format!("{} {}", request.method(), request.uri());
        self.seen.lock().unwrap().push((seen, visit, request.headers().clone()));
        Box::pin(async move {
            let response = match path.as_str() {
                "/echo" => Response::new(request.into_body()),
                "/count" => match request.into_body().collect().await {
                    Ok(body) => Response::new(full(body.to_bytes().len().to_string())),
                    // As a service would that knows no better.
                    Err(_) => status(StatusCode::BAD_GATEWAY),
                },
                "/never" => {
                    let _given_up = GivenUp(Arc::clone(&self.given_up));
                    std::future::pending().await
                }
                "/endless" => {
                    let given_up = GivenUp(Arc::clone(&self.given_up));
                    let piece = Bytes::from_static(&[b'x'; 16 * 1024]);
                    let frames = futures::stream::repeat(piece).map(move |piece| {
                        let _ = &given_up;
                        Ok::<_, io::Error>(Frame::data(piece))
                    });
                    Response::new(StreamBody::new(frames).boxed_unsync())
                }
                "/broken" => {
                    let frames = futures::stream::iter([
                        Ok(Frame::data(Bytes::from_static(b"half"))),
                        Err(io::Error::other("broken")),
                    ]);
                    Response::new(StreamBody::new(frames).boxed_unsync())
                }
                "/bug" => panic!("this panic belongs to the test"),
                "/when-let-go" => {
                    self.let_go.notified().await;
                    Response::new(full("gone"))
                }
                "/upgrade" => {
                    let upgrade = hyper::upgrade::on(&mut request);
                    tokio::spawn(async move {
                        let Ok(upgraded) = upgrade.await else { return };
                        let (mut reader, mut writer) = split(TokioIo::new(upgraded));
                        let _ = copy(&mut reader, &mut writer).await;
                        let _ = writer.shutdown().await;
                    });
                    let mut response = status(StatusCode::SWITCHING_PROTOCOLS);
                    response.headers_mut().insert(header::CONNECTION, "upgrade".parse().unwrap());
                    response.headers_mut().insert(header::UPGRADE, "echo".parse().unwrap());
                    response
                }
                _ => Response::new(full(format!("hello {path}"))),
            };
            Answered { response, service: Some("made up".into()), target: Some("t:1".into()) }
        })
    }
}

fn status(status: StatusCode) -> Response<ServiceBody> {
    let mut response = Response::new(Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}

impl Service {
    /// Methods and URIs of what it was asked.
    fn asked(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|(seen, _, _)| seen.clone()).collect()
    }

    async fn until_given_up(&self, count: usize) {
        until(|| self.given_up.load(Ordering::SeqCst) >= count).await;
    }
}

/// Waits until something is so.
async fn until(mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("it never became so");
}

/// A front on a port without TLS.
struct Running {
    front: Front,
    service: Arc<Service>,
    addr: SocketAddr,
    log: Output,
}

/// What a front logs.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// A configuration with one port.
fn config() -> HttpConfig {
    HttpConfig { listen: vec![FrontListen { tls: false, address: any_port() }], ..HttpConfig::default() }
}

async fn run(config: &HttpConfig) -> Running {
    let service = Arc::new(Service::default());
    let log = Output::default();
    let logger = OnceLock::from(AccessLogger::start(log.clone()).unwrap());
    let answer = Arc::clone(&service) as Arc<dyn Answer>;
    let front = Front::start_with(config, answer, logger).await.unwrap();
    let addr = front.local_addrs()[0];
    Running { front, service, addr, log }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.addr).await.unwrap();
        socket.set_nodelay(true).unwrap();
        socket
    }

    /// Sends bytes on a connection of its own, and reads to its end.
    async fn send(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut socket = self.connect().await;
        socket.write_all(bytes.as_ref()).await.unwrap();
        read_to_end(&mut socket).await
    }
}

async fn read_to_end(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end as well.
    let _ = timeout(PATIENCE, socket.read_to_end(&mut bytes)).await.expect("the connection never ended");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads until what was read ends with these words.
async fn read_until(socket: &mut TcpStream, words: &str) -> String {
    let mut bytes = Vec::new();
    let reading = async {
        while !bytes.ends_with(words.as_bytes()) {
            match socket.read_u8().await {
                Ok(byte) => bytes.push(byte),
                Err(error) => panic!("{error} behind {:?}", String::from_utf8_lossy(&bytes)),
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("it never came");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The statuses of HTTP/1.1 answers in a text, in their order.
fn statuses(text: &str) -> Vec<u16> {
    let behind = text.split("HTTP/1.").skip(1);
    behind.filter_map(|rest| rest.get(2..5)?.parse().ok()).collect()
}
