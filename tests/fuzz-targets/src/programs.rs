//! A program at a real listener, and the far ends of what it has opened: [`meet`]. Sockets are those of the
//! loopback interface, the session is in memory. Nothing here waits for a time-out: the program ends its
//! direction behind its last byte, and so everything must end.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::time::Duration;

use bytes::Bytes;
use gkd_proto::packet::{DialError, ResetCode};
use gkd_proxy::memory::{self, Memory};
use gkd_proxy::{ListenConfig, Listener, VirtualConnection, listen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::input::Input;

/// Bounds a hang. What does not hang takes a thousandth of it.
const HANGS: Duration = Duration::from_secs(30);

/// The most that one read takes of what a far end received.
const READ: usize = 64 * 1024;

/// What every far end does.
#[derive(Clone)]
pub(crate) struct Far {
    pub(crate) dial: Result<(), DialError>,
    /// It answers when something has arrived, or the end, and not at once.
    pub(crate) patient: bool,
    /// It breaks off behind its answer instead of ending it.
    pub(crate) breaks: bool,
    pub(crate) answer: Bytes,
}

impl Far {
    /// What two bytes say, but for its answer.
    pub(crate) fn choose(input: &mut Input<'_>) -> Self {
        let (dial, manner) = (input.byte(), input.byte());
        let dial = match dial {
            0..=0xbf => Ok(()),
            0xc0..=0xcf => Err(DialError::Refused),
            0xd0..=0xdf => Err(DialError::NotResolved),
            0xe0..=0xef => Err(DialError::Denied),
            _ => Err(DialError::TimedOut),
        };
        Self { dial, patient: manner & 1 != 0, breaks: manner & 2 != 0, answer: Bytes::new() }
    }
}

/// What a far end saw.
pub(crate) struct Reached {
    pub(crate) destination: Bytes,
    pub(crate) received: Vec<u8>,
    /// All that was sent to it arrived, up to the end.
    pub(crate) whole: bool,
}

/// What the program saw, and what the far ends did.
pub(crate) struct Outcome {
    pub(crate) answered: Vec<u8>,
    /// The answers ended in order, and not with a reset.
    pub(crate) whole: bool,
    pub(crate) reached: Vec<Reached>,
}

/// Has a program connect to a listener of this form and send so much, byte for byte or at once.
pub(crate) fn meet(form: &str, far: &Far, sent: &[u8], slowly: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let met = tokio::time::timeout(HANGS, meet_here(form, far, sent, slowly));
        met.await.expect("a program that said all it has to say is served for ever")
    })
}

async fn meet_here(form: &str, far: &Far, sent: &[u8], slowly: bool) -> Outcome {
    let listener: Listener = form.parse().expect("the target's own form");
    let (opener, mut opened) = memory::opener();
    let listening = listen(&listener, opener, &ListenConfig::default()).await.expect("a free port");
    let address = listening.local_addrs()[0];
    let program = async {
        let mut socket = TcpStream::connect(address).await.expect("it listens");
        let told = program(&mut socket, sent, slowly).await;
        listening.stop();
        listening.ended().await;
        // Now everything was read. With a reset no port is kept back: there are thousands of programs a minute.
        socket.set_zero_linger().expect("a socket");
        drop(listening);
        told
    };
    let ends = async {
        let mut ends = JoinSet::new();
        while let Some(memory) = opened.recv().await {
            ends.spawn(far_end(memory, far.clone()));
        }
        // In the order of the dials where there were several, for nothing here depends on it.
        ends.join_all().await
    };
    let ((answered, whole), reached) = tokio::join!(program, ends);
    Outcome { answered, whole, reached }
}

async fn program(socket: &mut TcpStream, sent: &[u8], slowly: bool) -> (Vec<u8>, bool) {
    let (mut from, mut to) = socket.split();
    let write = async {
        let pieces = sent.chunks(if slowly { 1 } else { sent.len().max(1) });
        for piece in pieces {
            // It may have been closed meanwhile.
            if to.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        let _ = to.shutdown().await;
    };
    let mut answered = Vec::new();
    let (read, ()) = tokio::join!(from.read_to_end(&mut answered), write);
    if let Err(error) = &read {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    (answered, read.is_ok())
}

async fn far_end(memory: Memory, far: Far) -> Reached {
    memory.confirm(far.dial);
    let arrived = Notify::new();
    let mut received = Vec::new();
    let read = async {
        loop {
            let mut chunks = Vec::new();
            let read = poll_fn(|cx| memory.poll_read_batch(cx, READ, &mut chunks)).await;
            received.extend(chunks.concat());
            arrived.notify_one();
            match read {
                Ok(0) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    };
    let answer = async {
        if far.patient {
            arrived.notified().await;
        }
        let mut answer = far.answer.clone();
        while !answer.is_empty() {
            poll_fn(|cx| memory.poll_write_bytes(cx, &mut answer)).await?;
        }
        if far.breaks {
            memory.reset(ResetCode::STREAM);
        }
        poll_fn(|cx| memory.poll_shutdown(cx)).await
    };
    // That of the answer shows at the other side.
    let (whole, _) = tokio::join!(read, answer);
    Reached { destination: memory.destination().clone(), received, whole }
}
