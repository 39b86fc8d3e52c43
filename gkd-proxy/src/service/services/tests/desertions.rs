//! Targets of clients that there is no way to for a while, or any more: what of their requests goes to another target.

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::service::{BoxIo, Lack, Passage};

/// A web server behind a client, whose tunnels the test has in its hand. What was connected goes on while there are none, but
/// for bytes: of those the test has the web server send none.
struct Behind {
    name: &'static str,
    address: SocketAddr,
    passage: watch::Sender<Passage>,
}

impl Reach for Behind {
    fn dial(&self) -> BoxFuture<'static, io::Result<BoxIo>> {
        let (address, mut passage) = (self.address, self.passage.subscribe());
        Box::pin(async move {
            let told = passage.wait_for(|now| *now != Passage::Doubtful).await;
            match told.map(|now| *now) {
                Ok(Passage::Open) => Ok(Box::new(TcpStream::connect(address).await?) as BoxIo),
                _ => Err(io::ErrorKind::TimedOut.into()),
            }
        })
    }

    fn name(&self) -> &str {
        self.name
    }

    fn passage(&self) -> Option<watch::Receiver<Passage>> {
        Some(self.passage.subscribe())
    }
}

impl Behind {
    fn new(name: &'static str, web: &Web) -> Arc<Self> {
        Arc::new(Self { name, address: web.address, passage: watch::Sender::new(Passage::Open) })
    }

    fn is(&self, passage: Passage) {
        self.passage.send_replace(passage);
    }
}

impl Served {
    /// A service without targets of its own, in turn.
    async fn of_clients() -> Self {
        let mut service = shop([]);
        service.users = vec!["ann".into()];
        service.balance = crate::service::config::Method::RoundRobin;
        Self::new(config([service])).await
    }

    fn add(&self, target: &Arc<Behind>, protocol: Protocol) -> Announced {
        let target: Arc<dyn Reach> = Arc::clone(target) as _;
        let granted = ServiceNames::default();
        self.services.announce("shop", "ann", &granted, (target, protocol), 1).unwrap()
    }

    /// Sends a request, and has its answer be waited for.
    async fn send(&self, request: Request<TestBody>) -> JoinHandle<(u16, String)> {
        let mut sender = self.http1().await;
        tokio::spawn(async move {
            let answer = timeout(HANG, sender.send_request(request)).await.unwrap().unwrap();
            let status = answer.status().as_u16();
            match timeout(HANG, answer.into_body().collect()).await.unwrap() {
                Ok(body) => (status, String::from_utf8(body.to_bytes().to_vec()).unwrap()),
                Err(_) => (0, String::new()),
            }
        })
    }

    fn targets(&self) -> Vec<TargetStatus> {
        self.services.status().remove(0).targets
    }
}

async fn came(answer: JoinHandle<(u16, String)>) -> (u16, String) {
    timeout(HANG, answer).await.unwrap().unwrap()
}

/// What opens and closes a gate.
fn gate() -> watch::Sender<bool> {
    watch::Sender::new(false)
}

async fn opened(gate: &mut watch::Receiver<bool>) {
    gate.wait_for(|open| *open).await.ok();
}

/// Answers "slow" behind an open gate, having read what comes meanwhile; of HTTP/1.1 and HTTP/2.
async fn slow(gate: &watch::Sender<bool>) -> (Web, Arc<AtomicUsize>) {
    let (gate, asked) = (gate.subscribe(), Arc::<AtomicUsize>::default());
    let count = Arc::clone(&asked);
    let web = Web::proper(move |request| {
        let (mut gate, count) = (gate.clone(), Arc::clone(&count));
        async move {
            let body = request.into_body().collect();
            count.fetch_add(1, Ordering::SeqCst);
            body.await.ok();
            opened(&mut gate).await;
            Response::new(text("slow"))
        }
    })
    .await;
    (web, asked)
}

