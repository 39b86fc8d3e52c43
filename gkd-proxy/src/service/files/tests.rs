//! Files behind hyper's server on a loopback socket, asked for in bytes; and bodies frame by frame.

use std::fs::{self, FileTimes};
use std::net::SocketAddr;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Longer than anything that is waited for takes.
const HANG: Duration = Duration::from_secs(30);

/// A folder with a secret beside it, which is served.
struct Folder {
    /// Holds both.
    around: TempDir,
    address: SocketAddr,
    listening: tokio::task::AbortHandle,
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// An answer as it came.
#[derive(Debug)]
struct Answer {
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let named = |line: &&str| line.split(':').next().unwrap().eq_ignore_ascii_case(name);
        Some(self.head.lines().find(named)?.split_once(": ").unwrap().1)
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Folder {
    async fn new() -> Self {
        let around = tempfile::tempdir().unwrap();
        let www = around.path().join("www");
        fs::create_dir_all(www.join("sub")).unwrap();
        fs::create_dir_all(www.join("bare")).unwrap();
        fs::write(around.path().join("secret"), "SECRET").unwrap();
        let files = Arc::new(Files::new(www));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let listening = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let files = files.clone();
                tokio::spawn(async move {
                    let answer = service_fn(move |request: Request<Incoming>| {
                        let files = files.clone();
                        async move { Ok::<_, Infallible>(Files::answer(&files, request).await) }
                    });
                    http1::Builder::new().serve_connection(TokioIo::new(socket), answer).await.ok();
                });
            }
        })
        .abort_handle();
        let folder = Self { around, address, listening };
        folder.write("index.html", "<p>hello</p>");
        folder.write("sub/index.html", "below");
        folder.write("ten.txt", "0123456789");
        folder.write("empty", "");
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.around.path().join("www").join(name)
    }

    /// A file that was changed a minute ago.
    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
        self.date(name, SystemTime::now() - Duration::from_secs(60));
    }

    fn date(&self, name: &str, time: SystemTime) {
        let file = fs::OpenOptions::new().write(true).open(self.path(name)).unwrap();
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    }

    async fn visit(&self, request: &str) -> Answer {
        let mut visitor = TcpStream::connect(self.address).await.unwrap();
        visitor.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        tokio::time::timeout(HANG, visitor.read_to_end(&mut bytes)).await.unwrap().unwrap();
        let end = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap_or_else(|| {
            panic!("there is no head: {:?}", String::from_utf8_lossy(&bytes));
        });
        let body = bytes.split_off(end + 4);
        Answer { head: String::from_utf8(bytes).unwrap(), body }
    }

    async fn get(&self, path: &str, lines: &str) -> Answer {
        self.visit(&format!("GET {path} HTTP/1.1\r\nHost: files.example\r\nConnection: close\r\n{lines}\r\n"))
            .await
    }
}

#[tokio::test]
async fn files_come_by_their_path_with_type_length_tag_and_time() {
    let folder = Folder::new().await;
    folder.write("style.css", "a{}");
    folder.write("code.js", "1");
    folder.write("data.json", "{}");
    folder.write("picture.webp", "x");
    folder.write("program.wasm", "x");
    folder.write("thing.unheard", "x");
    folder.write("a b.txt", "blank");
    for (path, kind, body) in [
        ("/", "text/html", "<p>hello</p>"),
        ("/sub/", "text/html", "below"),
        ("/ten.txt?any=query", "text/plain", "0123456789"),
        ("/%74en.txt", "text/plain", "0123456789"),
        ("/./ten.txt", "text/plain", "0123456789"),
        ("http://files.example/ten.txt", "text/plain", "0123456789"),
        ("/a%20b.txt", "text/plain", "blank"),
        ("/style.css", "text/css", "a{}"),
        ("/code.js", "text/javascript", "1"),
        ("/data.json", "application/json", "{}"),
        ("/picture.webp", "image/webp", "x"),
        ("/program.wasm", "application/wasm", "x"),
        ("/thing.unheard", "application/octet-stream", "x"),
        ("/empty", "application/octet-stream", ""),
    ] {
        let answer = folder.get(path, "").await;
        assert_eq!((answer.status(), answer.text()), (200, body), "{path}");
        assert!(answer.header("content-type").unwrap().starts_with(kind), "{path}: {answer:?}");
        assert_eq!(answer.header("content-length"), Some(&*body.len().to_string()), "{path}");
        assert_eq!(answer.header("accept-ranges"), Some("bytes"));
        assert!(answer.header("etag").unwrap().starts_with('"') && answer.header("last-modified").is_some());
        let head = format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let head = folder.visit(&head).await;
        assert_eq!(head.body, b"", "{path}");
        for name in ["content-type", "content-length", "etag", "last-modified", "vary"] {
            assert_eq!(head.header(name), answer.header(name), "{name} of {path}");
        }
    }
    for (path, location) in [("/sub?a=b", "/sub/?a=b"), ("http://files.example/sub", "/sub/")] {
        let answer = folder.get(path, "").await;
        assert_eq!((answer.status(), answer.header("location")), (307, Some(location)));
    }
}

