//! TCP to WebSocket: a program that speaks plain TCP reaches a WebSocket server.
//!
//! ```text
//! # any WebSocket server on 127.0.0.1:8081
//! cargo run --example ws_stw       # takes plain TCP on 127.0.0.1:8082
//! nc 127.0.0.1 8082                # or cargo run --example tcp client
//! ```
//! What is typed there comes to the WebSocket server as binary messages, and its messages are shown.
//!
//! With nothing but these examples, both directions one behind the other:
//! ```text
//! cargo run --example tcp                       # a plain echo on 8082
//! cargo run --example ws_wts                    # WebSocket on 8081, to 8082
//! cargo run --example ws_stw 127.0.0.1:8083     # plain on 8083, to WebSocket on 8081
//! cargo run --example tcp client 127.0.0.1:8083
//! ```
//! Other addresses: `cargo run --example ws_stw 127.0.0.1:8082 ws://127.0.0.1:8081`.

use std::io::Result;

use gkd::StreamToWs;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let listen = words.next().unwrap_or_else(|| "127.0.0.1:8082".to_owned());
    let url = words.next().unwrap_or_else(|| "ws://127.0.0.1:8081".to_owned());
    let listener = TcpListener::bind(&listen).await?;
    println!("plain TCP on {listen} leads to {url}");
    println!("try `nc {}`, or `cargo run --example tcp client {listen}`", listen.replace(':', " "));
    loop {
        let (socket, peer) = listener.accept().await?;
        let mapping = StreamToWs::new(socket, &url);
        tokio::spawn(async move {
            match mapping.copy_bidirectional().await {
                Ok(copied) => println!("{peer}: {} bytes in, {} out", copied.to_ws, copied.to_plain),
                Err(error) => println!("{peer}: {error}"),
            }
        });
    }
}
