//! The same service as satwatch's to one address, with the crate socketioxide.

use std::convert::Infallible;
use std::io;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use socketioxide::SocketIo;
use socketioxide::extract::{Data, SocketRef};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;

#[tokio::main]
pub async fn run() -> io::Result<()> {
    let rest =
        service_fn(async |_| Ok::<_, Infallible>(hyper::Response::new(Empty::<Bytes>::new())));
    let (service, io) = SocketIo::builder().build_with_inner_svc(rest);
    io.ns("/", async |socket: SocketRef| {
        socket.on(
            "subscribe_address",
            async |socket: SocketRef, Data(wish): Data<Value>| {
                socket.join(wish["address"].as_str().unwrap_or_default().to_owned());
                socket.emit("subscribed", &json!({})).ok();
            },
        );
        // Only now may a client send: this crate answers CONNECT before its handlers are there.
        socket.emit("connected", &json!({})).ok();
    });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    let emitter = io.clone();
    let accept = async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true)?;
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service.clone())
                .with_upgrades();
            tokio::spawn(connection);
        }
        io::Result::Ok(())
    };
    tokio::spawn(accept);
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        for text in serde_json::from_str::<Vec<String>>(&line)? {
            let (event, data): (String, Value) = serde_json::from_str(&text[2..])?;
            let address = data["address"].as_str().unwrap_or_default().to_owned();
            if let Err(error) = emitter.to(address).emit(event, &data).await {
                eprintln!("socketioxide: {error}");
            }
        }
    }
    Ok(())
}