#[tokio::test]
async fn one_range_is_cut_and_what_is_none_is_passed_over() {
    let folder = Folder::new().await;
    for (range, part, place) in [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("Bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=002-004", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=7-99", "789", "bytes 7-9/10"),
        ("bytes=7-99999999999999999999999", "789", "bytes 7-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-10", "0123456789", "bytes 0-9/10"),
        ("bytes=-11", "0123456789", "bytes 0-9/10"),
        ("bytes=-99999999999999999999999", "0123456789", "bytes 0-9/10"),
        ("bytes=, 2-4 ,", "234", "bytes 2-4/10"),
    ] {
        let answer = folder.get("/ten.txt", &format!("Range: {range}\r\n")).await;
        assert_eq!((answer.status(), answer.text()), (206, part), "{range}");
        assert_eq!(answer.header("content-range"), Some(place), "{range}");
        assert_eq!(answer.header("content-length"), Some(&*part.len().to_string()), "{range}");
    }
    for range in ["bytes=10-", "bytes=10-20", "bytes=99999999999999999999999-", "bytes=-0"] {
        let answer = folder.get("/ten.txt", &format!("Range: {range}\r\n")).await;
        assert_eq!((answer.status(), answer.header("content-range")), (416, Some("bytes */10")), "{range}");
        assert!(answer.header("etag").is_none() && answer.text().contains("416"), "{answer:?}");
    }
    for range in [
        "lines=1-2",
        "bytes=0-1,3-4",
        "bytes=4-2",
        "bytes=x-y",
        "bytes=1",
        "bytes=",
        "bytes",
        "bytes=-",
        "bytes=+1-2",
        "bytes=1--2",
        "bytes=0-1\r\nRange: bytes=3-4",
    ] {
        let answer = folder.get("/ten.txt", &format!("Range: {range}\r\n")).await;
        assert_eq!((answer.status(), answer.text()), (200, "0123456789"), "{range}");
        assert_eq!(answer.header("content-range"), None);
    }
    for range in ["bytes=0-", "bytes=0-4", "bytes=-5"] {
        let answer = folder.get("/empty", &format!("Range: {range}\r\n")).await;
        assert_eq!((answer.status(), answer.header("content-length")), (200, Some("0")), "{range}");
    }
    let head = "HEAD /ten.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\nRange: bytes=2-4\r\n\r\n";
    let head = folder.visit(head).await;
    assert_eq!((head.status(), head.header("content-length")), (200, Some("10")));
}

#[tokio::test]
async fn conditions_are_judged_in_their_order() {
    let folder = Folder::new().await;
    let whole = folder.get("/ten.txt", "").await;
    let (tag, time) = (whole.header("etag").unwrap(), whole.header("last-modified").unwrap());
    let (past, future) = ("Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT");
    for (lines, status) in [
        (format!("If-None-Match: {tag}"), 304),
        (format!("If-None-Match: W/{tag}"), 304),
        (format!("If-None-Match: \"a,b\", {tag}"), 304),
        (format!("If-None-Match: \"other\"\r\nIf-None-Match: {tag}"), 304),
        ("If-None-Match: *".into(), 304),
        ("If-None-Match: \"other\"".into(), 200),
        (format!("If-Modified-Since: {time}"), 304),
        (format!("If-Modified-Since: {future}"), 304),
        (format!("If-Modified-Since: {past}"), 200),
        ("If-Modified-Since: nonsense".into(), 200),
        // The tag says more than the time.
        (format!("If-None-Match: \"other\"\r\nIf-Modified-Since: {time}"), 200),
        (format!("If-None-Match: {tag}\r\nIf-Modified-Since: {past}"), 304),
        (format!("If-Match: {tag}"), 200),
        ("If-Match: *".into(), 200),
        (format!("If-Match: \"other\"\r\nIf-Match: {tag}"), 200),
        ("If-Match: \"other\"".into(), 412),
        (format!("If-Match: W/{tag}"), 412),
        (format!("If-Unmodified-Since: {time}"), 200),
        (format!("If-Unmodified-Since: {past}"), 412),
        (format!("If-Match: {tag}\r\nIf-Unmodified-Since: {past}"), 200),
        // What must hold comes before what saves work.
        (format!("If-Match: \"other\"\r\nIf-None-Match: {tag}"), 412),
        (format!("If-Match: {tag}\r\nIf-None-Match: {tag}"), 304),
        (format!("If-None-Match: {tag}\r\nRange: bytes=2-4"), 304),
        (format!("If-Match: {tag}\r\nRange: bytes=2-4"), 206),
        ("If-Match: \"other\"\r\nRange: bytes=2-4".into(), 412),
    ] {
        let answer = folder.get("/ten.txt", &format!("{lines}\r\n")).await;
        assert_eq!(answer.status(), status, "{lines}: {answer:?}");
        if status == 304 {
            assert_eq!((answer.header("etag"), answer.header("vary")), (Some(tag), Some("accept-encoding")));
            assert_eq!((answer.text(), answer.header("content-length")), ("", None));
        }
    }
}

#[tokio::test]
async fn a_part_is_sent_of_what_if_range_names_and_of_nothing_else() {
    let folder = Folder::new().await;
    let whole = folder.get("/ten.txt", "").await;
    let (tag, time) = (whole.header("etag").unwrap(), whole.header("last-modified").unwrap());
    let get = |range: &'static str, condition: String| {
        let folder = &folder;
        async move {
            let lines = format!("Range: {range}\r\nIf-Range: {condition}\r\n");
            let answer = folder.get("/ten.txt", &lines).await;
            (answer.status(), answer.text().to_owned())
        }
    };
    let (part, all) = ((206, "234".to_owned()), (200, "0123456789".to_owned()));
    for (condition, expected) in [
        (tag.to_owned(), &part),
        (time.to_owned(), &part),
        (format!("W/{tag}"), &all),
        ("\"other\"".into(), &all),
        ("Thu, 01 Jan 1970 00:00:00 GMT".into(), &all),
        // Later is another one as well: it is no bound, but a name.
        ("Fri, 01 Jan 2100 00:00:00 GMT".into(), &all),
        ("nonsense".into(), &all),
    ] {
        assert_eq!(&get("bytes=2-4", condition.clone()).await, expected, "{condition}");
    }
    assert_eq!(get("bytes=20-", "\"other\"".into()).await, all);
    assert_eq!(get("bytes=20-", tag.into()).await.0, 416);
    // Without a range it is nothing.
    assert_eq!(folder.get("/ten.txt", &format!("If-Range: {tag}\r\n")).await.status(), 200);
    // Another file under the same name, of the same length and within the same second.
    let mtime = fs::metadata(folder.path("ten.txt")).unwrap().modified().unwrap();
    fs::write(folder.path("ten.txt"), "abcdefghij").unwrap();
    folder.date("ten.txt", mtime + Duration::from_nanos(7));
    assert_eq!(get("bytes=2-4", tag.into()).await, (200, "abcdefghij".to_owned()));
}

