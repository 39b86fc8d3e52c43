//! Services that a client announces, with the client's binary: reached over its session, changed by a HUP, taken over after
//! a restart, a folder's files resumed. What answers for them is a server of this process, so that each target is asked alone;
//! and what the server's binary says of those that its rules do not grant.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use gkd_core::Server;
use gkd_core::identity::SecretKey;
use gkd_core::link::Link;
use gkd_core::proto::id::PeerId;
use gkd_proxy::rate::Rate;
use gkd_proxy::reverse::Refusal;
use gkd_proxy::service::announce::{Announced, Announcement, Announcements, Announcer, ServiceGrants};
use gkd_proxy::service::config::ServiceNames;
use gkd_proxy::service::name::ServiceName;
use gkd_proxy::service::{BoxIo, Reach};
use gkd_proxy::{Dialer, Exit, RelayConfig, Rules};
use gkd_tests::{Program, Setup, free_port, wait_for_port, web};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// So long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Grants all.
struct All;

impl ServiceGrants for All {
    fn grant(&self, _: &PeerId, _: &ServiceName) -> Result<Arc<ServiceNames>, String> {
        Ok(Arc::default())
    }

    fn name(&self, _: &PeerId) -> String {
        "ann".to_owned()
    }

    fn rate(&self, _: &PeerId) -> Option<Arc<Rate>> {
        None
    }
}

type Target = (String, Arc<dyn Reach>);

/// Targets, as they are announced.
#[derive(Clone, Default)]
struct Targets(Arc<Mutex<Vec<Target>>>);

/// Takes its target away.
struct Guard(Targets, String);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().retain(|(_, target)| target.name() != self.1);
    }
}

impl Announcements for Targets {
    fn announce(&self, announcement: Announcement<'_>) -> Result<Announced, Refusal> {
        let (service, target) = (announcement.service.to_string(), announcement.target);
        let guard = Guard(self.clone(), target.name().to_owned());
        self.0.lock().unwrap().push((service.clone(), target));
        Ok(Announced { place: format!("https://{service}.example"), guard: Box::new(guard) })
    }
}

impl Targets {
    fn all(&self) -> Vec<Target> {
        self.0.lock().unwrap().clone()
    }

