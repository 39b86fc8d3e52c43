//! Echoes every connection, on async-std: the program of `examples/echo_server.rs` with the same calls.
//!
//! ```text
//! cargo run --manifest-path examples/async-std/Cargo.toml --bin async-std-echo-server
//! ```

use async_std::task;
use futures::io;
use gkd::{Result, Server};

#[async_std::main]
async fn main() -> Result<()> {
    let server = Server::bind("0.0.0.0:9990").await?;
    while let Some((conn, addr)) = server.accept().await {
        println!("accepted a connection from {addr}");
        task::spawn(async move {
            let (r, w) = &mut (&conn, &conn);
            io::copy(r, w).await.unwrap();
        });
    }
    Ok(())
}
