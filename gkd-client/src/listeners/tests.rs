//! Listeners that come, go and change their form while others stay, and what is said of each.

use gkd_core::identity::SecretKey;
use gkd_core::link::Link;
use tokio::net::{TcpListener, TcpStream};

use super::*;

fn named(words: &str) -> Named<Wanted> {
    let (name, form) = words.split_once('=').map_or((None, words), |(name, form)| (Some(name), form));
    let it = Wanted::Here(form.parse().unwrap());
    Named { name: name.map(str::to_owned), it }
}

fn letters(words: &str) -> Vec<Named<char>> {
    let one = |word: &str| {
        let mut of = word.chars().rev();
        let it = of.next().unwrap();
        let name: String = of.rev().collect();
        Named { name: (!name.is_empty()).then_some(name), it }
    };
    words.split_whitespace().map(one).collect()
}

#[test]
fn what_stays_is_found_by_what_it_is_and_by_its_name_where_several_are_alike() {
    for (there, wanted, keep, close, open) in [
        ("a b", "a b", &[(0, 0), (1, 1)][..], &[][..], &[][..]),
        ("a b", "b c", &[(1, 0)], &[0], &[1]),
        ("", "a", &[], &[], &[0]),
        ("a", "", &[], &[0], &[]),
        // Another name is no other listener.
        ("xa", "ya", &[(0, 0)], &[], &[]),
        ("xa ya", "ya", &[(1, 0)], &[0], &[]),
        ("xa ya", "za xa", &[(1, 0), (0, 1)], &[], &[]),
        ("a a", "a a a", &[(0, 0), (1, 1)], &[], &[2]),
        // The name alone does not keep it.
        ("xa", "xb", &[], &[0], &[0]),
    ] {
        let found = diff(&letters(there), &letters(wanted));
        let expected = Diff { keep: keep.into(), close: close.into(), open: open.into() };
        assert_eq!(found, expected, "{there} becomes {wanted}");
    }
}

/// A client whose server is not there: it listens all the same.
fn client() -> Client {
    let (server, user) = (SecretKey::generate(), SecretKey::generate());
    let link = Link::new(server.public(), user, vec!["127.0.0.1:9".parse().unwrap()]);
    Client::builder().link(&link).tunnels(1).start().unwrap()
}

async fn opened(wanted: &[Named<Wanted>]) -> Listeners {
    Listeners::open(wanted, &client(), Offers::new(), ListenConfig::default()).await.unwrap()
}

fn address(listeners: &Listeners, place: usize) -> SocketAddr {
    listeners.status()[place].addresses[0].parse().unwrap()
}

#[tokio::test]
async fn what_stays_keeps_its_socket_and_what_goes_lets_its_programs_end() {
    let (stays, goes) = (named("stays=tcp://0:a.example:1"), named("goes=tcp://0:b.example:1"));
    let mut listeners = opened(&[goes, stays.clone()]).await;
    let (of_goes, of_stays) = (address(&listeners, 0), address(&listeners, 1));
    let mut program = TcpStream::connect(of_goes).await.unwrap();
    while listeners.serving() == 0 {
        tokio::task::yield_now().await;
    }

    let changed = listeners.change_to(&[stays.clone(), named("mixed://0")]).await;
    let line = changed.line().unwrap();
    assert!(line.starts_with("opened SOCKS5 and HTTP proxy on 127.0.0.1:"), "{line}");
    assert!(line.ends_with("; closed goes: tcp://127.0.0.1:0:b.example:1"), "{line}");
    assert_eq!(address(&listeners, 0), of_stays);
    TcpStream::connect(of_stays).await.unwrap();
    assert!(TcpStream::connect(of_goes).await.is_err());
    let states: Vec<_> = listeners.status().iter().map(|one| (one.state.clone(), one.serving)).collect();
    assert_eq!(states[2], ("ending".to_owned(), 1), "{states:?}");
    // Nothing was said to the program that it had.
    let said = tokio::time::timeout(std::time::Duration::from_millis(50), program.readable()).await;
    assert!(said.is_err());

    listeners.abort();
    listeners.ended().await;
    assert!(tokio::io::AsyncReadExt::read_u8(&mut program).await.is_err());
}

