//! Clients that die, or fall silent, with requests under way, with the two binaries: what another client answers in their
//! place, and what waits for them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use gkd_tests::{Program, free_port, run, wait_for_port};
use tempfile::TempDir;

/// So long a test waits for what has to come: less than a session stands without a tunnel (`resume`, 60 s), and more than it
/// takes until silent tunnels are given up (20 s).
const PATIENCE: Duration = Duration::from_secs(50);

/// What requests wait at.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(open, |open| !*open).unwrap());
    }
}

/// A web server that answers with its name behind a gate, and tells of what it was asked.
fn web(name: &'static str, gate: &Gate) -> (u16, Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (port, gate, (asked, told)) = (listener.local_addr().unwrap().port(), gate.clone(), channel());
    thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let (gate, asked) = (gate.clone(), asked.clone());
            thread::spawn(move || {
                let mut reader = BufReader::new(socket.try_clone().unwrap());
                let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
                reader.read_line(&mut first).unwrap();
                while reader.read_line(&mut line).unwrap() > 2 {
                    if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
                        length = value.trim().parse().unwrap();
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                asked.send(first).ok();
                gate.pass();
                let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}", name.len());
                // Nobody may be there any more.
                socket.write_all(format!("{head}\r\n\r\n{name}").as_bytes()).ok();
            });
        }
    });
    (port, told)
}

/// A server with HTTP services, whose one user announces one.
struct Front {
    server: Program,
    port: u16,
    link: String,
    folder: TempDir,
}

impl Front {
    fn start() -> Self {
        let (folder, tunnels, port) = (TempDir::new().unwrap(), free_port(), free_port());
        let dir = folder.path().join("server");
        let dir = dir.to_str().unwrap();
        let init = run("gkd-server", &["init", "--dir", dir, "--public", &format!("127.0.0.1:{tunnels}")]);
        assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
        let link = String::from_utf8(init.stdout).unwrap().trim().to_owned();
        let path = folder.path().join("server/server.toml");
        let config = fs::read_to_string(&path).unwrap();
        let config = config.replace("[[user]]\n", "[[user]]\nservices = [\"shop\"]\n");
        let http = format!("[http]\nlisten = [\"http://127.0.0.1:{port}\"]\ndomain = \"apps.example\"\n");
        fs::write(&path, config + &http).unwrap();
        let listen = format!("127.0.0.1:{tunnels}");
        let server = Program::start("gkd-server", folder.path(), &["run", "--dir", dir, "--listen", &listen]);
        wait_for_port(port);
        Self { server, port, link, folder }
    }

    /// A client that announces the service, and is heard.
    fn client(&self, web: u16) -> Program {
        let service = format!("http://shop:127.0.0.1:{web}");
        let client = Program::start("gkd-client", self.folder.path(), &[&self.link, "-R", &service]);
        client.wait_for_log("the service shop is served");
        client
    }

    /// Sends a request; the answer, when it is all there.
    fn ask(&self, method: &str, body: &str) -> JoinHandle<String> {
        let mut socket = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let head =
            format!("{method} / HTTP/1.1\r\nHost: shop.apps.example\r\nConnection: close\r\n{length}\r\n");
        socket.write_all((head + body).as_bytes()).unwrap();
        thread::spawn(move || {
            let mut answer = String::new();
            socket.read_to_string(&mut answer).expect("an answer in time");
            answer
        })
    }
}

fn says(answer: JoinHandle<String>, name: &str) {
    let answer = answer.join().unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(&format!("\r\n\r\n{name}")),
        "{answer}"
    );
}

#[test]
fn what_a_killed_client_was_asked_another_answers() {
    let front = Front::start();
    let (closed, open) = (Gate::default(), Gate::default());
    open.open();
    let ((slow, asked), (good, _)) = (web("first", &closed), web("second", &open));
    let mut first = front.client(slow);
    let answer = front.ask("GET", "");
    asked.recv_timeout(PATIENCE).unwrap();
    let _second = front.client(good);
    first.signal("KILL");
    first.wait();
    says(answer, "second");
    front.server.wait_for_log("no tunnel to the client of the target");
    for _ in 0..4 {
        says(front.ask("POST", "body"), "second");
    }
}

#[test]
fn what_a_stopped_client_was_sent_waits_for_it_and_the_rest_goes_elsewhere() {
    let front = Front::start();
    let (gate, open) = (Gate::default(), Gate::default());
    open.open();
    let ((slow, asked), (good, _)) = (web("first", &gate), web("second", &open));
    let first = front.client(slow);
    let (get, post) = (front.ask("GET", ""), front.ask("POST", "body"));
    for _ in 0..2 {
        asked.recv_timeout(PATIENCE).unwrap();
    }
    let _second = front.client(good);
    first.signal("STOP");
    says(get, "second");
    assert!(!post.is_finished());
    first.signal("CONT");
    gate.open();
    says(post, "first");
}
