//! The records of TLS behind an honest handshake, with somebody in between who changes, cuts, repeats, drops and adds
//! to what passes. Who reads has every byte that came before the first change and never one that was not sent; then
//! an error, unless nothing was changed and the stream was closed as it should be.

use std::future::ready;
use std::time::Duration;

use gkd_core::carrier::{Carrier, Wire, tls};
use gkd_core::identity::SecretKey;
use gkd_proto::id::SessionId;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy_bidirectional, duplex};

use crate::input::Input;

/// Holds whatever is written at a time.
const PIPE: usize = 64 * 1024;

/// Writes of one run.
const WRITES: usize = 16;

/// In virtual time, which jumps when nothing moves.
const HANGS: Duration = Duration::from_secs(60);

/// Reads `data` as what a client writes, and what is done to the records on their way.
pub fn records(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without IO");
    let met = tokio::task::unconstrained(between(Input::new(data)));
    runtime.block_on(async { tokio::time::timeout(HANGS, met).await.expect("a read without an end") });
}

async fn between(mut input: Input<'_>) {
    let (mut client, mut from, mut to, mut server) = ends().await;
    // How much was sent before the first change.
    let (mut sent, mut untouched) = (Vec::new(), None);
    for turn in 1..=WRITES {
        let whole = sent.len();
        let last = input.is_empty() || turn == WRITES;
        if last {
            client.shutdown().await.expect("an open pipe");
        } else {
            let len = input.pick(&[1, 2, 300, 5_000, 16_384, 16_385, 30_000]);
            sent.extend((whole..whole + len).map(|at| (at ^ (at >> 8)) as u8));
            client.write_all(&sent[whole..]).await.expect("an open pipe");
            client.flush().await.expect("an open pipe");
        }
        let records = passing(&mut from).await;
        let passed = change(records.clone(), &mut input);
        // What comes behind the end of the stream counts for nothing.
        if passed != records && !(last && passed.starts_with(&records)) {
            untouched = untouched.or(Some(whole));
        }
        to.write_all(&passed).await.expect("an open pipe");
        if last {
            break;
        }
    }
    to.shutdown().await.expect("an open pipe");
    let (read, end) = read_out(&mut server, &mut input).await;
    assert!(sent.starts_with(&read), "what was read was not sent");
    match untouched {
        Some(whole) => {
            assert!(end.is_err() && read.len() >= whole, "{end:?} behind {} of {whole}", read.len())
        }
        None => assert!(end.is_ok() && read == sent, "{end:?} behind {} of {}", read.len(), sent.len()),
    }
}

/// A client, the two ends of the way between, and a server.
async fn ends() -> (Carrier, DuplexStream, DuplexStream, Carrier) {
    let (client_key, server_key) = (SecretKey::from_seed([2; 32]), SecretKey::from_seed([1; 32]));
    let ((near, mut from), (mut to, far)) = (duplex(PIPE), duplex(16 * PIPE));
    let acceptor = tls::Acceptor::new(&server_key).expect("a key");
    let client = tls::connect(Wire::brought(near), &client_key, server_key.public(), SessionId([3; 16]));
    let (client, server) = tokio::select! {
        ends = async { tokio::join!(client, acceptor.accept(Wire::brought(far))) } => ends,
        ended = copy_bidirectional(&mut from, &mut to) => panic!("{ended:?}"),
    };
    (client.expect("an honest server"), from, to, server.expect("an honest client"))
}

/// All that waits in the pipe.
async fn passing(from: &mut DuplexStream) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        tokio::select! {
            biased;
            Ok(1..) = from.read_buf(&mut all) => {}
            () = ready(()) => return all,
        }
    }
}

fn change(mut records: Vec<u8>, input: &mut Input<'_>) -> Vec<u8> {
    let place = usize::from(input.byte()) << 8 | usize::from(input.byte());
    let place = place % records.len().max(1);
    match input.below(8) {
        0 => records.get_mut(place).map_or((), |byte| *byte ^= 1 << input.below(8)),
        1 => records.truncate(place),
        2 => records.clear(),
        3 => records.extend_from_within(..),
        4 => records.splice(place..place, input.take(20).iter().copied()).for_each(drop),
        _ => {}
    }
    records
}

async fn read_out(server: &mut Carrier, input: &mut Input<'_>) -> (Vec<u8>, std::io::Result<()>) {
    let mut all = Vec::new();
    let mut part = vec![0; input.pick(&[1, 700, 4_096, 16_384, 100_000, 262_144])];
    loop {
        match server.read(&mut part).await {
            Ok(0) => return (all, Ok(())),
            Ok(count) => all.extend_from_slice(&part[..count]),
            Err(error) => return (all, Err(error)),
        }
    }
}
