//! WebSocket to TCP: a page in a browser reaches a plain TCP server.
//!
//! ```text
//! cargo run --example tcp       # a plain echo on 127.0.0.1:8082; or nc -l 8082
//! cargo run --example ws_wts    # takes WebSockets on 127.0.0.1:8081
//! ```
//! and in the console of a browser
//! ```text
//! ws = new WebSocket("ws://127.0.0.1:8081"); ws.onmessage = async m => console.log(await m.data.text())
//! ws.send("hello")
//! ```
//! Without a browser: `cargo run --example ws_stw 127.0.0.1:8083` in front, and `nc 127.0.0.1 8083`.
//!
//! Other addresses: `cargo run --example ws_wts 127.0.0.1:8081 127.0.0.1:8082`.

use std::io::Result;

use gkd::WsToStream;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let listen = words.next().unwrap_or_else(|| "127.0.0.1:8081".to_owned());
    let to = words.next().unwrap_or_else(|| "127.0.0.1:8082".to_owned());
    let listener = TcpListener::bind(&listen).await?;
    println!("WebSockets on {listen} lead to plain TCP at {to}");
    println!(
        "try in a browser's console: new WebSocket(\"ws://{listen}\").onopen = e => e.target.send(\"hello\")"
    );
    loop {
        let (socket, peer) = listener.accept().await?;
        let mapping = WsToStream::new(socket, &to);
        tokio::spawn(async move {
            match mapping.copy_bidirectional().await {
                Ok(copied) => println!("{peer}: {} bytes in, {} out", copied.to_plain, copied.to_ws),
                Err(error) => println!("{peer}: {error}"),
            }
        });
    }
}
