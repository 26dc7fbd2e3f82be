//! A service on the exporter's loopback: one page over HTTP.

use std::{io, net::Ipv4Addr};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Longest request that is read.
const REQUEST_BYTES_MAX: u64 = 8 << 10;

/// The service, which knows one page.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) port: u16,
    pub(super) page: String,
}

impl Service {
    pub(super) async fn start(
        page: String,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let answer = page.clone();
        tasks.spawn(async move {
            stop.run_until_cancelled(serve(listener, &answer)).await;
        });
        Ok(Self { port, page })
    }
}

async fn serve(listener: TcpListener, page: &str) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = answer(stream, page).await; // whoever asked has left
    }
}

async fn answer(mut stream: TcpStream, page: &str) -> io::Result<()> {
    let (from, mut to) = stream.split();
    let mut lines = BufReader::new(from.take(REQUEST_BYTES_MAX)).lines();
    while lines.next_line().await?.is_some_and(|line| !line.is_empty()) {}
    let length = page.len();
    let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n");
    to.write_all((head + page).as_bytes()).await?;
    to.shutdown().await
}

/// Fetches the page of `address`.
pub(super) async fn fetch(address: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.take(REQUEST_BYTES_MAX).read_to_string(&mut answer).await?;
    match answer.strip_prefix("HTTP/1.0 200 OK\r\n").and_then(|rest| rest.split_once("\r\n\r\n")) {
        Some((_, page)) => Ok(page.to_owned()),
        None => Err(io::Error::other(format!("this is no page: {answer:?}"))),
    }
}
