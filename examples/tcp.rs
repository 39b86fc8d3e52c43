//! A plain TCP server that echoes, or a plain TCP client: what stands beside `ws_wts` and `ws_stw`, so that each of these can be
//! seen alone.
//!
//! ```text
//! cargo run --example tcp                         # listens on 127.0.0.1:8082, and echoes what comes
//! cargo run --example tcp client                  # connects to 127.0.0.1:8082: a line that you type goes there
//! cargo run --example tcp server 127.0.0.1:7000   # either with another address
//! ```

use std::io::Result;

use tokio::io::{self, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The plain port of all three examples.
const ADDRESS: &str = "127.0.0.1:8082";

#[tokio::main]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let role = words.next().unwrap_or_else(|| "server".to_owned());
    let address = words.next().unwrap_or_else(|| ADDRESS.to_owned());
    match role.as_str() {
        "server" => serve(&address).await,
        "client" => connect(&address).await,
        other => Err(io::Error::other(format!("\"{other}\" is no role: write server or client"))),
    }
}

async fn serve(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address).await?;
    println!("a plain echo listens on {address}");
    println!("try `cargo run --example ws_wts`, which leads a WebSocket here");
    loop {
        let (mut socket, peer) = listener.accept().await?;
        tokio::spawn(async move {
            let (mut reader, mut writer) = socket.split();
            let copied = io::copy(&mut reader, &mut writer).await;
            match copied.and(writer.shutdown().await) {
                Ok(()) => println!("{peer} has ended"),
                Err(error) => println!("{peer}: {error}"),
            }
        });
    }
}

async fn connect(address: &str) -> Result<()> {
    let mut socket = TcpStream::connect(address).await?;
    println!("connected to {address}: type lines; Ctrl-D ends");
    let (mut reader, mut writer) = socket.split();
    let (mut input, mut output) = (io::stdin(), io::stdout());
    let up = async {
        io::copy(&mut input, &mut writer).await?;
        writer.shutdown().await
    };
    let down = async {
        io::copy(&mut reader, &mut output).await?;
        output.flush().await
    };
    tokio::try_join!(up, down)?;
    Ok(())
}
