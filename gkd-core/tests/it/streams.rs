//! A session over streams that the caller brings.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::{io, time::Duration};

use gkd_core::proto::SessionConfig;
use gkd_core::{Multiplexer, accept_streams, connect_streams};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};

use crate::support::{content, read_all, within};

async fn pair(count: usize, capacity: usize) -> (Multiplexer, Multiplexer) {
    let (near, far): (Vec<_>, Vec<_>) = (0..count).map(|_| duplex(capacity)).unzip();
    let config = SessionConfig::default;
    let (near, far) = tokio::join!(connect_streams(near, config()), accept_streams(far, config()));
    (near.unwrap(), far.unwrap())
}

async fn transfer(from: &Multiplexer, to: &Multiplexer, len: usize) {
    let here = from.open("somewhere").await.unwrap();
    let there = within("accept", to.accept()).await.unwrap();
    assert_eq!(there.destination(), "somewhere");
    let sent = content(len as u64, len);
    let writing = async {
        (&here).write_all(&sent).await.unwrap();
        (&here).shutdown().await.unwrap();
    };
    let (received, ()) = within("transfer", async { tokio::join!(read_all(&there), writing) }).await;
    assert!(received.unwrap() == sent);
}

#[tokio::test]
async fn one_stream_is_a_plain_multiplexer() {
    let (near, far) = pair(1, 64 * 1024).await;
    transfer(&near, &far, 2_000_000).await;
    transfer(&far, &near, 2_000_000).await;
    within("close", near.close()).await;
    assert!(within("the end", far.accept()).await.is_none());
}

#[tokio::test]
async fn three_narrow_streams_are_one_session() {
    let (near, far) = pair(3, 4 * 1024).await;
    assert_eq!((near.session().tunnels_up(), far.session().tunnels_up()), (3, 3));
    transfer(&near, &far, 1_000_000).await;
}

#[tokio::test]
async fn the_session_ends_with_its_last_stream() {
    let (near, far) = duplex(1024);
    let (near, far) = (Cut::new(near), Cut::new(far));
    let cut = near.0.clone();
    let config = SessionConfig::default;
    let (near, far) = tokio::join!(connect_streams([near], config()), accept_streams([far], config()));
    let (near, far) = (near.unwrap(), far.unwrap());
    let here = near.open("").await.unwrap();
    let there = within("accept", far.accept()).await.unwrap();
    cut.cancel();
    for end in [&here, &there] {
        assert!(within("reset", async { { end }.read(&mut [0; 8]).await }).await.is_err());
    }
    assert!(within("the end", far.accept()).await.is_none());
    assert!(near.open("").await.is_err());
}

#[tokio::test]
async fn no_stream_and_no_answer_are_errors() {
    let none = Vec::<DuplexStream>::new();
    assert!(connect_streams(none, SessionConfig::default()).await.is_err());
    let (near, far) = duplex(1024);
    drop(far);
    assert!(within("no answer", connect_streams([near], SessionConfig::default())).await.is_err());
    let (near, far) = duplex(1024);
    let talking = tokio::spawn(async move {
        let mut far = far;
        far.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await.ok();
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
    assert!(within("another protocol", accept_streams([near], SessionConfig::default())).await.is_err());
    talking.abort();
}

/// A stream without vectored writes that can be cut from outside.
struct Cut(tokio_util::sync::CancellationToken, DuplexStream, Pin<Box<dyn Future<Output = ()> + Send>>);

impl Cut {
    fn new(stream: DuplexStream) -> Self {
        let token = tokio_util::sync::CancellationToken::new();
        Self(token.clone(), stream, Box::pin(async move { token.cancelled().await }))
    }
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.2.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.1).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cut {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.1).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.1).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.1).poll_shutdown(cx)
    }
}