#[tokio::test]
async fn another_service_on_the_same_port_takes_its_place() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let mut listeners = opened(&[named(&format!("mixed://{free}"))]).await;
    let changed = listeners.change_to(&[named(&format!("socks5://u:secret@{free}"))]).await;
    let line = changed.line().unwrap();
    let expected = format!("replaced SOCKS5 proxy on 127.0.0.1:{free} (before: mixed://127.0.0.1:{free})");
    assert_eq!(line, expected);
    // A password alone is a change as well, and is not shown.
    let changed = listeners.change_to(&[named(&format!("socks5://u:other@{free}"))]).await;
    assert!(changed.replaced.len() == 1 && !changed.line().unwrap().contains("secret"), "{changed:?}");
    let changed = listeners.change_to(&[named(&format!("web=socks5://u:other@{free}"))]).await;
    assert_eq!((changed.renamed.len(), changed.replaced.len()), (1, 0), "{changed:?}");
    assert_eq!(listeners.status()[0].name.as_deref(), Some("web"));
}

fn service(form: &str) -> Named<Wanted> {
    Named { name: None, it: Wanted::Service(form.parse().unwrap()) }
}

#[tokio::test]
async fn services_come_and_go_beside_listeners() {
    let (stays, shop) = (named("stays=tcp://0:a.example:1"), service("http://shop:127.0.0.1:3000"));
    let mut listeners = opened(&[stays.clone(), shop.clone()]).await;
    let of_stays = address(&listeners, 0);
    let status = &listeners.status()[1];
    let shown = (&*status.end, &*status.listener, &*status.state, status.addresses.len());
    assert_eq!(shown, ("server", "http://shop:127.0.0.1:3000", "asked", 0));

    let (other, gone) = (service("http://shop:127.0.0.1:3001"), service("http://files:/nowhere/at/all"));
    let changed = listeners.change_to(&[stays.clone(), shop.clone(), other.clone(), gone]).await;
    let line = changed.line().unwrap();
    let opened = "opened announces the service shop with http://127.0.0.1:3001";
    assert!(line.starts_with(opened), "{line}");
    let failed = "not opened service files: the folder /nowhere/at/all cannot be read";
    assert!(line.contains(failed) && changed.failed.len() == 1, "{line}");

    let heavier = service("http://shop:127.0.0.1:3001?weight=2");
    let changed = listeners.change_to(&[stays.clone(), shop, heavier]).await;
    let line = changed.line().unwrap();
    let replaced = "replaced announces the service shop with http://127.0.0.1:3001 \
        (before: service http://shop:127.0.0.1:3001)";
    assert_eq!(line, replaced);
    let changed = listeners.change_to(&[stays]).await;
    assert_eq!((changed.closed.len(), listeners.status().len()), (2, 1), "{changed:?}");
    assert_eq!(address(&listeners, 0), of_stays);
}

#[tokio::test]
async fn a_port_in_use_is_told_the_rest_goes_on_and_it_is_tried_again() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut listeners = opened(&[named("mixed://0")]).await;
    let wanted = [named("mixed://0"), named(&format!("late=mixed://{port}")), named("http://0")];
    let changed = listeners.change_to(&wanted).await;
    assert!(changed.failed[0].starts_with("late: ") && changed.failed[0].contains("another program"));
    assert_eq!((changed.failed.len(), changed.opened.len()), (1, 1), "{changed:?}");
    assert_eq!(listeners.status()[1].state, "failed");
    assert!(listeners.change_to(&wanted).await.failed.len() == 1);
    drop(taken);
    let changed = listeners.change_to(&wanted).await;
    assert_eq!((changed.failed.len(), changed.opened.len()), (0, 1), "{changed:?}");
    assert_eq!(listeners.status()[1].state, "listening");
    assert_eq!(listeners.change_to(&wanted).await, Changed::default());
    // At the start it is the end.
    let failure =
        Listeners::open(&wanted, &client(), Offers::new(), ListenConfig::default()).await.err().unwrap();
    assert!(failure.message.contains("another program has the port"), "{failure}");
}
