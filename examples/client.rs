//! One connection over four TCP connections to `echo_server.rs`, which has to run:
//!
//! ```text
//! cargo run --example client
//! ```
//!
//! With the argument `hold` it waits for the Enter key before it closes, so that `ss -tn` or `netstat -tn` can
//! show the four.

use gkd::{Client, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main]
async fn main() -> Result<()> {
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
    if std::env::args().any(|argument| argument == "hold") {
        println!("{} tunnels are up; Enter ends it", client.tunnels_up());
        std::io::stdin().read_line(&mut String::new())?;
    }
    // What was written is delivered before the program ends.
    drop(conn);
    client.close().await;
    Ok(())
}
