//! The two binaries, with curl at one end and a web server at the other.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::process::{Command, Stdio};

use gkd_tests::{Setup, curl, free_port, has_tool, run, web};

const MIB: u64 = 1024 * 1024;

/// Downloads through the proxy and checks every byte.
fn download(proxy: &str, web: u16, len: u64, seed: u64) {
    let url = format!("http://127.0.0.1:{web}/{len}/{seed}");
    let mut whole = false;
    let status = curl(&["-x", proxy, &url], |body| whole = web::check(body, len, seed));
    assert!(whole && status == 0, "{len} bytes through {proxy}: curl ended with {status}");
}

#[test]
fn downloads_through_socks_and_http_are_whole() {
    if !has_tool("curl") {
        return;
    }
    let (setup, web) = (Setup::new(), web::serve());
    download(&format!("socks5h://127.0.0.1:{}", setup.proxy), web, 64 * MIB, 1);
    download(&format!("socks5://127.0.0.1:{}", setup.proxy), web, MIB, 2);
    download(&format!("http://127.0.0.1:{}", setup.proxy), web, 64 * MIB, 3);
}

#[test]
fn https_style_tunnels_pass_through_connect() {
    if !has_tool("curl") {
        return;
    }
    let (setup, web) = (Setup::new(), web::serve());
    let url = format!("http://127.0.0.1:{web}/100000/4");
    let proxy = format!("http://127.0.0.1:{}", setup.proxy);
    let mut whole = false;
    let status = curl(&["--proxytunnel", "-x", &proxy, &url], |body| whole = web::check(body, 100_000, 4));
    assert!(whole && status == 0);
}

#[test]
fn sixty_four_downloads_at_once_are_whole() {
    if !has_tool("curl") {
        return;
    }
    let (setup, web) = (Setup::new(), web::serve());
    let proxies = [("socks5h", setup.proxy), ("http", setup.proxy)]
        .map(|(kind, port)| format!("{kind}://127.0.0.1:{port}"));
    std::thread::scope(|scope| {
        for turn in 0..64u64 {
            let proxy = &proxies[turn as usize % 2];
            // From nothing to 2 MiB.
            let len = turn * turn * 521;
            scope.spawn(move || download(proxy, web, len, turn));
        }
    });
}

#[test]
fn an_upload_arrives_whole() {
    if !has_tool("curl") {
        return;
    }
    let (setup, web) = (Setup::new(), web::serve());
    let (len, seed) = (32 * MIB, 5);
    let mut child = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--max-time", "120", "-T", "-"])
        .args(["-H", &format!("Content-Length: {len}"), "-H", "Transfer-Encoding:"])
        .args(["-x", &format!("socks5h://127.0.0.1:{}", setup.proxy)])
        .arg(format!("http://127.0.0.1:{web}/{len}/{seed}"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    web::pieces(len, seed).for_each(|piece| input.write_all(&piece).unwrap());
    drop(input);
    assert!(child.wait().unwrap().success(), "the server says that not all of it arrived");
}

#[test]
fn a_refused_destination_has_the_right_reply_with_strict() {
    if !has_tool("curl") {
        return;
    }
    let strict = free_port();
    let listener = format!("mixed://127.0.0.1:{strict}?strict=1");
    let setup = Setup::with(&[], &["-L", &listener]);
    let nobody = free_port();
    let ask = |proxy: String| {
        let url = format!("http://127.0.0.1:{nobody}/");
        let output =
            Command::new("curl").args(["--silent", "--show-error", "-x", &proxy, &url]).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // curl 97: the proxy's handshake failed; SOCKS reply 5 is "connection refused".
    let (status, error) = ask(format!("socks5h://127.0.0.1:{strict}"));
    assert!(status == Some(97) && error.contains("(5)"), "{status:?} {error}");
    // The default answers at once, so that the failed dial shows as a reset: when curl sends, waits or reads.
    let (status, error) = ask(format!("socks5h://127.0.0.1:{}", setup.proxy));
    assert!(matches!(status, Some(52 | 55 | 56)), "{status:?} {error}");
    // An absolute-URI request always gets its answer.
    let mut body = String::new();
    let url = format!("http://127.0.0.1:{nobody}/");
    let proxy = format!("http://127.0.0.1:{}", setup.proxy);
    curl(&["-w", "%{http_code}", "-o", "/dev/null", "-x", &proxy, &url], |out| {
        out.read_to_string(&mut body).unwrap();
    });
    assert_eq!(body, "502");
}

#[test]
fn private_destinations_are_denied_by_default() {
    if !has_tool("curl") {
        return;
    }
    let setup = Setup::new();
    let proxy = format!("http://127.0.0.1:{}", setup.proxy);
    for url in
        ["http://10.0.0.1/", "http://[::1]:80/", "http://169.254.169.254/", "http://[::ffff:10.0.0.1]/"]
    {
        let mut code = String::new();
        curl(&["-w", "%{http_code}", "-o", "/dev/null", "-x", &proxy, url], |out| {
            out.read_to_string(&mut code).unwrap();
        });
        assert_eq!(code, "403", "{url}");
    }
}

#[test]
fn a_client_with_another_servers_key_is_told_so() {
    let (setup, other) = (Setup::new(), Setup::new());
    let link = other.link.replace(&format!(":{}", other.port), &format!(":{}", setup.port));
    let output = run("gkd-client", &["check", &link]);
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("another key") && said.contains("new link"), "{said}");
    assert_eq!(output.status.code(), Some(77));
}

#[test]
fn both_end_at_once_on_term_when_nothing_lives() {
    let mut setup = Setup::new();
    setup.client.signal("TERM");
    assert_eq!(setup.client.wait(), 0);
    setup.server.signal("TERM");
    assert_eq!(setup.server.wait(), 0);
}
