//! Each handshake cut at every byte, and with every byte changed: an error, never a carrier and never a hang.

use super::*;

/// Which way, and what happens when so many bytes have passed.
#[derive(Clone, Copy, Debug)]
struct Fault {
    from_client: bool,
    after: usize,
    then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    /// Both ends are told that the other one closed.
    Close,
    /// Nothing passes any more, either way.
    Silence,
    /// The next byte is another.
    Flip,
}

/// Passes bytes between the ends, with a fault; tells how many passed, from the client and from the server.
async fn relay(mut client: DuplexStream, mut server: DuplexStream, fault: Option<Fault>) -> (usize, usize) {
    let (mut clients, mut servers) = (0, 0);
    let (mut a, mut b) = ([0; 4096], [0; 4096]);
    loop {
        let (from_client, read) = tokio::select! {
            read = client.read(&mut a) => (true, read),
            read = server.read(&mut b) => (false, read),
        };
        let (bytes, before, to) = match from_client {
            true => (&mut a, &mut clients, &mut server),
            false => (&mut b, &mut servers, &mut client),
        };
        let bytes = &mut bytes[..read.unwrap_or(0)];
        if bytes.is_empty() {
            return (clients, servers);
        }
        let here = *before..*before + bytes.len();
        *before = here.end;
        match fault.filter(|fault| fault.from_client == from_client && here.contains(&fault.after)) {
            None => drop(to.write_all(bytes).await),
            Some(Fault { after, then: Then::Flip, .. }) => {
                bytes[after - here.start] ^= 1;
                let _ = to.write_all(bytes).await;
            }
            Some(Fault { after, then, .. }) => {
                let _ = to.write_all(&bytes[..after - here.start]).await;
                if then == Then::Silence {
                    std::future::pending::<()>().await;
                }
                return (clients, servers);
            }
        }
    }
}

type Ends = (Result<Carrier, CarrierError>, Result<Incoming, CarrierError>);

async fn faulty_handshake(kind: CarrierKind, fault: Option<Fault>) -> (Ends, Option<(usize, usize)>) {
    let ((near, a), (far, b)) = (duplex(8192), duplex(8192));
    let relay = tokio::spawn(relay(a, b, fault));
    let ends = handshake(kind, Wire::brought(near), Wire::brought(far)).await;
    if fault.is_some() {
        relay.abort();
        return (ends, None);
    }
    // The ends are still there, and have nothing more to say.
    let (near, far) = ends;
    drop((near, far));
    let passed = relay.await.unwrap();
    ((Err(CarrierError::Closed), Err(CarrierError::Closed)), Some(passed))
}

/// Every fault of this sort, `step` bytes apart, and what both ends came to.
async fn faults(kind: CarrierKind, step: usize, then: Then) -> Vec<(Fault, Ends)> {
    let (from_client, from_server) = faulty_handshake(kind, None).await.1.unwrap();
    assert!(from_client > 100 && from_server > 60, "{from_client} and {from_server} bytes");
    let mut results = Vec::new();
    for (from_client, total) in [(true, from_client), (false, from_server)] {
        for after in (0..total).step_by(step) {
            let fault = Fault { from_client, after, then };
            results.push((fault, faulty_handshake(kind, Some(fault)).await.0));
        }
    }
    results
}

async fn every_cut_is_an_error(kind: CarrierKind, step: usize, then: Then) {
    for (fault, (near, far)) in faults(kind, step, then).await {
        assert!(far.is_err(), "{kind}: {fault:?}: the server came to {far:?}");
        // A client is through when it has said all; that it was not heard, it learns by its Hello.
        assert!(near.is_err() || fault.from_client, "{kind}: {fault:?}: the client came to {near:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_unencrypted_carrier_cut_at_every_byte() {
    every_cut_is_an_error(CarrierKind::Plain, 1, Then::Close).await;
    every_cut_is_an_error(CarrierKind::Plain, 1, Then::Silence).await;
}

#[tokio::test(start_paused = true)]
async fn tls_closed_at_every_byte() {
    every_cut_is_an_error(CarrierKind::Tls, 1, Then::Close).await;
}

#[tokio::test(start_paused = true)]
async fn tls_silent_at_every_seventh_byte() {
    // Where a handshake stops is the same as above; this adds that nobody waits for ever.
    every_cut_is_an_error(CarrierKind::Tls, 7, Then::Silence).await;
}

#[tokio::test(start_paused = true)]
async fn websocket_closed_and_silent_at_every_seventh_byte() {
    every_cut_is_an_error(CarrierKind::Ws, 7, Then::Close).await;
    every_cut_is_an_error(CarrierKind::Ws, 7, Then::Silence).await;
}

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_never_makes_another_of_a_tls_client() {
    flips(CarrierKind::Tls).await;
}

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_never_makes_another_of_a_client_over_websocket() {
    flips(CarrierKind::Ws).await;
}

async fn flips(kind: CarrierKind) {
    // Every byte would do, and takes seven times as long.
    for (fault, (near, far)) in faults(kind, 7, Then::Flip).await {
        // What may change is the version in the header of a record that is not encrypted, and, in HTTP, words that say
        // the same.
        if let Ok(Incoming::Gkd(far)) = far {
            assert_eq!(far.peer(), client_key().public(), "{fault:?}");
            assert_eq!(near.unwrap().peer(), server_key().public(), "{fault:?}");
        } else {
            assert!(near.is_err() || fault.from_client, "{fault:?}: the client came to {near:?}");
        }
    }
}

/// Origin: the verification of smux shifts 16 bits by 16, which is always 0.
#[tokio::test(start_paused = true)]
async fn a_flipped_bit_never_goes_unnoticed_on_the_unencrypted_carrier() {
    for (fault, (_, far)) in faults(CarrierKind::Plain, 1, Then::Flip).await {
        assert!(!matches!(far, Ok(Incoming::Gkd(_))), "{fault:?}: the server came to {far:?}");
    }
}
