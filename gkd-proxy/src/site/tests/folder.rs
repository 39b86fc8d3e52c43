//! Files, and what is none of them.

use std::fs;

use tempfile::TempDir;

use super::*;

/// A folder with a secret beside it.
struct Files {
    /// Holds both.
    around: TempDir,
    served: Served,
}

impl Files {
    async fn new() -> Self {
        let around = tempfile::tempdir().unwrap();
        let www = around.path().join("www");
        fs::create_dir_all(www.join("sub")).unwrap();
        fs::create_dir_all(www.join("bare")).unwrap();
        fs::write(around.path().join("secret"), "SECRET").unwrap();
        fs::write(www.join("index.html"), "<p>hello</p>").unwrap();
        fs::write(www.join("sub/index.html"), "below").unwrap();
        fs::write(www.join("ten.txt"), "0123456789").unwrap();
        let served = Served::site(Site::new(SiteConfig::Folder(www))).await;
        Self { around, served }
    }

    fn www(&self) -> PathBuf {
        self.around.path().join("www")
    }
}

#[tokio::test]
async fn files_come_by_their_path_with_their_type() {
    let files = Files::new().await;
    for (path, kind, body) in [
        ("/", "text/html", "<p>hello</p>"),
        ("/index.html", "text/html", "<p>hello</p>"),
        ("/sub/", "text/html", "below"),
        ("/ten.txt?any=query", "text/plain", "0123456789"),
        ("/%74en.txt", "text/plain", "0123456789"),
        ("http://site.example/ten.txt", "text/plain", "0123456789"),
    ] {
        let answer = files.served.get(path, "").await;
        assert_eq!((answer.status(), answer.text()), (200, body), "{path}");
        assert!(answer.header("content-type").unwrap().starts_with(kind), "{answer:?}");
        assert_eq!(answer.header("content-length"), Some(&*body.len().to_string()));
        assert!(!answer.head.contains("gkd"), "{answer:?}");
    }
    let answer = files.served.get("/sub?a=b", "").await;
    assert_eq!((answer.status(), answer.header("location")), (307, Some("/sub/?a=b")));
    let head = files.served.visit("HEAD /ten.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!((head.status(), head.header("content-length"), head.text()), (200, Some("10"), ""));
}

#[tokio::test]
async fn ranges_and_conditions_are_heard() {
    let files = Files::new().await;
    let get = |lines: String| {
        let served = &files.served;
        async move { served.get("/ten.txt", &lines).await }
    };
    let whole = get(String::new()).await;
    let (tag, time) = (whole.header("etag").unwrap(), whole.header("last-modified").unwrap());
    // In small letters as read; times are taken in any.
    let not_modified = get(format!("If-None-Match: {tag}\r\n")).await;
    assert_eq!((not_modified.status(), not_modified.text()), (304, ""));
    let time = httpdate_in_large(time);
    assert_eq!(get(format!("If-Modified-Since: {time}\r\n")).await.status(), 304);
    assert_eq!(get("If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n".into()).await.status(), 200);
    assert_eq!(get("If-None-Match: \"other\"\r\n".into()).await.status(), 200);
    let part = get("Range: bytes=2-4\r\n".into()).await;
    assert_eq!((part.status(), part.text()), (206, "234"));
    assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));
    let end = get("Range: bytes=-3\r\n".into()).await;
    assert_eq!((end.status(), end.text()), (206, "789"));
    assert_eq!(get("Range: bytes=20-30\r\n".into()).await.status(), 416);
    assert_eq!(get("Range: bytes=0-1,3-4\r\n".into()).await.text(), "0123456789");
    // What the part would be of is not compared.
    let whole = get(format!("Range: bytes=2-4\r\nIf-Range: {tag}\r\n")).await;
    assert_eq!((whole.status(), whole.text()), (200, "0123456789"));
}

/// A date of a head that was read in small letters.
fn httpdate_in_large(date: &str) -> String {
    let words = date.split(' ').map(|word| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    });
    words.collect::<Vec<_>>().join(" ").replace("Gmt", "GMT")
}

