//! Which services there are: reload, and what clients announce.

use super::*;

/// A target of a client: a web server at some port, which the server knows nothing of.
struct Far {
    name: String,
    address: SocketAddr,
}

impl Reach for Far {
    fn dial(&self) -> BoxFuture<'static, io::Result<crate::service::BoxIo>> {
        let address = self.address;
        Box::pin(async move { Ok(Box::new(TcpStream::connect(address).await?) as crate::service::BoxIo) })
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl Web {
    fn far(&self, name: &str) -> (Arc<dyn Reach>, Protocol) {
        (Arc::new(Far { name: name.into(), address: self.address }), Protocol::Http1)
    }
}

fn names(names: &[&str]) -> ServiceNames {
    ServiceNames::new(names.iter().map(|name| name.parse().unwrap()))
}

/// A server whose domain is apps.example, with these services.
fn domain(services: impl IntoIterator<Item = ServiceConfig>) -> HttpConfig {
    let mut config = config(services);
    config.domain = Some("apps.example".into());
    config
}

impl Served {
    async fn at(&self, host: &str) -> Said {
        self.visit(&format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await
    }
}

#[tokio::test]
async fn an_announced_service_is_there_as_long_as_its_clients() {
    let (one, two) = (Web::named("one").await, Web::named("two").await);
    let served = Served::new(domain([])).await;
    assert_eq!(served.at("notes.apps.example").await.status(), 404);
    let granted = names(&["notes"]);
    let announce = |web: &Web, user| served.services.announce("notes", user, &granted, web.far(user), 1);
    let first = announce(&one, "anna").unwrap();
    assert_eq!(served.at("notes.apps.example").await.text(), "one");
    // A second session of the same user shares the load.
    let second = announce(&two, "anna").unwrap();
    let mut texts = std::collections::BTreeSet::new();
    for _ in 0..50 {
        texts.insert(served.at("notes.apps.example").await.text().to_owned());
    }
    assert_eq!(texts.len(), 2);
    // Another user does not.
    assert_eq!(announce(&two, "ben").err(), Some(AnnounceError::Taken("notes".into())));
    drop(first);
    for _ in 0..10 {
        assert_eq!(served.at("notes.apps.example").await.text(), "two");
    }
    drop(second);
    assert_eq!(served.at("notes.apps.example").await.status(), 404);
    assert!(served.services.status().is_empty());
    // Now it is free.
    let _third = announce(&one, "ben").unwrap();
    assert_eq!(served.at("notes.apps.example").await.text(), "one");
}

#[tokio::test]
async fn who_may_announce_a_described_service_is_said_by_it() {
    let web = Web::named("far").await;
    let mut service = shop([]);
    service.users = vec!["anna".into(), "ben".into()];
    let mut other = shop([web.http()]);
    (other.name, other.hosts) = ("other".into(), vec!["notes.apps.example".parse().unwrap()]);
    let served = Served::new(domain([service, other])).await;
    let all = names(&["*"]);
    let announce = |service: &str, user| served.services.announce(service, user, &all, web.far(user), 1);
    let (_one, _two) = (announce("shop", "anna").unwrap(), announce("shop", "ben").unwrap());
    assert!(matches!(announce("shop", "eve"), Err(AnnounceError::NotAnnounced(_))));
    // A star does not reach what the server describes.
    assert!(matches!(announce("other", "anna"), Err(AnnounceError::NotAnnounced(_))));
    assert_eq!(announce("notes", "anna").err(), Some(AnnounceError::Clash("notes".into())));
    let none = names(&[]);
    assert!(served.services.announce("mine", "anna", &none, web.far("x"), 1).is_err());
    assert_eq!(served.at("any.example").await.text(), "far");
    let targets = &served.services.status().into_iter().find(|it| it.service == "shop").unwrap().targets;
    let users: Vec<_> = targets.iter().map(|it| it.user.as_deref().unwrap()).collect();
    assert_eq!(users, ["anna", "ben"]);
}

#[tokio::test]
async fn a_reload_keeps_what_stays_and_lets_what_goes_end() {
    let (stays, goes, comes) =
        (Web::named("stays").await, Web::named("goes").await, Web::named("comes").await);
    let slow = Web::raw(|mut socket| async move {
        read_head(&mut socket).await;
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n").await.ok();
        // Until the test goes on.
        socket.write_all(&vec![b'x'; 50_000]).await.ok();
        tokio::time::sleep(Duration::from_millis(300)).await;
        socket.write_all(&vec![b'x'; 50_000]).await.ok();
    })
    .await;
    let mut service = shop([stays.http(), goes.http()]);
    service.balance = crate::service::config::Method::RoundRobin;
    let mut draining = shop([slow.http()]);
    (draining.name, draining.hosts) = ("slow".into(), vec!["slow.example".parse().unwrap()]);
    let mut settings = config([service, draining]);
    let served = Served::new(settings.clone()).await;
    for _ in 0..4 {
        served.get("/", "").await;
    }
    assert_eq!((stays.connections(), goes.connections()), (1, 1));
    let mut visitor = served.connect().await;
    visitor.write_all(b"GET / HTTP/1.1\r\nHost: slow.example\r\nConnection: close\r\n\r\n").await.unwrap();
    until(|| slow.connections() == 1).await;
    settings.services.truncate(1);
    settings.services[0].hosts = vec!["shop.example".parse().unwrap()];
    settings.services[0].targets = vec![stays.http(), comes.http()];
    settings.services[0].targets[0].weight = 3;
    served.services.reload(&settings);
    let mut texts = Vec::new();
    for _ in 0..8 {
        texts.push(served.get("/", "").await.text().to_owned());
    }
    assert_eq!(texts.iter().filter(|text| *text == "stays").count(), 6, "{texts:?}");
    assert_eq!((stays.connections(), goes.connections(), comes.connections()), (1, 1, 1));
    assert_eq!(served.services.status()[0].targets[0].requests, 2 + 6);
    assert_eq!(served.at("slow.example").await.status(), 404);
    // What was running when its service went runs on.
    assert_eq!(Said::read(&mut visitor).await.body.len(), 100_000);
}

#[tokio::test]
async fn a_reload_judges_what_is_announced_anew() {
    let web = Web::named("far").await;
    let served = Served::new(domain([])).await;
    let granted = names(&["notes"]);
    let _announced = served.services.announce("notes", "anna", &granted, web.far("anna"), 1).unwrap();
    assert_eq!(served.at("notes.apps.example").await.text(), "far");
    // Described now, for others.
    let mut service = shop([]);
    (service.name, service.hosts) = ("notes".into(), vec!["notes.example".parse().unwrap()]);
    service.users = vec!["ben".into()];
    served.services.reload(&domain([service.clone()]));
    assert_eq!(served.at("notes.example").await.status(), 503);
    assert_eq!(served.at("notes.apps.example").await.status(), 404);
    // For both, and it is there again without being announced again.
    service.users.push("anna".into());
    served.services.reload(&domain([service]));
    assert_eq!(served.at("notes.example").await.text(), "far");
    // Not described any more, and still announced.
    served.services.reload(&domain([]));
    assert_eq!(served.at("notes.apps.example").await.text(), "far");
    assert_eq!(served.at("notes.example").await.status(), 404);
    // And no domain.
    served.services.reload(&config([]));
    assert_eq!(served.at("notes.apps.example").await.status(), 404);
    served.services.reload(&domain([]));
    assert_eq!(served.at("notes.apps.example").await.text(), "far");
}

#[tokio::test]
async fn the_status_is_told_to_programs() {
    let web = Web::named("shop").await;
    let served = Served::shop([web.http()]).await;
    served.get("/", "").await;
    let status = serde_json::to_value(served.services.status()).unwrap();
    assert_eq!(
        status,
        serde_json::json!([{
            "service": "shop", "hosts": ["*"], "paths": ["/"],
            "targets": [{
                "target": format!("http://{}", web.address), "healthy": true, "weight": 1, "share": 1.0,
                "outstanding": 0, "requests": 1, "failures": 0, "failures_in_a_row": 0,
            }],
        }])
    );
}
