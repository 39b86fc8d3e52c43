//! With the feature `futures-io`: the traits of `futures`, outside of a tokio runtime.

use futures::executor::block_on;
use futures::{AsyncReadExt, AsyncWriteExt};
use gkd_core::{Client, Server};

use crate::support::content;

#[test]
fn everything_runs_outside_of_a_tokio_runtime() {
    block_on(async {
        let server = Server::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let serving = std::thread::spawn(move || {
            block_on(async {
                let (connection, _) = server.accept().await.unwrap();
                let (r, w) = &mut (&connection, &connection);
                futures::io::copy(r, w).await.unwrap();
                (&connection).close().await.unwrap();
                drop(connection);
                server.shutdown_handle().shutdown(std::time::Duration::from_secs(10)).await;
            })
        });
        let client = Client::connect(address, 4).await.unwrap();
        let connection = client.get_connection().await.unwrap();
        let sent = content(6, 500_000);
        let writing = async {
            let mut writer = &connection;
            writer.write_all(&sent).await.unwrap();
            writer.close().await.unwrap();
        };
        let mut received = Vec::new();
        let mut reader = &connection;
        let (read, ()) = futures::join!(reader.read_to_end(&mut received), writing);
        read.unwrap();
        assert!(received == sent);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(1);
        assert!(connection.write_all_by(b"x", deadline).await.is_err());
        drop(connection);
        assert!(client.close().await);
        serving.join().unwrap();
    });
}