#[tokio::test]
async fn there_is_no_way_out_of_the_folder() {
    let files = Files::new().await;
    fs::write(files.www().join(".secret"), "SECRET").unwrap();
    fs::create_dir(files.www().join(".git")).unwrap();
    fs::write(files.www().join(".git/config"), "SECRET").unwrap();
    for path in [
        "/../secret",
        "/sub/../../secret",
        "/%2e%2e/secret",
        "/%2e%2e%2fsecret",
        "/..%2fsecret",
        "/%2e%2e%5csecret",
        "/..\\secret",
        "/sub/%2e%2e/%2e%2e/secret",
        "/%252e%252e/secret",
        "/....//secret",
        "/%00",
        "/ten.txt%00",
        "/ten.txt/",
        "/ten.txt/x",
        "/%ff",
        "//secret",
        "///etc/passwd",
        "/../../../../../../../../etc/passwd",
        "/%2fetc%2fpasswd",
        "/.secret",
        "/%2esecret",
        "/.git/config",
        "/bare/",
        "/none",
    ] {
        let answer = files.served.get(path, "").await;
        assert!(!answer.text().contains("SECRET") && !answer.text().contains("root:"), "{path}: {answer:?}");
        assert!(matches!(answer.status(), 400 | 404), "{path}: {answer:?}");
    }
    let long = format!("/{}", "x".repeat(5000));
    assert_eq!(files.served.get(&long, "").await.status(), 404);
    let missing = files.served.get("/none", "").await;
    assert!(missing.text().contains("404 Not Found") && !missing.text().contains("gkd"), "{missing:?}");
    fs::create_dir(files.www().join(".well-known")).unwrap();
    fs::write(files.www().join(".well-known/token"), "proof").unwrap();
    assert_eq!(files.served.get("/.well-known/token", "").await.text(), "proof");
}

#[cfg(unix)]
#[tokio::test]
async fn links_are_followed_within_and_not_out_of_the_folder() {
    use std::os::unix::fs::symlink;

    let files = Files::new().await;
    let www = files.www();
    fs::create_dir(www.join(".hidden")).unwrap();
    fs::write(www.join(".hidden/file"), "SECRET").unwrap();
    symlink("ten.txt", www.join("near")).unwrap();
    symlink(www.join("sub"), www.join("folder")).unwrap();
    for (link, target) in [
        ("out", "../secret"),
        ("whole", "/etc/passwd"),
        ("around", ".."),
        ("chain", "out"),
        ("circle", "circle"),
        ("dangling", "nowhere"),
        ("unhidden", ".hidden/file"),
    ] {
        symlink(target, www.join(link)).unwrap();
    }
    assert_eq!(files.served.get("/near", "").await.text(), "0123456789");
    assert_eq!(files.served.get("/folder/", "").await.text(), "below");
    let denied = [
        "/out",
        "/whole",
        "/around/secret",
        "/around/",
        "/around/www/ten.txt/../../secret",
        "/chain",
        "/circle",
    ];
    for path in denied.into_iter().chain(["/dangling", "/unhidden"]) {
        let answer = files.served.get(path, "").await;
        assert_eq!(answer.status(), 404, "{path}: {answer:?}");
    }
    // The folder itself may be a link, to one version of the site and then another.
    let (first, current) = (files.around.path().join("www"), files.around.path().join("current"));
    let second = files.around.path().join("second");
    fs::create_dir(&second).unwrap();
    fs::write(second.join("ten.txt"), "anew").unwrap();
    symlink(&first, &current).unwrap();
    let served = Served::site(Site::new(SiteConfig::Folder(current.clone()))).await;
    assert_eq!(served.get("/ten.txt", "").await.text(), "0123456789");
    fs::remove_file(&current).unwrap();
    symlink(&second, &current).unwrap();
    assert_eq!(served.get("/ten.txt", "").await.text(), "anew");
}

/// Opening a pipe waits for its writer, on a thread that others need.
#[cfg(unix)]
#[tokio::test]
async fn what_is_neither_file_nor_folder_is_not_opened() {
    let files = Files::new().await;
    let pipe = files.www().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(files.www().join("socket")).unwrap();
    fs::create_dir(files.www().join("bare/index.html")).unwrap();
    for path in ["/pipe", "/socket", "/bare/"] {
        assert_eq!(files.served.get(path, "").await.status(), 404, "{path}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_path_that_is_no_uri_is_not_there() {
    let files = Files::new().await;
    fs::create_dir(files.www().join("é")).unwrap();
    // A redirection to it would be an impossible header.
    let answer = files.served.get("/é", "").await;
    assert!(matches!(answer.status(), 400 | 404), "{answer:?}");
    assert_eq!(files.served.get("/%c3%a9", "").await.header("location"), Some("/%c3%a9/"));
}

#[tokio::test]
async fn a_folder_takes_nothing() {
    let files = Files::new().await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let request = format!(
            "{method} /ten.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
        );
        let answer = files.served.visit(&request).await;
        assert_eq!((answer.status(), answer.header("allow")), (405, Some("get,head")), "{method}");
    }
    assert_eq!(fs::read(files.www().join("ten.txt")).unwrap(), b"0123456789");
}
