//! What a panic inside the session does, that a waker is never lost, and that none is woken for nothing.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use gkd_proto::budget::Reservation;
use gkd_proto::error::OpenError;
use gkd_proto::handshake::{Hello, VERSION, Welcome};
use gkd_proto::id::{BootId, ConnectionId, PeerId, SessionId, Side, TunnelId};
use gkd_proto::packet::{Ack, CloseCode, Connect, Connected, Drain, Packet, Ping, Reset, ResetCode};
use gkd_proto::session::MAX_UNSEEN;
use gkd_proto::{SessionConfig, Transmit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::state::BACKLOG;
use super::{TunnelHandle, TunnelManager};
use crate::{Client, Server, SessionEnd, SessionHandle};

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("nothing happened within 30 s")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_under_the_lock_ends_the_session_and_nothing_else() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let client = Client::connect(server.local_addr().unwrap(), 2).await.unwrap();
    let here = client.get_connection().await.unwrap();
    let (there, _) = within(server.accept()).await.unwrap();
    let broken = client.session();
    let reading = tokio::spawn(async move { (&here).read(&mut [0; 8]).await });
    tokio::task::yield_now().await;

    let panicked = catch_unwind(AssertUnwindSafe(|| {
        broken.manager().with(|_, _| panic!("this panic belongs to the test"));
    }));
    assert!(panicked.is_err());
    // Nobody calls into the session: its driver finds out by itself.
    let error = within(reading).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(broken.ended(), Some(SessionEnd::Fault));

    // The client goes on with a new session.
    let here = within(client.get_connection()).await.unwrap();
    (&here).write_all(b"hello").await.unwrap();
    let (anew, _) = within(server.accept()).await.unwrap();
    assert_eq!(within(anew.read_bytes(8)).await.unwrap().unwrap(), "hello");
    drop(there);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ping_pong_over_many_connections_loses_no_waker() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let client = Client::connect(server.local_addr().unwrap(), 3).await.unwrap();
    let serving = tokio::spawn(async move {
        while let Some((connection, _)) = server.accept().await {
            tokio::spawn(async move {
                while let Ok(Some(bytes)) = connection.read_bytes(7).await {
                    if connection.write_bytes(bytes).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..16_u8 {
        let client = client.clone();
        tasks.spawn(async move {
            let connection = client.get_connection().await.unwrap();
            for round in 0..300 {
                let message = [task, round as u8, (round >> 8) as u8];
                (&connection).write_all(&message).await.unwrap();
                let mut answer = [0; 3];
                (&connection).read_exact(&mut answer).await.unwrap();
                assert_eq!(answer, message);
            }
        });
    }
    within(async {
        while let Some(done) = tasks.join_next().await {
            done.unwrap()
        }
    })
    .await;
    serving.abort();
}

/// A session whose other end is the test.
fn manager(side: Side) -> Arc<TunnelManager> {
    let (session, peer, runtime) = (SessionId([1; 16]), PeerId([1; 32]), tokio::runtime::Handle::current());
    TunnelManager::spawn(Arc::default(), side, session, peer, Reservation::default(), Arc::default(), runtime)
}

/// A client's tunnel comes to a server's session.
fn add_tunnel(manager: &Arc<TunnelManager>, index: u64) -> Arc<TunnelHandle> {
    let (session, tunnel, exists) = (manager.id, TunnelId(index), index > 0);
    let parameters = SessionConfig::default().parameters();
    let hello = Hello { version: VERSION, session, tunnel, exists, parameters, dead: Vec::new() };
    manager.add_accepted(&hello, exists, None).unwrap().1
}

/// The other end's packets come on this tunnel.
fn hear(manager: &Arc<TunnelManager>, tunnel: TunnelId, packets: impl IntoIterator<Item = Packet>) {
    let mut bytes = BytesMut::new();
    packets.into_iter().for_each(|packet| packet.encode(&mut bytes));
    manager.with(|state, now| state.receive(now, tunnel, &mut bytes)).unwrap();
}

/// All that the session wants to send on this tunnel.
fn told(manager: &Arc<TunnelManager>, tunnel: TunnelId) -> Vec<Packet> {
    let mut out = Transmit::new();
    while manager.with(|state, now| state.session.poll_transmit(now, tunnel, 64 * 1024, &mut out)) {}
    let mut bytes = BytesMut::from(&out.copy_to_bytes(out.remaining())[..]);
    std::iter::from_fn(|| Packet::decode(&mut bytes).unwrap()).collect()
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Polls one that waits to open.
fn ask<T>(
    open: &mut Option<Pin<Box<impl Future<Output = Result<T, OpenError>>>>>,
    waker: &Waker,
) -> Poll<Result<(), OpenError>> {
    let open = open.as_mut().expect("it was not dropped");
    open.as_mut().poll(&mut Context::from_waker(waker)).map(|opened| opened.map(drop))
}

/// Each read of a tunnel would cost as much as there are tasks that wait, while the server does not acknowledge.
#[tokio::test]
async fn as_many_openers_are_called_as_can_open() {
    let near = manager(Side::Client);
    let (hello, _) = near.add_dialled().unwrap();
    let tunnel = hello.tunnel;
    let parameters = SessionConfig::default().parameters();
    let welcome =
        Welcome { version: VERSION, boot: BootId([1; 16]), known: false, parameters, dead: Vec::new() };
    near.welcomed(tunnel, &welcome, None).unwrap();
    let handle = SessionHandle::new(near.clone());
    let mut opened = Vec::new();
    for _ in 0..MAX_UNSEEN {
        opened.push(handle.open("").await.unwrap());
    }

    let calls: Vec<_> = (0..10).map(|_| Arc::new(Woken::default())).collect();
    let called = || calls.iter().map(|call| call.0.load(Ordering::Relaxed)).collect::<Vec<_>>();
    let wakers: Vec<_> = calls.iter().map(|call| Waker::from(call.clone())).collect();
    let mut waiting: Vec<_> = (0..10).map(|_| Some(Box::pin(handle.open("")))).collect();
    assert!((0..10).all(|task| ask(&mut waiting[task], &wakers[task]).is_pending()));
    hear(&near, tunnel, [Packet::Ping(Ping { token: 1 })]);
    assert_eq!(called(), [0; 10], "none can open");

    assert!(matches!(told(&near, tunnel)[..2], [Packet::Pong(_), Packet::Connect(_)]));
    hear(&near, tunnel, [Packet::Ack(Ack { tunnel, count: 2, delay: 0 })]);
    hear(&near, tunnel, [Packet::Ping(Ping { token: 2 })]);
    assert_eq!(called(), [1, 1, 0, 0, 0, 0, 0, 0, 0, 0], "two can open");
    assert_eq!(ask(&mut waiting[1], &wakers[1]), Poll::Ready(Ok(())));
    drop(waiting[0].take());
    assert_eq!(called()[2..4], [1, 0], "one that gives up leaves its turn to the next");

    hear(&near, tunnel, [Packet::Drain(Drain { reason: 1 })]);
    assert_eq!(called()[2..], [1; 8], "all are told that they wait in vain");
    assert_eq!(ask(&mut waiting[9], &wakers[9]), Poll::Ready(Err(OpenError::Draining)));
    drop(opened);
}

/// What is left of them would have to be looked through for room when another comes.
#[tokio::test]
async fn connections_that_are_reset_while_they_wait_leave_their_place_at_once() {
    let near = manager(Side::Server);
    let tunnel = add_tunnel(&near, 0).id;
    let id = |index| ConnectionId::from_index(Side::Client, index);
    let connect = |index| Packet::Connect(Connect { connection: id(index), destination: Bytes::new() });
    let reset =
        |index| Packet::Reset(Reset { connection: id(index), code: ResetCode::APPLICATION, total: 0 });
    let most = BACKLOG as u64;
    let refused = |near| {
        let busy = |packet: &Packet| matches!(packet, Packet::Connected(Connected { result: Err(_), .. }));
        told(near, tunnel).iter().filter(|packet| busy(packet)).count()
    };

    hear(&near, tunnel, (0..most).map(connect));
    hear(&near, tunnel, (0..most - 1).map(reset));
    assert_eq!(near.with(|state, _| state.backlog.len()), 1);
    hear(&near, tunnel, (most..2 * most - 1).map(connect));
    assert_eq!(refused(&near), 0, "there is room for all");
    hear(&near, tunnel, [connect(2 * most - 1)]);
    assert_eq!(refused(&near), 1, "that is one above the most");
    hear(&near, tunnel, [reset(most), connect(2 * most)]);
    assert_eq!(refused(&near), 0);
    let mut accepted = Vec::new();
    while let Some((next, _)) = near.take_accepted() {
        accepted.push(next.id);
    }
    let expected = (most - 1..2 * most - 1).filter(|index| *index != most).chain([2 * most]).map(id);
    assert_eq!(accepted, expected.collect::<Vec<_>>());
}

/// A session is not asked for its time-out at every call. What brings it nearer between two looks is seen all the same.
#[tokio::test]
async fn what_comes_right_behind_a_look_is_acknowledged_in_time() {
    let near = manager(Side::Server);
    let handle = add_tunnel(&near, 0);
    let tunnel = handle.id;
    told(&near, tunnel);
    // The driver rests.
    tokio::task::yield_now().await;
    near.keep_time(|state, now| state.look(now));
    let id = ConnectionId::from_index(Side::Client, 0);
    hear(&near, tunnel, [Packet::Connect(Connect { connection: id, destination: "a".into() })]);
    let woken = Arc::new(Woken::default());
    handle.ready.register(&Waker::from(woken.clone()));
    // Long before the next Ping, by which it would be told in any case.
    let waits = tokio::time::timeout(Duration::from_secs(5), async {
        while woken.0.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    waits.await.expect("the driver looks");
    let packets = told(&near, tunnel);
    assert!(packets.iter().any(|packet| matches!(packet, Packet::Ack(_))), "{packets:?}");
}

/// Whoever waits for the other end goes elsewhere when nothing leads there.
#[tokio::test]
async fn it_is_told_whether_a_tunnel_is_up() {
    let near = manager(Side::Server);
    let handle = SessionHandle::new(near.clone());
    within(handle.wait_down()).await;
    let mut guards = Vec::new();
    for index in 0..2 {
        let waiting = tokio::spawn({
            let handle = handle.clone();
            async move { handle.wait_up().await }
        });
        let tunnel = add_tunnel(&near, index);
        guards.push(near.guard(tunnel));
        assert!(within(waiting).await.unwrap());
    }
    let mut down = Box::pin(handle.wait_down());
    let mut is_down = || down.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
    drop(guards.pop());
    assert!(!is_down(), "one is left");
    drop(guards.pop());
    assert!(is_down());

    let waiting = tokio::spawn({
        let handle = handle.clone();
        async move { handle.wait_up().await }
    });
    handle.close(CloseCode::DONE, "");
    assert!(!within(waiting).await.unwrap(), "none will be");
    within(handle.wait_down()).await;
}
