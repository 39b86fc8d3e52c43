//! Echoes every connection, on smol: the program of `examples/echo_server.rs` with the same calls.
//!
//! ```text
//! cargo run --manifest-path examples/smol/Cargo.toml --bin smol-echo-server
//! ```

use gkd::{Result, Server};
use smol::io;

fn main() -> Result<()> {
    smol::block_on(async {
        let server = Server::bind("0.0.0.0:9990").await?;
        while let Some((conn, addr)) = server.accept().await {
            println!("accepted a connection from {addr}");
            let echo = smol::spawn(async move {
                let (r, w) = &mut (&conn, &conn);
                io::copy(r, w).await
            });
            echo.detach();
        }
        Ok(())
    })
}
