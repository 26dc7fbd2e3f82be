//! Local ports onto streams.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr},
};

use actors::{
    ClientAdapter as _, EchoNetwork, Forwarded, Portforward, StreamMethod, TcpNetwork,
    TcpNetworkConfig, Trouble, UdpNetwork, UdpNetworkConfig,
};
use anyhow::{Context as _, Error, Result};
use bus_schema::RefusalCode;
use runtime::{CallError, Node, Served, blocking, serve};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket, UnixStream},
    task::JoinSet,
};

async fn served(node: impl Into<Node>) -> Result<Served> {
    serve(node).await.map_err(Error::from_boxed)
}

fn tcp_to(port: u16) -> TcpNetwork {
    TcpNetwork::new(TcpNetworkConfig {
        host: "127.0.0.1".to_owned(),
        port,
        enable_address: true,
        connect_timeout: std::time::Duration::from_secs(10),
    })
}

fn address(forwarded: &Forwarded) -> SocketAddr {
    forwarded.address().expect("it is no Unix socket")
}

/// Says something, ends, and hears the same.
async fn echoes(mut to: impl AsyncRead + AsyncWrite + Unpin, said: &[u8]) -> Result<()> {
    to.write_all(said).await?;
    to.shutdown().await?;
    let mut heard = Vec::new();
    to.read_to_end(&mut heard).await?;
    assert!(heard == said, "{} of {} bytes came back", heard.len(), said.len());
    Ok(())
}

#[tokio::test]
async fn many_connections_at_once_have_a_stream_each() -> Result<()> {
    let served = served(EchoNetwork).await?;
    let forwarded = StreamMethod::connect(served.driver()).adapt(Portforward::default()).await?;
    let to = address(&forwarded);
    assert!(to.ip().is_loopback() && to.port() != 0);
    assert_eq!(forwarded.local().to_string(), format!("tcp://{to}"));
    let mut all = JoinSet::new();
    for at in 0..64_u8 {
        all.spawn(async move {
            let said = vec![at; 20_000];
            echoes(TcpStream::connect(to).await?, &said).await
        });
    }
    while let Some(ended) = all.join_next().await {
        ended??;
    }
    forwarded.stop().await;
    assert!(TcpStream::connect(to).await.is_err(), "the port is free again");
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn each_half_of_a_connection_ends_by_itself() -> Result<()> {
    let service = TcpListener::bind("127.0.0.1:0").await?;
    let served = served(tcp_to(service.local_addr()?.port())).await?;
    let forwarded = StreamMethod::connect(served.driver()).adapt(Portforward::default()).await?;
    for local_first in [true, false] {
        let mut local = TcpStream::connect(address(&forwarded)).await?;
        let (mut remote, _) = service.accept().await?;
        let (first, second) =
            if local_first { (&mut local, &mut remote) } else { (&mut remote, &mut local) };
        first.write_all(b"question").await?;
        first.shutdown().await?;
        let mut heard = String::new();
        second.read_to_string(&mut heard).await?;
        assert_eq!(heard, "question");
        second.write_all(b"answer").await?;
        second.shutdown().await?;
        heard.clear();
        first.read_to_string(&mut heard).await?;
        assert_eq!(heard, "answer");
    }
    forwarded.stop().await;
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_refused_open_closes_that_connection_and_is_told_of_once() -> Result<()> {
    let served = served(EchoNetwork).await?;
    let none = StreamMethod::named(served.driver(), "none");
    let mut forwarded = none.adapt(Portforward::default()).await?;
    for _ in 0..2 {
        let mut local = TcpStream::connect(address(&forwarded)).await?;
        let error = local.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "it is cut, it does not end");
        let trouble = forwarded.trouble().await;
        let Trouble::Refused(CallError::Refused { refusal, .. }) = &trouble else {
            panic!("{trouble}")
        };
        assert_eq!(refusal.code, RefusalCode::UnknownMethod);
    }
    let more = std::pin::pin!(forwarded.trouble());
    assert!(now(more).is_none(), "it was told of once");
    served.shutdown().await?;
    Ok(())
}

/// What a future gives without waiting.
fn now<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(&mut future).poll(&mut cx) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test]
async fn a_service_that_is_not_there_is_a_reset_that_names_it() -> Result<()> {
    let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
    let served = served(tcp_to(port)).await?;
    let method = StreamMethod::connect(served.driver());
    let mut forwarded = method.adapt(Portforward::default()).await?;
    let mut local = TcpStream::connect(address(&forwarded)).await?;
    assert_eq!(local.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let trouble = forwarded.trouble().await.to_string();
    assert!(trouble.contains(&format!("cannot connect to 127.0.0.1:{port}")), "{trouble}");
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_unix_socket_is_for_its_user_and_is_gone_afterwards() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let served = served(EchoNetwork).await?;
    let method = StreamMethod::connect(served.driver());
    let dir = tempfile::tempdir()?;
    for path in [None, Some(dir.path().join("socket"))] {
        let forwarded = method.clone().adapt(Portforward::Unix(path.clone())).await?;
        let at = forwarded.path().context("a path")?.to_owned();
        assert!(path.is_none_or(|path| path == at));
        assert_eq!(std::fs::metadata(&at)?.permissions().mode() & 0o777, 0o600);
        echoes(UnixStream::connect(&at).await?, b"over a socket").await?;
        let taken = method.clone().adapt(Portforward::Unix(Some(at.clone()))).await.unwrap_err();
        assert!(taken.to_string().contains(at.to_str().context("text")?), "{taken}");
        forwarded.stop().await;
        assert!(!at.exists());
    }
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_never_replaced_by_one() -> Result<()> {
    let served = served(EchoNetwork).await?;
    let dir = tempfile::tempdir()?;
    let at = dir.path().join("notes");
    std::fs::write(&at, "mine")?;
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&at, &link)?;
    for path in [&at, &link] {
        let method = StreamMethod::connect(served.driver());
        let refused = method.adapt(Portforward::Unix(Some(path.clone()))).await.unwrap_err();
        assert_eq!(refused.source.kind(), ErrorKind::AddrInUse, "{refused}");
    }
    assert_eq!(std::fs::read_to_string(&at)?, "mine");
    assert!(link.is_symlink());
    served.shutdown().await?;
    Ok(())
}

async fn udp_echo() -> Result<(JoinSet<()>, UdpNetwork)> {
    let service = UdpSocket::bind("127.0.0.1:0").await?;
    let port = service.local_addr()?.port();
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut buf = vec![0; 65_536];
        while let Ok((size, from)) = service.recv_from(&mut buf).await {
            let _ = service.send_to(&buf[..size], from).await;
        }
    });
    let config = UdpNetworkConfig { host: "127.0.0.1".to_owned(), port, enable_address: true };
    Ok((task, UdpNetwork::new(config)))
}

