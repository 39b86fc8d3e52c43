//! The two binaries over WebSocket: alone, beside other carriers in one session, and beside browsers on one port.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::TcpStream;

use gkd_tests::{Program, Serving, curl, free_port, has_tool, run, wait_for_port, web};

const LEN: u64 = 16 * 1024 * 1024;

/// The server's link with another carrier, and what stands behind its address.
fn over(link: &str, carrier: &str, behind: &str) -> String {
    format!("{}{behind}", link.replacen("gkd://", &format!("{carrier}://"), 1))
}

/// A client of these links that downloads through its proxy; its log.
fn download(serving: &Serving, links: &[&str], seed: u64) -> String {
    let proxy = free_port();
    let listener = format!("mixed://127.0.0.1:{proxy}");
    let args: Vec<_> = links.iter().copied().chain(["-L", &listener, "-v"]).collect();
    let client = Program::start("gkd-client", serving.folder.path(), &args);
    wait_for_port(proxy);
    let url = format!("http://127.0.0.1:{}/{LEN}/{seed}", web::serve());
    let mut whole = false;
    let status = curl(&["-x", &format!("socks5h://127.0.0.1:{proxy}"), &url], |body| {
        whole = web::check(body, LEN, seed);
    });
    assert!(whole && status == 0, "curl ended with {status}:\n{}", client.log());
    client.log()
}

#[test]
fn downloads_over_websocket_and_mixed_with_raw_tunnels_are_whole() {
    if !has_tool("curl") {
        return;
    }
    let serving = Serving::with(&[]);
    let ws = over(&serving.link, "gkd+ws", "/any/path?host=any.example");
    download(&serving, &[&ws], 1);
    download(&serving, &[&ws, &serving.link], 2);
}

#[test]
fn check_tells_that_the_server_is_reached_over_websocket_or_why_not() {
    let serving = Serving::with(&[]);
    let checked = run("gkd-client", &["check", &over(&serving.link, "gkd+ws", "")]);
    let told = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.status.success() && told.contains("4 of 4 tunnels come up"), "{told}");
    assert!(told.contains(&format!("127.0.0.1:{} over gkd+ws: the right key", serving.port)), "{told}");
    // No TLS of a web server is there.
    let checked =
        run("gkd-client", &["check", &over(&serving.link, "gkd+wss", &format!("/?pin={}", "A".repeat(43)))]);
    let told = String::from_utf8(checked.stderr).unwrap();
    assert_eq!(checked.status.code(), Some(69), "{told}");
    let at = format!("the TLS of the web server failed at the server at 127.0.0.1:{}", serving.port);
    assert!(told.contains(&at), "{told}");
}

#[test]
fn a_server_that_is_set_to_a_path_takes_no_other() {
    let serving = Serving::with(&[]);
    let folder = serving.folder.path().join("server");
    let config = folder.join("server.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replacen("# paths = ", "paths = ", 1)).unwrap();
    let (port, dir) = (free_port(), folder.to_str().unwrap());
    drop(serving.server);
    let listen = format!("127.0.0.1:{port}");
    let args = ["run", "--dir", dir, "--listen", &listen];
    let _server = Program::start("gkd-server", serving.folder.path(), &args);
    wait_for_port(port);
    let link = serving.link.replace(&format!(":{}", serving.port), &format!(":{port}"));
    let right = run("gkd-client", &["check", &over(&link, "gkd+ws", "/t")]);
    assert!(right.status.success(), "{}", String::from_utf8_lossy(&right.stderr));
    let wrong = run("gkd-client", &["check", &over(&link, "gkd+ws", "/u")]);
    let told = String::from_utf8(wrong.stderr).unwrap();
    assert!(
        told.contains("answered 404 Not Found to the WebSocket upgrade at /u: check the link's path"),
        "{told}"
    );
    assert_eq!(wrong.status.code(), Some(69));
}

#[test]
fn a_browser_on_the_servers_port_finds_nothing() {
    let serving = Serving::with(&[]);
    let mut tcp = TcpStream::connect(("127.0.0.1", serving.port)).unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
    assert!(!answer.to_lowercase().contains("gkd"), "{answer}");
}

#[test]
fn a_browser_sees_the_site_and_tunnels_come_in_beside_it() {
    let mut serving = Serving::with(&[]);
    let folder = serving.folder.path().join("site");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("index.html"), "a site like any other").unwrap();
    let dir = serving.folder.path().join("server");
    let config = dir.join("server.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("site = {folder:?}\n{text}")).unwrap();
    serving.server.signal("TERM");
    serving.server.wait();
    let listen = format!("127.0.0.1:{}", serving.port);
    let args = ["run", "--dir", dir.to_str().unwrap(), "--listen", &listen];
    let _server = Program::start("gkd-server", serving.folder.path(), &args);
    wait_for_port(serving.port);
    let mut tcp = TcpStream::connect(("127.0.0.1", serving.port)).unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("a site like any other"),
        "{answer}"
    );
    let checked = run("gkd-client", &["check", &over(&serving.link, "gkd+ws", "/")]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