#[tokio::test]
async fn a_request_under_way_goes_elsewhere_where_that_does_no_harm() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let gate = gate();
        let ((lame, asked), good) = (slow(&gate).await, Web::named("good").await);
        let served = Served::of_clients().await;
        let (first, second) = (Behind::new("first", &lame), Behind::new("second", &good));
        let (_first, _second) = (served.add(&first, protocol), served.add(&second, protocol));
        let mut waiting = Vec::new();
        for (method, body) in [("GET", empty()), ("POST", text("body")), ("PUT", text("body"))] {
            waiting.push(served.send(request(method, "/", body)).await);
            until(|| asked.load(Ordering::SeqCst) == waiting.len()).await;
            assert_eq!(served.get("/", "").await.text(), "good");
        }
        let [get, post, put] = <[_; 3]>::try_from(waiting).unwrap();
        // For a moment says nothing.
        first.is(Passage::Doubtful);
        first.is(Passage::Open);
        first.is(Passage::Gone);
        assert_eq!(came(get).await, (200, "good".into()), "{protocol:?}");
        // Whose bodies went wait, and those that are new ask nobody else.
        until(|| !served.targets()[0].healthy).await;
        for _ in 0..4 {
            assert_eq!(served.get("/", "").await.text(), "good");
        }
        assert!(!post.is_finished() && !put.is_finished(), "{protocol:?}");
        // It is back at once, with all that waited for it, and is not thought the worse of.
        first.is(Passage::Open);
        until(|| served.targets()[0].healthy).await;
        let target = served.targets().remove(0);
        assert_eq!((target.share, target.failures, target.failures_in_a_row), (1.0, 1, 0), "{protocol:?}");
        gate.send_replace(true);
        for answer in [post, put] {
            assert_eq!(came(answer).await, (200, "slow".into()), "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn a_short_answer_that_has_begun_is_asked_for_elsewhere_and_a_long_one_waits() {
    for (length, status) in [(4, "good"), (100_000, "partrest")] {
        let gate = gate();
        let (told, length) = (gate.subscribe(), length.max(8));
        let lame = Web::raw(move |mut socket| {
            let mut told = told.clone();
            async move {
                read_head(&mut socket).await;
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\npart");
                socket.write_all(head.as_bytes()).await.ok();
                opened(&mut told).await;
                socket.write_all(&[b"rest".to_vec(), vec![b' '; length - 8]].concat()).await.ok();
            }
        })
        .await;
        let good = Web::named("good").await;
        let served = Served::of_clients().await;
        let (first, second) = (Behind::new("first", &lame), Behind::new("second", &good));
        let (_first, _second) = (served.add(&first, Protocol::Http1), served.add(&second, Protocol::Http1));
        let answer = served.send(request("GET", "/", empty())).await;
        until(|| lame.connections() == 1).await;
        first.is(Passage::Gone);
        if status == "good" {
            assert_eq!(came(answer).await.1, "good");
        } else {
            // It is not known to wait before there was time enough for it not to.
            until(|| !served.targets()[0].healthy).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(!answer.is_finished());
            gate.send_replace(true);
            assert_eq!(came(answer).await.1.trim_end(), status);
        }
    }
}

#[tokio::test]
async fn who_is_alone_is_waited_for_until_another_comes() {
    let gate = gate();
    let ((lame, asked), good) = (slow(&gate).await, Web::named("good").await);
    let served = Served::of_clients().await;
    let (first, second) = (Behind::new("first", &lame), Behind::new("second", &good));
    let _first = served.add(&first, Protocol::Http1);
    // Under way, and one that finds no way.
    let sent = served.send(request("GET", "/", empty())).await;
    until(|| asked.load(Ordering::SeqCst) == 1).await;
    first.is(Passage::Doubtful);
    first.is(Passage::Gone);
    let unsent = served.send(request("POST", "/", text("body"))).await;
    until(|| served.targets()[0].outstanding == 2).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!sent.is_finished() && !unsent.is_finished());
    // It comes back, and nothing was lost.
    first.is(Passage::Open);
    until(|| asked.load(Ordering::SeqCst) == 2).await;
    gate.send_replace(true);
    assert_eq!((came(sent).await.0, came(unsent).await), (200, (200, "slow".into())));
    assert_eq!(served.targets()[0].failures, 0);

    // Once more; another comes instead.
    gate.send_replace(false);
    let sent =
        [served.send(request("GET", "/", empty())).await, served.send(request("GET", "/", empty())).await];
    until(|| asked.load(Ordering::SeqCst) == 4).await;
    first.is(Passage::Gone);
    // No connection is kept that it could go over.
    let unsent = served.send(request("POST", "/", text("body"))).await;
    until(|| served.targets()[0].outstanding == 3).await;
    second.is(Passage::Doubtful);
    let _second = served.add(&second, Protocol::Http1);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(
        !unsent.is_finished() && sent.iter().all(|sent| !sent.is_finished()),
        "there is no way to it either"
    );
    second.is(Passage::Open);
    for answer in sent.into_iter().chain([unsent]) {
        assert_eq!(came(answer).await, (200, "good".into()));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_kept_connection_is_not_used_while_there_may_be_no_way() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (one, two) = (Web::named("one").await, Web::named("two").await);
        let served = Served::of_clients().await;
        let (first, second) = (Behind::new("first", &one), Behind::new("second", &two));
        let (_first, _second) = (served.add(&first, protocol), served.add(&second, protocol));
        for name in ["one", "two"] {
            assert_eq!(served.get("/", "").await.text(), name);
        }
        let post = || request("POST", "/", text("body"));
        // The turn is the first one's. It is not sent before there is a way again.
        first.is(Passage::Doubtful);
        let answer = served.send(post()).await;
        until(|| served.targets()[0].outstanding == 1).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!answer.is_finished());
        first.is(Passage::Open);
        assert_eq!(came(answer).await, (200, "one".into()));
        assert_eq!(served.get("/", "").await.text(), "two");
        // And to another where there is none.
        first.is(Passage::Doubtful);
        let answer = served.send(post()).await;
        until(|| served.targets()[0].outstanding == 1).await;
        first.is(Passage::Gone);
        assert_eq!(came(answer).await, (200, "two".into()));
        assert_eq!(one.connections(), 1);
        // Alone it is used, for it may come back.
        drop(_second);
        assert_eq!(came(served.send(post()).await).await, (200, "one".into()));
    }
}

