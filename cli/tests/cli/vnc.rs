//! `jmp-bus vnc`, as a browser uses it and as others try to: see `board.rs` for a real one.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error as WsError, Message, client::IntoClientRequest as _},
};

use crate::lab::{Lab, tcp_to};

/// What both sides of RFB say first.
const GREETING: &[u8] = b"RFB 003.008\n";
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the program serves its page.
struct Page {
    /// `127.0.0.1:PORT`.
    host: String,
    /// The random part of the address.
    token: String,
}

impl Page {
    fn read(url: &str) -> Self {
        let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        Self { host: host.to_owned(), token: path.trim_end_matches('/').to_owned() }
    }

    async fn get(&self, path: &str) -> String {
        let mut tcp = TcpStream::connect(&self.host).await.unwrap();
        let host = &self.host;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, tcp.read_to_end(&mut answer)).await.unwrap().unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A WebSocket, as the page at `origin` opens one to what it calls `host`.
    async fn open(
        &self,
        path: &str,
        host: &str,
        origin: Option<&str>,
    ) -> Result<WebSocketStream<TcpStream>, WsError> {
        let mut request = format!("ws://{}{path}", self.host).into_client_request()?;
        request.headers_mut().insert("host", host.parse().unwrap());
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        let tcp = TcpStream::connect(&self.host).await?;
        Ok(timeout(PATIENCE, client_async(request, tcp)).await.expect("an answer in time")?.0)
    }
}

/// Reads `len` bytes, however the stream was cut into messages.
async fn heard(socket: &mut WebSocketStream<TcpStream>, len: usize) -> Vec<u8> {
    let mut heard = Vec::new();
    while heard.len() < len {
        let message = timeout(PATIENCE, socket.next()).await.expect("more in time");
        heard.extend_from_slice(&message.unwrap().unwrap().into_data());
    }
    heard
}

#[tokio::test]
async fn a_screen_is_reached_by_its_page_and_by_no_other() {
    let screen = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let vnc = tcp_to(screen.local_addr().unwrap().port());
    let lab = Lab::with(|tree| tree.with_child("vnc", vnc)).await;
    let mut shown = lab.spawn(&["vnc", "local/vnc"]);
    let page = Page::read(&shown.line().await);
    let (token, own) = (page.token.as_str(), format!("http://{}", page.host));
    let socket = format!("/{token}/socket");

    // All of it is in the program: the page, its own script, and the client.
    for (file, has) in [
        ("", "<title>local/vnc</title>"),
        ("app.js", "socket"),
        ("novnc/core/rfb.js", "export default class RFB"),
        ("novnc/core/websock.js", "WebSocket"),
    ] {
        let answer = page.get(&format!("/{token}/{file}")).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(has), "{file}: {answer}");
    }

    // Pages of other sites, names that were made to point here, and guesses at the address.
    let evil = format!("evil.example:{}", page.host.rsplit(':').next().unwrap());
    let other = token.replace(|_| true, "0");
    let neighbour = "http://127.0.0.1:1";
    for (path, host, origin, status) in [
        (socket.as_str(), page.host.as_str(), Some("http://evil.example"), 403),
        (&socket, &page.host, Some(neighbour), 403),
        (&socket, &page.host, Some("null"), 403),
        (&socket, &page.host, None, 403),
        (&socket, &evil, Some(&*format!("http://{evil}")), 421),
        (&socket, &evil, Some(&own), 421),
        (&format!("/{other}/socket"), &page.host, Some(&own), 404),
        (&format!("/{token}/websockify"), &page.host, Some(&own), 404),
        ("/socket", &page.host, Some(&own), 404),
    ] {
        match page.open(path, host, origin).await {
            Err(WsError::Http(answer)) => assert_eq!(answer.status(), status, "{path} {host}"),
            other => panic!("{path} at {host} from {origin:?}: {other:?}"),
        }
    }

    // Nobody of them has reached the screen: the first one there is the page's own viewer.
    let mut viewer = page.open(&socket, &page.host, Some(&own)).await.unwrap();
    let (mut board, _) = timeout(PATIENCE, screen.accept()).await.unwrap().unwrap();
    board.write_all(GREETING).await.unwrap();
    assert_eq!(heard(&mut viewer, GREETING.len()).await, GREETING);
    viewer.send(Message::binary(GREETING)).await.unwrap();
    let mut said = [0; GREETING.len()];
    timeout(PATIENCE, board.read_exact(&mut said)).await.unwrap().unwrap();
    assert_eq!(said, GREETING);
    let picture: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 251) as u8).collect();
    let (sent, seen) = tokio::join!(board.write_all(&picture), heard(&mut viewer, picture.len()));
    sent.unwrap();
    assert!(seen == picture);
    // Who leaves does not stay at the board: its connection ends there, or is cut.
    viewer.close(None).await.unwrap();
    let left = timeout(PATIENCE, board.read(&mut said)).await.unwrap();
    assert!(matches!(left, Ok(0) | Err(_)), "{left:?}");

    shown.interrupt().await;
    assert_eq!(shown.ended().await.code, Some(130));
    lab.end().await;
}
