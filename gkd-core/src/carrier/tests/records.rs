//! TLS behind its handshake: sizes, buffers, cancellation, keys, beside the TLS library's own records.

use std::sync::Arc;

use rustls::ContentType;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::carrier::tls::AnyServer;

/// What a record adds to its content: header, type, tag.
const OVERHEAD: usize = 22;

/// The most content of one.
const FULL: usize = 16 * 1024;

/// Both ends over a pipe that holds `capacity` bytes each way.
pub(super) async fn ends(capacity: usize) -> (Carrier, Carrier) {
    let (near, far) = duplex(capacity);
    let (near, far) = handshake(CarrierKind::Tls, Wire::brought(near), Wire::brought(far)).await;
    (near.unwrap(), gkd(far))
}

pub(super) fn stream(carrier: &mut Carrier) -> &mut tls::Stream {
    match &mut carrier.layer {
        Layer::Tls(stream) => stream,
        Layer::Bare(_) => panic!("not TLS"),
    }
}

/// A client, and the server's end of its pipe, bare, so that the records can be seen.
async fn client_and_pipe(capacity: usize) -> (Carrier, DuplexStream) {
    let ((near, mut a), (mut b, far)) = (duplex(capacity), duplex(capacity));
    let relay = async { tokio::io::copy_bidirectional(&mut a, &mut b).await };
    let ends = handshake(CarrierKind::Tls, Wire::brought(near), Wire::brought(far));
    let ends = tokio::select! {
        ends = ends => ends,
        ended = relay => panic!("{ended:?}"),
    };
    (ends.0.unwrap(), a)
}

fn content(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}

/// Polls once; what is ready.
fn once<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Option<T> {
    match poll(&mut Context::from_waker(std::task::Waker::noop())) {
        Poll::Ready(ready) => Some(ready),
        Poll::Pending => None,
    }
}

fn write(carrier: &mut Carrier, slices: &[&[u8]]) -> Option<usize> {
    let slices: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
    once(|cx| Pin::new(carrier).poll_write_vectored(cx, &slices)).map(Result::unwrap)
}

fn read(carrier: &mut Carrier, room: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; room];
    let mut buf = ReadBuf::new(&mut bytes);
    once(|cx| Pin::new(carrier).poll_read(cx, &mut buf))?.unwrap();
    Some(buf.filled().to_vec())
}

#[tokio::test]
async fn what_is_written_is_in_records_at_once_and_in_no_larger_ones_than_it_fills() {
    let (mut near, mut pipe) = client_and_pipe(1 << 20).await;
    for (written, records) in [
        (1, vec![1]),
        (100, vec![100]),
        (FULL, vec![FULL]),
        (FULL + 1, vec![FULL, 1]),
        (40_000, vec![FULL, FULL, 40_000 - 2 * FULL]),
    ] {
        let sent = content(written);
        let (a, b) = sent.split_at(written / 3);
        assert_eq!(write(&mut near, &[&[], a, &[], b]), Some(written));
        for len in records {
            let mut record = vec![0; len + OVERHEAD];
            pipe.read_exact(&mut record).await.unwrap();
            assert_eq!(&record[..3], &[23, 3, 3]);
            assert_eq!(usize::from(u16::from_be_bytes([record[3], record[4]])), record.len() - 5);
        }
        let mut more = [0];
        assert!(once(|cx| Pin::new(&mut pipe).poll_read(cx, &mut ReadBuf::new(&mut more))).is_none());
    }
    assert_eq!(write(&mut near, &[&[], &[]]), Some(0));
}

#[tokio::test]
async fn a_batch_is_one_write_and_a_large_read_takes_all_that_is_there() {
    let (mut near, mut far) = ends(1 << 20).await;
    let sent = content(256 * 1024 + 500);
    let slices: Vec<&[u8]> = sent.chunks(9_000).collect();
    assert_eq!(write(&mut near, &slices), Some(sent.len()));
    let first = read(&mut far, 256 * 1024).unwrap();
    assert_eq!(first.len(), 256 * 1024);
    let rest = read(&mut far, 256 * 1024).unwrap();
    assert!([first, rest].concat() == sent);
}

