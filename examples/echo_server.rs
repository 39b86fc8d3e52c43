//! Echoes every connection. `client.rs` is the other end; start this one first:
//!
//! ```text
//! cargo run --example echo_server
//! ```

use gkd::{Result, Server};
use tokio::io;

#[tokio::main]
#[allow(clippy::unwrap_used, reason = "a panic ends one connection, with a reset; the server goes on")]
async fn main() -> Result<()> {
    let server = Server::bind("0.0.0.0:9990").await?;
    while let Some((conn, addr)) = server.accept().await {
        println!("accepted a connection from {addr}");
        tokio::spawn(async move {
            let (r, w) = &mut (&conn, &conn);
            io::copy(r, w).await.unwrap();
        });
    }
    Ok(())
}