#[tokio::test]
async fn a_request_deserts_once() {
    let gate = gate();
    let ((lame, asked), (lamer, asked_too)) = (slow(&gate).await, slow(&gate).await);
    let good = Web::named("good").await;
    let served = Served::of_clients().await;
    let all = [Behind::new("a", &lame), Behind::new("b", &lamer), Behind::new("c", &good)];
    let [_a, _b, _c] = [&all[0], &all[1], &all[2]].map(|target| served.add(target, Protocol::Http1));
    let answer = served.send(request("GET", "/", empty())).await;
    until(|| asked.load(Ordering::SeqCst) == 1).await;
    all[0].is(Passage::Gone);
    until(|| asked_too.load(Ordering::SeqCst) == 1).await;
    all[1].is(Passage::Gone);
    until(|| !served.targets()[1].healthy).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!answer.is_finished());
    gate.send_replace(true);
    assert_eq!(came(answer).await, (200, "slow".into()));
}

/// What this end lacks says nothing of a target.
struct Lacking;

impl Reach for Lacking {
    fn dial(&self) -> BoxFuture<'static, io::Result<BoxIo>> {
        Box::pin(async { Err(io::Error::other(Lack("too many open files".into()))) })
    }

    fn name(&self) -> &str {
        "lacking"
    }
}

#[tokio::test]
async fn what_is_wanting_here_takes_no_target_out() {
    let mut service = shop([]);
    service.users = vec!["ann".into()];
    let mut health = HealthCheck::new("/");
    (health.interval, health.fall) = (Duration::from_millis(5), 1);
    service.health = Some(health);
    let served = Served::new(config([service])).await;
    let reach: (Arc<dyn Reach>, _) = (Arc::new(Lacking), Protocol::Http1);
    let _announced = served.services.announce("shop", "ann", &ServiceNames::default(), reach, 1).unwrap();
    for _ in 0..5 {
        let said = served.get("/", "").await;
        assert_eq!(said.status(), 503);
        assert!(said.text().contains("no room for a further connection"), "{}", said.text());
        assert!(said.text().contains("The fault is in this server."), "{}", said.text());
    }
    let target = served.target();
    assert_eq!((target.healthy, target.failures, target.failures_in_a_row), (true, 5, 0));
}