#[tokio::test]
async fn a_file_that_has_just_changed_has_a_weak_tag() {
    let folder = Folder::new().await;
    folder.date("ten.txt", SystemTime::now());
    let fresh = folder.get("/ten.txt", "").await;
    let (tag, time) = (fresh.header("etag").unwrap(), fresh.header("last-modified").unwrap());
    assert!(tag.starts_with("W/\""), "{tag}");
    for condition in [tag, tag.strip_prefix("W/").unwrap(), time] {
        let lines = format!("Range: bytes=2-4\r\nIf-Range: {condition}\r\n");
        assert_eq!(folder.get("/ten.txt", &lines).await.status(), 200, "{condition}");
    }
    assert_eq!(folder.get("/ten.txt", &format!("If-None-Match: {tag}\r\n")).await.status(), 304);
    // A time that is still to come is not told.
    folder.date("ten.txt", SystemTime::now() + Duration::from_secs(3600));
    let fresh = folder.get("/ten.txt", "").await;
    assert!(fresh.header("etag").unwrap().starts_with("W/\""), "{fresh:?}");
    assert_eq!(fresh.header("last-modified"), None);
}

#[tokio::test]
async fn compressed_forms_go_to_who_takes_them() {
    let folder = Folder::new().await;
    folder.write("page.html", "plain-plain-plain");
    folder.write("page.html.gz", "GZGZGZ");
    folder.write("page.html.br", "BRBRBR");
    folder.write("page.html.zst", "ZSTZST");
    folder.write("only.js", "code");
    folder.write("only.js.gz", "GZ");
    for (path, accepted, encoding, body) in [
        ("/page.html", "gzip", Some("gzip"), "GZGZGZ"),
        ("/page.html", "br", Some("br"), "BRBRBR"),
        ("/page.html", "zstd", Some("zstd"), "ZSTZST"),
        ("/page.html", "gzip, br", Some("br"), "BRBRBR"),
        ("/page.html", "gzip;q=1.0, br;q=0.5", Some("gzip"), "GZGZGZ"),
        ("/page.html", "br;q=0, gzip", Some("gzip"), "GZGZGZ"),
        ("/page.html", "gzip\r\nAccept-Encoding: br", Some("br"), "BRBRBR"),
        ("/page.html", "gzip;q=0", None, "plain-plain-plain"),
        ("/page.html", "identity", None, "plain-plain-plain"),
        ("/page.html", "compress", None, "plain-plain-plain"),
        ("/only.js", "br, zstd, gzip", Some("gzip"), "GZ"),
        ("/only.js", "br, zstd", None, "code"),
        ("/ten.txt", "br, gzip", None, "0123456789"),
    ] {
        let answer = folder.get(path, &format!("Accept-Encoding: {accepted}\r\n")).await;
        assert_eq!((answer.status(), answer.text()), (200, body), "{path} as {accepted}");
        assert_eq!(answer.header("content-encoding"), encoding, "{path} as {accepted}");
        assert_eq!(answer.header("vary"), Some("accept-encoding"), "{path} as {accepted}");
        assert!(!answer.header("content-type").unwrap().contains("zip"), "{answer:?}");
    }
    // Each form is another, with a tag and with ranges of its own.
    let plain = folder.get("/page.html", "").await;
    let gzip = folder.get("/page.html", "Accept-Encoding: gzip\r\n").await;
    let (of_plain, of_gzip) = (plain.header("etag").unwrap(), gzip.header("etag").unwrap());
    assert_ne!(of_plain, of_gzip);
    let part = |lines: String| {
        let folder = &folder;
        async move { folder.get("/page.html", &format!("Range: bytes=4-\r\n{lines}")).await }
    };
    let answer = part(format!("Accept-Encoding: gzip\r\nIf-Range: {of_gzip}\r\n")).await;
    assert_eq!(
        (answer.status(), answer.text(), answer.header("content-encoding")),
        (206, "GZ", Some("gzip"))
    );
    assert_eq!(answer.header("content-range"), Some("bytes 4-5/6"));
    let answer = part(format!("If-Range: {of_gzip}\r\n")).await;
    assert_eq!((answer.status(), answer.text()), (200, "plain-plain-plain"));
    let answer = part(format!("Accept-Encoding: gzip\r\nIf-Range: {of_plain}\r\n")).await;
    assert_eq!((answer.status(), answer.text()), (200, "GZGZGZ"));
    // Itself it is a file like any other.
    let answer = folder.get("/page.html.gz", "").await;
    assert_eq!((answer.text(), answer.header("content-encoding")), ("GZGZGZ", None));
    assert_eq!(answer.header("content-type"), Some("application/gzip"));
}

