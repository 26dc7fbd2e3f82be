//! URLs that an exporter fetches: redirects, ranges, retry, and secrets that stay where they belong.

use std::{net::SocketAddr, sync::Arc};

use bus_schema::FaultKind;
use runtime::{CallError, Lend};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::JoinSet,
};

use crate::lend::{Lending, noise};

/// An answer, as bytes on the wire.
type Answer = Vec<u8>;

/// A server that answers requests in their order, one a connection, and keeps what was asked.
struct Server {
    at: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _task: JoinSet<()>,
}

impl Server {
    async fn of(answers: Vec<Answer>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (at, asked) = (listener.local_addr()?, Arc::new(Mutex::new(Vec::new())));
        let (mut task, kept) = (JoinSet::new(), asked.clone());
        task.spawn(async move {
            for answer in answers {
                let Ok((mut tcp, _)) = listener.accept().await else { return };
                let request = head(&mut tcp).await;
                kept.lock().await.push(request);
                let _ = tcp.write_all(&answer).await; // the client may have had enough
                let _ = tcp.shutdown().await;
            }
        });
        Ok(Self { at, asked, _task: task })
    }

    async fn asked(&self, at: usize) -> String {
        self.asked.lock().await.get(at).cloned().unwrap_or_default().to_ascii_lowercase()
    }
}

async fn head(tcp: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match tcp.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

fn answer(status: &str, headers: &[&str], body: &[u8]) -> Answer {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!("HTTP/1.1 {status}\r\n{headers}Connection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn whole(body: &[u8]) -> Answer {
    answer("200 OK", &[&format!("Content-Length: {}", body.len())], body)
}

fn fault(error: CallError) -> (FaultKind, String) {
    match error {
        CallError::Fault { fault, .. } => (fault.kind, fault.text),
        other => panic!("no fault: {other:?}"),
    }
}

fn with_token(at: SocketAddr, path: &str) -> Lend {
    Lend::url(format!("http://{at}{path}"), [("Authorization", "Bearer s3cret")])
}

#[tokio::test]
async fn a_redirect_to_another_host_goes_without_credentials_and_one_to_the_same_with_them()
-> anyhow::Result<()> {
    let lending = Lending::start().await?;
    let body = noise(300_000, 1);
    let other = Server::of(vec![whole(&body)]).await?;
    let elsewhere = format!("Location: http://{}/b", other.at);
    let first = Server::of(vec![
        answer("302 Found", &["Location: /a2", "Content-Length: 0"], b""),
        answer("307 Temporary Redirect", &[&elsewhere, "Content-Length: 0"], b""),
    ])
    .await?;
    let took = lending.bench().take(with_token(first.at, "/a")).await?;
    assert_eq!((took.bytes, took.announced), (300_000, Some(300_000)));
    assert!(first.asked(0).await.contains("bearer s3cret"));
    assert!(
        first.asked(1).await.starts_with("get /a2 ") && first.asked(1).await.contains("s3cret")
    );
    assert!(
        other.asked(0).await.starts_with("get /b ") && !other.asked(0).await.contains("s3cret")
    );
    lending.stop().await
}

#[tokio::test]
async fn a_body_that_breaks_off_is_continued_where_it_was() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    let body = noise(600_000, 2);
    let cut = &body[..250_000];
    let length = format!("Content-Length: {}", body.len());
    let range = format!("Content-Range: bytes 250000-{}/{}", body.len() - 1, body.len());
    let rest = format!("Content-Length: {}", body.len() - 250_000);
    let server = Server::of(vec![
        answer("503 Service Unavailable", &["Content-Length: 0"], b""),
        answer("200 OK", &[&length, "ETag: \"v1\""], cut),
        answer("206 Partial Content", &[&range, &rest, "ETag: \"v1\""], &body[250_000..]),
    ])
    .await?;
    let took = lending.bench().take(with_token(server.at, "/a")).await?;
    assert_eq!(took.bytes, body.len() as u64);
    assert_eq!(took.sha256, crate::lend::digest(&body).to_string());
    let third = server.asked(2).await;
    assert!(
        third.contains("range: bytes=250000-") && third.contains("if-range: \"v1\""),
        "{third}"
    );
    lending.stop().await
}

#[tokio::test]
async fn what_changed_meanwhile_is_not_put_together_of_two_halves() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    let body = noise(600_000, 3);
    let length = format!("Content-Length: {}", body.len());
    let server = Server::of(vec![
        answer("200 OK", &[&length, "ETag: \"v1\""], &body[..250_000]),
        answer("200 OK", &[&length, "ETag: \"v2\""], &body),
    ])
    .await?;
    let (kind, text) = fault(lending.bench().take(with_token(server.at, "/a")).await.unwrap_err());
    assert_eq!(kind, FaultKind::Resource);
    assert!(text.contains("it has changed while it was fetched"), "{text}");
    assert_eq!(lending.taker.done.load(std::sync::atomic::Ordering::Relaxed), 0);
    lending.stop().await
}

#[tokio::test]
async fn a_url_that_leads_nowhere_says_so_and_shows_no_secret() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    let file = answer("302 Found", &["Location: file:///etc/passwd", "Content-Length: 0"], b"");
    for (answers, said) in [
        (vec![answer("404 Not Found", &["Content-Length: 0"], b"")], "404"),
        (vec![file], "a redirect leads to"),
        (vec![answer("200 OK", &["Content-Length: 0"], b"")], ""),
    ] {
        let server = Server::of(answers).await?;
        let lend =
            Lend::url(format!("http://u:s3cret@{}/a?k=s3cret", server.at), [("x", "s3cret")]);
        match (said, lending.bench().take(lend).await) {
            ("", Ok(took)) => assert_eq!(took.bytes, 0),
            (said, Err(error)) => {
                let (kind, text) = fault(error);
                assert_eq!(kind, FaultKind::Resource);
                assert!(text.contains(said) && !text.contains("s3cret"), "{text}");
            }
            (said, took) => panic!("{said}: {took:?}"),
        }
    }
    lending.stop().await
}
