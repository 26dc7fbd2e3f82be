//! The page of a screen, as a browser uses it and as others try to.

use std::time::Duration;

use actors::{EchoNetwork, NovncAdapter, NovncPage, NovncTrouble, StreamMethod};
use anyhow::{Context as _, Error, Result};
use futures_util::{SinkExt as _, StreamExt as _};
use runtime::{Served, serve};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error as WsError, Message, client::IntoClientRequest as _},
};

async fn page(method: &str) -> Result<(Served, NovncPage)> {
    let served = serve(EchoNetwork).await.map_err(Error::from_boxed)?;
    let method = StreamMethod::named(served.driver(), method);
    let adapter = NovncAdapter { title: "bench/<vnc>".to_owned(), port: 0 };
    Ok((served, method.adapt(adapter).await?))
}

/// What is answered to a request for `path`, with these header lines.
async fn get(page: &NovncPage, path: &str, headers: &str) -> Result<String> {
    let mut tcp = TcpStream::connect(page.address()).await?;
    let request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
    tcp.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    timeout(Duration::from_secs(10), tcp.read_to_end(&mut answer)).await??;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn own(page: &NovncPage) -> String {
    format!("Host: {}\r\n", page.address())
}

fn path(page: &NovncPage) -> String {
    page.url().splitn(4, '/').nth(3).map(|path| format!("/{path}")).unwrap_or_default()
}

/// A WebSocket as a page of this origin opens one.
async fn open(
    page: &NovncPage,
    origin: Option<&str>,
) -> Result<WebSocketStream<TcpStream>, WsError> {
    let url = page.url().replacen("http", "ws", 1) + "socket";
    let mut request = url.into_client_request()?;
    if let Some(origin) = origin {
        request.headers_mut().insert("origin", origin.parse().expect("a header"));
    }
    let tcp = TcpStream::connect(page.address()).await?;
    Ok(client_async(request, tcp).await?.0)
}

#[tokio::test]
async fn the_page_and_all_of_the_client_come_from_this_host() -> Result<()> {
    let (served, page) = page("connect").await?;
    let index = get(&page, &path(&page), &own(&page)).await?;
    assert!(index.starts_with("HTTP/1.1 200"), "{index}");
    assert!(index.contains("<title>bench/&lt;vnc&gt;</title>"), "{index}");
    assert!(index.to_lowercase().contains("content-security-policy: default-src 'none'"));
    // Every file that is imported, from the page's own program on.
    let mut wanted = vec!["app.js".to_owned()];
    let mut seen = std::collections::BTreeSet::new();
    while let Some(file) = wanted.pop() {
        if !seen.insert(file.clone()) {
            continue;
        }
        let text = get(&page, &(path(&page) + &file), &own(&page)).await?;
        assert!(text.starts_with("HTTP/1.1 200") && text.contains("text/javascript"), "{file}");
        let base = url_dir(&file);
        let is_import = |line: &&str| {
            ["import ", "export ", "} from "].iter().any(|word| line.starts_with(word))
        };
        for line in text.lines().filter(is_import) {
            let from = line.split_once(" from ").or_else(|| line.split_once("import \""));
            if let Some(import) = from.and_then(|(_, rest)| rest.split(['"', '\'']).nth(1)) {
                assert!(import.starts_with('.'), "{file} imports {import} from elsewhere");
                wanted.push(joined(&base, import));
            }
        }
    }
    assert!(seen.len() > 30 && seen.contains("novnc/core/rfb.js"), "{seen:?}");
    page.stop().await;
    served.shutdown().await?;
    Ok(())
}

fn url_dir(file: &str) -> String {
    file.rsplit_once('/').map_or_else(String::new, |(dir, _)| format!("{dir}/"))
}

fn joined(base: &str, import: &str) -> String {
    let mut parts: Vec<_> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in import.split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[tokio::test]
async fn who_does_not_have_the_address_gets_nothing() -> Result<()> {
    let (served, page) = page("connect").await?;
    let (own, path) = (own(&page), path(&page));
    let port = page.address().port();
    for (at, headers, status) in [
        ("/".to_owned(), own.clone(), 404),
        ("/0123456789abcdef0123456789abcdef/".to_owned(), own.clone(), 404),
        (path[..path.len() - 1].to_owned() + "0/", own.clone(), 404),
        (path.clone() + "novnc/../../Cargo.toml", own.clone(), 404),
        (path.clone() + "novnc/%2e%2e/%2e%2e/Cargo.toml", own.clone(), 404),
        (path.clone() + "novnc/none.js", own.clone(), 404),
        // Names that an attacker's page could have point here.
        (path.clone(), "Host: evil.example\r\n".to_owned(), 421),
        (path.clone(), format!("Host: evil.example:{port}\r\n"), 421),
        (path.clone(), "Host: 127.0.0.1\r\n".to_owned(), 421),
        (path.clone(), format!("{own}Host: evil.example\r\n"), 400),
        (path.clone(), format!("{own}Origin: http://evil.example\r\n"), 403),
        (path.clone(), format!("{own}Origin: null\r\n"), 403),
        (path.clone(), format!("Host: localhost:{port}\r\n"), 200),
    ] {
        let answer = get(&page, &at, &headers).await?;
        let got = answer.split(' ').nth(1).unwrap_or_default().to_owned();
        // Two hosts are no HTTP, which the server may say before we do.
        let good = got == status.to_string() || (status == 400 && got == "421");
        assert!(good, "{at} {headers:?}: {answer}");
    }
    page.stop().await;
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_viewer_has_a_stream_of_its_own_and_only_our_page_opens_one() -> Result<()> {
    let (served, page) = page("connect").await?;
    for origin in [None, Some("http://evil.example"), Some("null")] {
        let refused = open(&page, origin).await.unwrap_err();
        assert!(matches!(&refused, WsError::Http(answer) if answer.status() == 403), "{refused}");
    }
    let origin = format!("http://{}", page.address());
    let (mut one, mut other) =
        (open(&page, Some(&origin)).await?, open(&page, Some(&origin)).await?);
    for (socket, said) in [(&mut one, vec![1; 100_000]), (&mut other, vec![2; 10])] {
        socket.send(Message::binary(said.clone())).await?;
        let mut heard = Vec::new();
        while heard.len() < said.len() {
            heard.extend_from_slice(&socket.next().await.context("more")??.into_data());
        }
        assert!(heard == said);
    }
    one.send(Message::text("hello")).await?;
    let closed = loop {
        if let Message::Close(frame) = one.next().await.context("a close")?? {
            break frame.context("a reason")?;
        }
    };
    assert_eq!(u16::from(closed.code), 1003);
    page.stop().await;
    assert!(!matches!(other.next().await, Some(Ok(Message::Binary(_)))), "it is cut off");
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_screen_that_is_not_there_says_why() -> Result<()> {
    let (served, mut page) = page("none").await?;
    let origin = format!("http://{}", page.address());
    let mut socket = open(&page, Some(&origin)).await?;
    let Message::Close(Some(frame)) = socket.next().await.context("a close")?? else {
        panic!("no close")
    };
    assert!(frame.reason.contains("no method \"none\""), "{frame}");
    let trouble = page.trouble().await;
    assert!(matches!(trouble, NovncTrouble::Refused(_)), "{trouble}");
    page.stop().await;
    served.shutdown().await?;
    Ok(())
}