#[tokio::test]
async fn reads_of_any_size_take_every_byte_and_an_idle_stream_holds_no_buffer() {
    let (mut near, mut far) = ends(1 << 20).await;
    let sent = content(200_000);
    for room in [1000, 4096, FULL, FULL + 1, 3 * FULL] {
        assert_eq!(write(&mut near, &[&sent]), Some(sent.len()));
        let mut received = Vec::new();
        while let Some(part) = read(&mut far, room) {
            // Nothing is left for a read of its own that had room in this one.
            assert!(part.len() == room || received.len() + part.len() == sent.len());
            received.extend(part);
        }
        assert!(received == sent, "{room} at a time");
        assert_eq!((stream(&mut near).held(), stream(&mut far).held()), (0, 0));
    }
}

#[tokio::test]
async fn pending_changes_nothing_and_half_written_records_survive() {
    let (mut near, mut far) = ends(1000).await;
    assert_eq!(read(&mut far, 4096), None);
    let sent = content(400_000);
    let (mut from, mut received) = (0, Vec::new());
    // Whoever waits asks for something else each time.
    for turn in 0.. {
        let end = sent.len().min(from + 1 + turn * 7919 % 30_000);
        let (a, b) = sent[from..end].split_at((end - from) / 2);
        from += write(&mut near, &[a, b]).unwrap_or(0);
        if turn % 3 != 0 {
            received.extend(read(&mut far, 1 + turn * 104_729 % 20_000).unwrap_or_default());
        }
        if turn % 5 == 0 && once(|cx| Pin::new(&mut near).poll_flush(cx)).is_some() {
            assert_eq!(stream(&mut near).held(), 0);
        }
        // A pipe of tokio's takes no more than so much of one task at a time.
        tokio::task::yield_now().await;
        assert!(turn < 10_000, "{from} bytes taken, {} received", received.len());
        if from == sent.len() && received.len() == sent.len() {
            break;
        }
    }
    assert!(received == sent);
}

#[tokio::test]
async fn a_socket_that_takes_little_holds_one_batch_and_no_more() {
    let (mut near, _far) = ends(1000).await;
    let sent = content(1 << 20);
    let taken = write(&mut near, &[&sent]).unwrap();
    assert!((256 * 1024..300 * 1024).contains(&taken), "{taken}");
    assert_eq!(write(&mut near, &[&sent[taken..]]), None);
    assert!(stream(&mut near).held() < 300 * 1024);

    let (mut near, _far) = ends(1000).await;
    assert_eq!(write(&mut near, &[&sent[..5000]]), Some(5000));
    assert_eq!(write(&mut near, &[&sent[..5000]]), None);
    // What little is unwritten does not keep a large buffer.
    assert!(stream(&mut near).held() < 5000);
}

#[tokio::test]
async fn what_comes_right_behind_the_handshake_is_read() {
    for len in [10, 5000, 14_000] {
        let (near, far) = duplex(1 << 16);
        let key = client_key();
        let sent = content(len);
        let client = async {
            let server = server_key().public();
            let mut near = tls::connect(Wire::brought(near), &key, server, SESSION).await.unwrap();
            near.write_all(&sent).await.unwrap();
            near
        };
        let acceptor = acceptor();
        let (near, far) = tokio::join!(client, acceptor.accept(Wire::brought(far), in_ten_seconds()));
        let mut received = vec![0; len];
        gkd(far).read_exact(&mut received).await.unwrap();
        assert!(received == sent);
        drop(near);
    }
}