    /// Waits until there are those of these services and no others; the first of each.
    async fn are(&self, services: &[&str]) -> Vec<Arc<dyn Reach>> {
        let began = Instant::now();
        loop {
            let all = self.all();
            let mut names: Vec<_> = all.iter().map(|(service, _)| service.as_str()).collect();
            names.sort_unstable();
            if names == services {
                let first = |name: &&str| {
                    all.iter().find(|(service, _)| service == name).map(|(_, target)| target.clone()).unwrap()
                };
                return services.iter().map(first).collect();
            }
            assert!(began.elapsed() < PATIENCE, "there are {names:?} and not {services:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A server that takes announcements, and the link of its one user.
async fn front() -> (Targets, String) {
    let (server, user, targets) = (SecretKey::generate(), SecretKey::generate(), Targets::default());
    let listening = Server::builder().key(server.clone()).listen("127.0.0.1:0").bind().await.unwrap();
    let address = listening.local_addr().unwrap().to_string();
    let link = Link::new(server.public(), user, vec![address.parse().unwrap()]);
    let announcer = Announcer::new(All, Arc::new(targets.clone()));
    let exit = Exit::new(Dialer::new(Rules::none()), RelayConfig::default()).announcing(announcer);
    let exit = Arc::new(exit);
    tokio::spawn(async move {
        while let Some((connection, _)) = listening.accept().await {
            exit.clone().spawn(connection);
        }
    });
    (targets, link.to_string())
}

/// A client with this configuration behind its link.
struct Client {
    program: Program,
    folder: TempDir,
    link: String,
}

impl Client {
    fn start(link: &str, services: &str) -> Self {
        let folder = TempDir::new().unwrap();
        write(&folder, link, services);
        let config = folder.path().join("client.toml");
        let program =
            Program::start("gkd-client", folder.path(), &["--config", config.to_str().unwrap(), "-v"]);
        Self { program, folder, link: link.to_owned() }
    }

    fn becomes(&self, services: &str) {
        write(&self.folder, &self.link, services);
        self.program.signal("HUP");
    }
}

fn write(folder: &TempDir, link: &str, services: &str) {
    fs::write(folder.path().join("client.toml"), format!("links = [\"{link}\"]\n{services}")).unwrap();
}

fn service(name: &str, to: &str) -> String {
    format!("[[service]]\nname = \"{name}\"\nto = \"{to}\"\n")
}

/// Asks over a connection of its own; the head, and what comes behind it.
async fn get(target: &Arc<dyn Reach>, path: &str, lines: &str) -> (String, BufReader<BoxIo>) {
    let mut stream = BufReader::new(target.dial().await.unwrap());
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).await.unwrap() > 0, "the head ends early: {head}");
    }
    (head, stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_server_and_a_folder_are_announced_and_a_hup_changes_one_of_them() {
    const LENGTH: usize = 20_000_000;
    let (targets, link) = front().await;
    let files = TempDir::new().unwrap();
    fs::write(files.path().join("ten.txt"), "0123456789").unwrap();
    let folder = service("files", files.path().to_str().unwrap());
    let shop = service("shop", &format!("http://127.0.0.1:{}", web::serve()));
    let client = Client::start(&link, &format!("{folder}{shop}"));
    let [of_files, of_shop] = &targets.are(&["files", "shop"]).await[..] else { panic!("there are two") };
    client.program.wait_for_log("the service shop is served at https://shop.example with http://127.0.0.1:");
    let (head, mut body) = get(of_files, "/ten.txt", "Range: bytes=7-\r\n").await;
    assert!(head.starts_with("HTTP/1.1 206 Partial Content\r\n"), "{head}");
    let mut part = String::new();
    body.read_to_string(&mut part).await.unwrap();
    assert_eq!(part, "789");
    let (_, mut live) = get(of_shop, &format!("/{LENGTH}/7"), "").await;
    let mut got = vec![0; 1000];
    live.read_exact(&mut got).await.unwrap();

    // What goes lets its requests end, and what stays is not asked for anew.
    let mall = service("mall", "http://127.0.0.1:9");
    client.becomes(&format!("{mall}{folder}"));
    let now = targets.are(&["files", "mall"]).await;
    assert_eq!(now[0].name(), of_files.name());
    live.read_to_end(&mut got).await.unwrap();
    assert!(web::check(&mut &got[..], LENGTH as u64, 7), "{} bytes came", got.len());
    assert!(of_shop.dial().await.is_err());
    assert_eq!(now[1].dial().await.err().unwrap().kind(), std::io::ErrorKind::ConnectionRefused);
    client.program.wait_for_log("closed service http://shop:127.0.0.1:");

    // What is wrong changes nothing.
    client.becomes(&service("Mall", "http://127.0.0.1:9"));
    client.program.wait_for_log("client.toml line 3: the service's name \"Mall\" holds 'M'");
    targets.are(&["files", "mall"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_killed_takes_its_place_again_and_another_stands_beside_it() {
    let (targets, link) = front().await;
    let [one, other] = [(); 2].map(|()| service("shop", &format!("http://127.0.0.1:{}", web::serve())));
    let mut first = Client::start(&link, &one);
    targets.are(&["shop"]).await;
    // Of the same user, with another target.
    let second = Client::start(&link, &other);
    let both = targets.are(&["shop", "shop"]).await;
    first.program.signal("KILL");
    first.program.wait();
    // What the first left behind is given up in time, and nobody else's.
    let (dead, alive) = (targets.all()[0].1.clone(), targets.all()[1].1.clone());
    let began = Instant::now();
    assert!(dead.dial().await.is_err() && began.elapsed() < PATIENCE);
    assert!(get(&alive, "/10/1", "").await.0.starts_with("HTTP/1.1 200"));

    let third = Client::start(&link, &one);
    third.program.wait_for_log("the service shop is served");
    targets.are(&["shop", "shop"]).await;
    let names: Vec<_> = targets.all().iter().map(|(_, target)| target.name().to_owned()).collect();
    assert!(
        !names.contains(&dead.name().to_owned()) && names.contains(&alive.name().to_owned()),
        "{names:?}"
    );
    drop(both);
    let mut second = second;
    second.program.signal("TERM");
    assert_eq!(second.program.wait(), 0);
    targets.are(&["shop"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_of_the_clients_folder_is_resumed_by_ranges() {
    const LENGTH: usize = 64 << 20;
    let (targets, link) = front().await;
    let files = TempDir::new().unwrap();
    let content: Vec<u8> =
        (0..LENGTH as u32 / 4).flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut file = fs::File::create(files.path().join("big")).unwrap();
    file.write_all(&content).unwrap();
    // Of one that was changed just now the tag is a weak one, which no part may be asked for by.
    let before = SystemTime::now() - Duration::from_secs(60);
    file.set_times(fs::FileTimes::new().set_modified(before)).unwrap();
    let _client = Client::start(&link, &service("files", files.path().to_str().unwrap()));
    let target = targets.are(&["files"]).await.remove(0);
    let (mut got, mut condition) = (Vec::with_capacity(LENGTH), String::new());
    // Broken off, but for the last.
    for most in [1, 3_000_001, 6_000_003, 12_000_007, 24_000_001, u64::MAX] {
        let lines = format!("Range: bytes={}-\r\n{condition}", got.len());
        let (head, mut body) = get(&target, "/big", &lines).await;
        let range = format!("content-range: bytes {}-{}/{LENGTH}", got.len(), LENGTH - 1);
        assert!(head.starts_with("HTTP/1.1 206") && head.contains(&range), "{head}");
        let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
        condition = format!("If-Range: {tag}\r\n");
        (&mut body).take(most).read_to_end(&mut got).await.unwrap();
    }
    assert!(got == content, "the bytes are others");
}

#[test]
fn what_the_rules_do_not_grant_is_told_and_nothing_else_suffers() {
    let target = web::serve();
    let listener = free_port();
    let remote = [format!("http://shop:127.0.0.1:{target}"), format!("tcp://{listener}:127.0.0.1:{target}")];
    let setup = Setup::with(&[], &["-R", &remote[0], "-R", &remote[1]]);
    setup.client.wait_for_log("the service shop is not served with http://127.0.0.1:");
    setup.client.wait_for_log("may announce nothing, not shop: have its `services` in server.toml changed");
    wait_for_port(listener);
    let path = setup.folder.path().join("server/server.toml");
    let http = "[http]\nlisten = [\"http://127.0.0.1:8080\"]\ndomain = \"apps.example.org\"\n";
    let before = fs::read_to_string(&path).unwrap() + http;
    fs::write(&path, before.replace("[[user]]\n", "[[user]]\nservices = [\"shop\", \"a.b\"]\n")).unwrap();
    setup.server.signal("HUP");
    setup.server.wait_for_log("the service's name \"a.b\" has a wrong character");
    fs::write(&path, before.replace("[[user]]\n", "[[user]]\nservices = [\"shop\"]\n")).unwrap();
    setup.server.signal("HUP");
    setup.server.wait_for_log("has another services");
}