#[tokio::test]
async fn there_is_no_way_out_of_the_folder() {
    let folder = Folder::new().await;
    folder.write(".secret", "SECRET");
    fs::create_dir(folder.path(".git")).unwrap();
    folder.write(".git/config", "SECRET");
    for path in [
        "/../secret",
        "/sub/../../secret",
        "/%2e%2e/secret",
        "/%2E%2E%2Fsecret",
        "/..%2fsecret",
        "/%2e%2e%5csecret",
        "/..\\secret",
        "/%252e%252e/secret",
        // The same dot and slash in more bytes than it takes.
        "/%c0%ae%c0%ae/secret",
        "/%c0%2e%c0%2e/secret",
        "/%c0%af../secret",
        "/%e0%80%ae%e0%80%ae/secret",
        "/....//secret",
        "/%00",
        "/ten.txt%00",
        "/ten.txt%00.html",
        "/ten.txt/",
        "/ten.txt/x",
        "/%ff",
        "//secret",
        "///etc/passwd",
        "/%2fetc%2fpasswd",
        "/%2f%2fetc/passwd",
        "/.secret",
        "/%2esecret",
        "/sub/../.secret",
        "/.git/config",
        "/bare/",
        "/none",
    ] {
        for lines in ["", "Accept-Encoding: br, zstd, gzip\r\n", "Range: bytes=0-\r\n"] {
            let answer = folder.get(path, lines).await;
            let text = String::from_utf8_lossy(&answer.body);
            assert!(!text.contains("SECRET") && !text.contains("root:"), "{path}: {answer:?}");
            assert!(matches!(answer.status(), 400 | 404), "{path}: {answer:?}");
        }
    }
    let long = format!("/{}", "x".repeat(5000));
    assert_eq!(folder.get(&long, "").await.status(), 404);
}