#[tokio::test]
async fn close_notify_is_the_end_and_a_cut_is_an_error() {
    let (mut near, mut far) = ends(4096).await;
    near.write_all(b"last").await.unwrap();
    near.shutdown().await.unwrap();
    assert!(near.write_all(b"more").await.is_err());
    assert_eq!(read(&mut far, 10), Some(b"last".to_vec()));
    assert_eq!(read(&mut far, 10), Some(Vec::new()));
    assert_eq!(read(&mut far, 10), Some(Vec::new()));
    // The other direction is open still.
    far.write_all(b"answer").await.unwrap();
    far.shutdown().await.unwrap();
    let mut answer = Vec::new();
    near.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"answer");

    let (near, mut far) = ends(4096).await;
    drop(near);
    assert_eq!(far.read(&mut [0; 10]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn close_notify_goes_behind_what_waits_to_be_written() {
    let (mut near, mut far) = ends(1000).await;
    let sent = content(100_000);
    assert_eq!(write(&mut near, &[&sent]), Some(sent.len()));
    assert!(once(|cx| Pin::new(&mut near).poll_shutdown(cx)).is_none());
    let mut received = Vec::new();
    let (shut, read) = tokio::join!(near.shutdown(), far.read_to_end(&mut received));
    shut.unwrap();
    read.unwrap();
    assert!(received == sent);
}

/// A server of the TLS library's, buffers and records its own, and a client of ours.
async fn client_and_library() -> (Carrier, tokio_rustls::server::TlsStream<DuplexStream>) {
    let (near, far) = duplex(1 << 16);
    let config = tls::server_config(&server_key()).unwrap();
    let library = TlsAcceptor::from(Arc::new(config)).accept(far);
    let key = client_key();
    let near = tls::connect(Wire::brought(near), &key, server_key().public(), SESSION);
    let (near, library) = tokio::join!(near, library);
    (near.unwrap(), library.unwrap())
}

#[tokio::test]
async fn each_cipher_goes_with_the_librarys_own_records() {
    let mut named = Vec::new();
    for cipher in 0..3 {
        let mut config = tls::client_config(&client_key(), Arc::new(AnyServer)).unwrap();
        let mut provider = (**config.crypto_provider()).clone();
        provider.cipher_suites = vec![provider.cipher_suites[cipher]];
        let resolver = config.client_auth_cert_resolver.clone();
        config = ClientConfigWith(provider).build(resolver);
        let (near, far) = duplex(1 << 16);
        let library = TlsConnector::from(Arc::new(config)).connect(tls::server_name(SESSION).unwrap(), near);
        let acceptor = acceptor();
        let (library, far) = tokio::join!(library, acceptor.accept(Wire::brought(far), in_ten_seconds()));
        let (mut library, mut far) = (library.unwrap(), gkd(far));
        named.push(library.get_ref().1.negotiated_cipher_suite().unwrap().suite());
        let sent = content(100_000);
        let (mut there, mut back) = (vec![0; sent.len()], vec![0; sent.len()]);
        let echo = async {
            far.read_exact(&mut there).await.unwrap();
            far.write_all(&there).await.unwrap();
            far.shutdown().await.unwrap();
        };
        let ask = async {
            library.write_all(&sent).await.unwrap();
            library.flush().await.unwrap();
            library.read_exact(&mut back).await.unwrap();
            assert_eq!(library.read(&mut [0]).await.unwrap(), 0);
        };
        tokio::join!(echo, ask);
        assert!(back == sent);
    }
    named.dedup();
    assert_eq!(named.len(), 3, "{named:?}");
}

struct ClientConfigWith(rustls::crypto::CryptoProvider);

impl ClientConfigWith {
    fn build(self, resolver: Arc<dyn rustls::client::ResolvesClientCert>) -> rustls::ClientConfig {
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(self.0))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer))
            .with_client_cert_resolver(resolver);
        config.alpn_protocols = vec![tls::ALPN.to_vec()];
        config
    }
}

#[tokio::test]
async fn the_other_ends_new_keys_are_followed_and_answered() {
    let (mut near, mut library) = client_and_library().await;
    for round in 0..40_u8 {
        // Asks for a new key of this end's, too.
        library.get_mut().1.refresh_traffic_keys().unwrap();
        library.write_all(&[round; 100]).await.unwrap();
        let mut received = [0; 100];
        near.read_exact(&mut received).await.unwrap();
        assert_eq!(received, [round; 100]);
        near.write_all(&received).await.unwrap();
        library.read_exact(&mut received).await.unwrap();
        assert_eq!(received, [round; 100]);
    }
}

#[tokio::test]
async fn a_key_that_is_used_up_is_followed_by_another() {
    for limit in [2, 3, 10] {
        let (mut near, mut library) = client_and_library().await;
        stream(&mut near).limit_key(limit);
        let sent = content(30 * FULL);
        let mut received = vec![0; sent.len()];
        let write = async {
            near.write_all(&sent).await.unwrap();
            near.flush().await.unwrap();
        };
        tokio::join!(write, library.read_exact(&mut received)).1.unwrap();
        assert!(received == sent);
        // The next key counts anew.
        assert_eq!(stream(&mut near).sealed(ContentType::ApplicationData, b"").len(), OVERHEAD);
    }
}
