//! One connection over four TCP connections to an echo server, on smol: the program of `examples/client.rs` with
//! the same calls. The server may run on any of the runtimes.
//!
//! ```text
//! cargo run --manifest-path examples/smol/Cargo.toml --bin smol-client
//! ```

use gkd::{Client, Result};
use smol::io::{AsyncReadExt, AsyncWriteExt};

fn main() -> Result<()> {
    smol::block_on(async {
        let client = Client::connect("127.0.0.1:9990", 4).await?;
        let mut conn = client.get_connection().await?;
        for i in 1..10 {
            conn.write_all(&[i, i, i]).await?;
        }
        for _ in 1..10 {
            let mut buf = [0; 3];
            conn.read_exact(&mut buf).await?;
            println!("read [{buf:?}]");
        }
        // What was written is delivered before the program ends.
        drop(conn);
        client.close().await;
        Ok(())
    })
}