#[cfg(unix)]
#[tokio::test]
async fn links_and_compressed_forms_lead_nowhere_else() {
    use std::os::unix::fs::symlink;

    let folder = Folder::new().await;
    folder.write("near.txt", "near");
    for (link, target) in [
        ("out", "../secret"),
        ("whole", "/etc/passwd"),
        ("around", ".."),
        ("circle", "circle"),
        ("dangling", "nowhere"),
        ("ten.txt.gz", "../../secret"),
        ("ten.txt.br", "../secret"),
        ("ten.txt.zst", "ten.txt.zst"),
    ] {
        symlink(target, folder.path(link)).unwrap();
    }
    for path in ["/out", "/whole", "/around/secret", "/around/", "/circle", "/dangling", "/ten.txt.br"] {
        let answer = folder.get(path, "").await;
        assert_eq!(answer.status(), 404, "{path}: {answer:?}");
    }
    let answer = folder.get("/ten.txt", "Accept-Encoding: gzip, br, zstd\r\n").await;
    assert_eq!((answer.text(), answer.header("content-encoding")), ("0123456789", None));
    symlink("near.txt", folder.path("link.txt")).unwrap();
    assert_eq!(folder.get("/link.txt", "").await.text(), "near");
    // To open a pipe is to wait for its writer, on a thread that others need.
    let pipe = folder.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert_eq!(folder.get("/pipe", "").await.status(), 404);
    // A form that is a folder is none.
    fs::create_dir(folder.path("near.txt.gz")).unwrap();
    for method in ["GET", "HEAD"] {
        let request = format!(
            "{method} /near.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\r\n"
        );
        let answer = folder.visit(&request).await;
        assert_eq!((answer.status(), answer.header("content-length")), (200, Some("4")), "{answer:?}");
    }
}

