//! Sites behind hyper's server on a loopback socket, visited in bytes.

mod backend;
mod folder;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Longer than anything that is waited for takes.
const HANG: std::time::Duration = std::time::Duration::from_secs(30);

/// A site that is served on a port of 127.0.0.1.
struct Served {
    address: SocketAddr,
    listening: tokio::task::AbortHandle,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Served {
    async fn site(site: Site) -> Self {
        let service = site.service();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let listening = tokio::spawn(async move {
            while let Ok((socket, visitor)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let answer = service_fn(move |request| {
                        let answer = service(request, visitor);
                        async move { Ok::<_, Infallible>(answer.await) }
                    });
                    http1::Builder::new().serve_connection(TokioIo::new(socket), answer).await.ok();
                });
            }
        })
        .abort_handle();
        Self { address, listening }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// What comes back for these bytes until the connection ends.
    async fn visit(&self, request: &str) -> Answer {
        let mut visitor = self.connect().await;
        visitor.write_all(request.as_bytes()).await.unwrap();
        Answer::read(&mut visitor).await
    }

    /// A GET of this path with further lines of the head.
    async fn get(&self, path: &str, lines: &str) -> Answer {
        self.visit(&format!("GET {path} HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n{lines}\r\n"))
            .await
    }
}

/// An answer as it came.
#[derive(Debug)]
struct Answer {
    /// In small letters.
    head: String,
    /// What came behind it, chunked or not.
    body: Vec<u8>,
}

impl Answer {
    async fn read(visitor: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        tokio::time::timeout(HANG, visitor.read_to_end(&mut bytes)).await.unwrap().unwrap();
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

#[test]
fn what_a_site_may_be_is_read() {
    for (words, shown) in [
        ("/var/www", "/var/www"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("HTTP://web.example/", "http://web.example:80"),
        ("http://[::1]", "http://[::1]:80"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
    ] {
        assert_eq!(words.parse::<SiteConfig>().unwrap().to_string(), shown);
    }
    for (words, part) in [
        ("", "the site is empty"),
        (" ", "the site is empty"),
        ("www", "\"www\" is no whole path: write one that begins with /"),
        ("127.0.0.1:8080", "is no whole path"),
        ("https://web.example", "a site at https:// is not to be had: write http://HOST:PORT"),
        ("\u{1b}://x", "a site at \\u{1b}:// is not"),
        ("http://web.example/app", "is more than http://HOST:PORT"),
        ("http://me@web.example", "is more than http://HOST:PORT"),
        ("http://", "the site's web server is wrong: the host's name is empty"),
        ("http://web.example:0", "port 0"),
        ("http://web.example:x", "is not HOST:PORT"),
    ] {
        let error = words.parse::<SiteConfig>().unwrap_err().to_string();
        assert!(error.contains(part), "{words}: {error}");
    }
}

#[test]
fn a_folder_that_is_not_there_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert_eq!(SiteConfig::Folder(folder.path().to_owned()).check(), Ok(()));
    assert_eq!(SiteConfig::Folder(file.clone()).check(), Err(SiteError::NoFolder(file)));
    let error = SiteConfig::Folder(folder.path().join("none")).check().unwrap_err().to_string();
    assert!(
        error.contains("/none cannot be read: ") && error.ends_with("make it, or write another"),
        "{error}"
    );
    assert_eq!("http://127.0.0.1:1".parse::<SiteConfig>().unwrap().check(), Ok(()));
}