#[tokio::test]
async fn datagrams_that_follow_each_other_stay_apart() -> Result<()> {
    let (_service, udp) = udp_echo().await?;
    let served = served(udp).await?;
    let method = StreamMethod::named(served.driver(), "datagrams");
    let forwarded = method.adapt(Portforward::Udp("0".to_owned())).await?;
    assert!(forwarded.local().to_string().starts_with("udp://127.0.0.1:"));
    let (one, other) =
        (UdpSocket::bind("127.0.0.1:0").await?, UdpSocket::bind("127.0.0.1:0").await?);
    let mut buf = vec![0; 65_536];
    for (socket, mark) in [(&one, 1_u8), (&other, 2)] {
        socket.connect(address(&forwarded)).await?;
        for size in [1, 2, 600, 0, 9000] {
            socket.send(&vec![mark; size]).await?;
        }
    }
    for (socket, mark) in [(&one, 1_u8), (&other, 2)] {
        for size in [1, 2, 600, 0, 9000] {
            assert_eq!(socket.recv(&mut buf).await?, size);
            assert!(buf[..size].iter().all(|byte| *byte == mark), "each has its own answers");
        }
    }
    forwarded.stop().await;
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_driver_that_knows_no_datagrams_gets_them_as_bytes() -> Result<()> {
    let served = served(EchoNetwork).await?;
    let method = StreamMethod::named(served.driver(), "datagrams");
    let forwarded = method.adapt(Portforward::Udp("127.0.0.1:0".to_owned())).await?;
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(address(&forwarded)).await?;
    let mut buf = [0; 64];
    for said in ["one", "after", "the other"] {
        socket.send(said.as_bytes()).await?;
        let size = socket.recv(&mut buf).await?;
        assert_eq!(&buf[..size], said.as_bytes());
    }
    forwarded.stop().await;
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0").await?;
    let at = taken.local_addr()?.to_string();
    let served = served(EchoNetwork).await?;
    let method = StreamMethod::connect(served.driver());
    let error = method.adapt(Portforward::Tcp(at.clone())).await.unwrap_err();
    assert_eq!(error.source.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&at), "{error}");
    served.shutdown().await?;
    Ok(())
}

#[test]
fn code_that_blocks_forwards_as_well() -> Result<()> {
    let served = blocking::serve(EchoNetwork).map_err(Error::from_boxed)?;
    let method = StreamMethod::connect(served.driver().to_async());
    let forwarded = Portforward::default().adapt_blocking(method)?;
    let mut local = std::net::TcpStream::connect(address(&forwarded))?;
    local.write_all(b"without async")?;
    local.shutdown(Shutdown::Write)?;
    let mut heard = String::new();
    local.read_to_string(&mut heard)?;
    assert_eq!(heard, "without async");
    forwarded.stop_blocking();
    served.shutdown()?;
    Ok(())
}