#[tokio::test]
async fn a_folder_takes_nothing_and_says_what_it_takes() {
    let folder = Folder::new().await;
    for (method, status) in [("POST", 405), ("PUT", 405), ("DELETE", 405), ("PATCH", 405), ("OPTIONS", 204)] {
        let request = format!(
            "{method} /ten.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
        );
        let answer = folder.visit(&request).await;
        assert_eq!(
            (answer.status(), answer.header("allow")),
            (status, Some("GET, HEAD, OPTIONS")),
            "{method}"
        );
    }
    let all = folder.visit("OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!(all.status(), 204);
    assert_eq!(fs::read(folder.path("ten.txt")).unwrap(), b"0123456789");
    let missing = folder.visit("HEAD /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!((missing.status(), missing.text()), (404, ""));
}

/// More than what two buffers hold.
const BIG: u64 = 8 << 20;

#[tokio::test]
async fn what_is_missing_is_told_with_the_name_of_its_request_to_get_and_head_alike() {
    let folder = Folder::new().await;
    for (path, more, status) in [
        ("/none", "", 404),
        ("/ten.txt", "Range: bytes=20-\r\n", 416),
        ("/ten.txt", "If-Match: \"other\"\r\n", 412),
        ("/none", "If-None-Match: *\r\n", 404),
    ] {
        let lines = format!("{more}X-Request-Id: abc-1\r\nAccept: text/html\r\n");
        let got = folder.get(path, &lines).await;
        assert_eq!((got.status(), got.header("x-request-id")), (status, Some("abc-1")), "{got:?}");
        assert!(got.text().contains("Request <code>abc-1</code>"), "{got:?}");
        assert_eq!(got.header("content-length"), Some(&*got.body.len().to_string()));
        let head = format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n");
        let head = folder.visit(&head).await;
        // A range belongs to GET only.
        let same = if status == 416 { 200 } else { status };
        assert_eq!((head.status(), head.text()), (same, ""), "{head:?}");
        if same == status {
            assert_eq!(head.header("content-length"), got.header("content-length"), "{head:?}");
        }
    }
    // What has not changed has no page.
    let tag = folder.get("/ten.txt", "").await.header("etag").unwrap().to_owned();
    let same = folder.get("/ten.txt", &format!("If-None-Match: {tag}\r\nX-Request-Id: abc-1\r\n")).await;
    assert_eq!((same.status(), same.header("x-request-id"), same.text()), (304, None, ""));
}

async fn answer(files: &Files, lines: &[(&str, &str)]) -> Response<ServiceBody> {
    let mut request = Request::builder().uri("/big");
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    files.answer(request.body(()).unwrap()).await
}

/// A frame, and then what is left of the body.
async fn frame(body: &mut ServiceBody) -> Result<Bytes, io::Error> {
    Ok(body.frame().await.transpose()?.map(|frame| frame.into_data().unwrap()).unwrap_or_default())
}

#[tokio::test]
async fn a_body_is_as_long_as_it_was_said_to_be_or_ends_in_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("big");
    let file = fs::File::create(&path).unwrap();
    file.set_len(BIG).unwrap();
    let files = Files::new(folder.path().to_owned());
    for range in [None, Some(("range", "bytes=1-"))] {
        let expected = BIG - u64::from(range.is_some());
        // It grows: what was said is sent.
        let mut body = answer(&files, range.as_slice()).await.into_body();
        assert_eq!(body.size_hint().exact(), Some(expected));
        let mut read = frame(&mut body).await.unwrap().len() as u64;
        file.set_len(2 * BIG).unwrap();
        while !body.is_end_stream() {
            read += frame(&mut body).await.unwrap().len() as u64;
        }
        assert_eq!((read, frame(&mut body).await.unwrap()), (expected, Bytes::new()));
        // It shrinks: what is missing is told.
        file.set_len(BIG).unwrap();
        let mut body = answer(&files, range.as_slice()).await.into_body();
        frame(&mut body).await.unwrap();
        file.set_len(BIG / 2).unwrap();
        let error = loop {
            match frame(&mut body).await {
                Ok(bytes) => assert!(!bytes.is_empty(), "it ended as if it were whole"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        file.set_len(BIG).unwrap();
    }
}

#[tokio::test]
async fn parts_that_are_resumed_make_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    // Of a length that no buffer divides.
    let content: Vec<u8> = (0..3_000_017_u32).flat_map(|at| at.to_le_bytes()).collect();
    fs::write(folder.path().join("big"), &content).unwrap();
    let files = Files::new(folder.path().to_owned());
    let mut got = Vec::new();
    let mut breaks = [1, 65_535, 65_536, 65_537, 5_000_000, usize::MAX].into_iter();
    while got.len() < content.len() {
        let range = format!("bytes={}-", got.len());
        let response = answer(&files, &[("range", &range)]).await;
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
        let (mut body, most) = (response.into_body(), breaks.next().unwrap());
        let mut taken = 0;
        // The visitor goes away in the middle.
        while taken < most && !body.is_end_stream() {
            let bytes = frame(&mut body).await.unwrap();
            let bytes = &bytes[..bytes.len().min(most - taken)];
            taken += bytes.len();
            got.extend_from_slice(bytes);
        }
    }
    assert!(got == content, "the bytes are others");
}

/// The one thread that serves is free while files are read.
#[tokio::test]
async fn a_reader_that_does_not_read_holds_nobody_up() {
    let folder = Folder::new().await;
    fs::File::create(folder.path("big")).unwrap().set_len(64 << 20).unwrap();
    let mut idle = Vec::new();
    for _ in 0..50 {
        let mut visitor = TcpStream::connect(folder.address).await.unwrap();
        visitor.write_all(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        idle.push(visitor);
    }
    for _ in 0..20 {
        assert_eq!(folder.get("/ten.txt", "").await.text(), "0123456789");
    }
}
