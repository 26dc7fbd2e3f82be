//! Services behind the exporter, over the bus.

use std::{io::ErrorKind, time::Duration};

use actors::{
    EchoNetwork, NetworkClient, TcpNetwork, TcpNetworkConfig, UdpNetwork, UdpNetworkConfig,
    UnixNetwork, UnixNetworkConfig,
};
use anyhow::{Error, Result};
use runtime::{CallError, Node, Served, serve};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket, UnixListener},
};

async fn served(node: impl Into<Node>) -> Result<Served> {
    serve(node).await.map_err(Error::from_boxed)
}

fn tcp(port: u16) -> TcpNetworkConfig {
    TcpNetworkConfig {
        host: "127.0.0.1".to_owned(),
        port,
        enable_address: true,
        connect_timeout: Duration::from_secs(10),
    }
}

/// A peer that says its word, ends, and hears the answer to the end; and then the other way round.
async fn half_close(
    mut first: impl AsyncRead + AsyncWrite + Unpin,
    mut second: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<()> {
    first.write_all(b"question").await?;
    first.shutdown().await?;
    let mut heard = Vec::new();
    second.read_to_end(&mut heard).await?;
    assert_eq!(heard, b"question");
    second.write_all(b"answer").await?;
    second.shutdown().await?;
    heard.clear();
    first.read_to_end(&mut heard).await?;
    assert_eq!(heard, b"answer");
    Ok(())
}

#[tokio::test]
async fn each_direction_of_a_tcp_connection_ends_by_itself() -> Result<()> {
    let service = TcpListener::bind("127.0.0.1:0").await?;
    let served = served(TcpNetwork::new(tcp(service.local_addr()?.port()))).await?;
    let network = NetworkClient::new(served.driver());
    let client = network.connect().await?;
    half_close(client, service.accept().await?.0).await?;
    let client = network.connect().await?;
    half_close(service.accept().await?.0, client).await?;
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn each_direction_of_a_unix_connection_ends_by_itself() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("service");
    let service = UnixListener::bind(&path)?;
    let served = served(UnixNetwork::new(UnixNetworkConfig { path })).await?;
    let network = NetworkClient::new(served.driver());
    let client = network.connect().await?;
    half_close(client, service.accept().await?.0).await?;
    let client = network.connect().await?;
    half_close(service.accept().await?.0, client).await?;
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_reset_is_a_reset_at_the_other_end_and_no_end() -> Result<()> {
    let service = TcpListener::bind("127.0.0.1:0").await?;
    let served = served(TcpNetwork::new(tcp(service.local_addr()?.port()))).await?;
    let network = NetworkClient::new(served.driver());

    let mut client = network.connect().await?;
    let (peer, _) = service.accept().await?;
    peer.set_zero_linger()?;
    drop(peer);
    let error = client.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(error.to_string().contains("127.0.0.1"), "{error}");

    let mut client = network.connect().await?;
    let (mut peer, _) = service.accept().await?;
    client.write_all(b"x").await?;
    peer.read_exact(&mut [0]).await?;
    client.reset("enough");
    let error = peer.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_refused_connection_names_the_service() -> Result<()> {
    let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
    let served = served(TcpNetwork::new(tcp(port))).await?;
    let said = match NetworkClient::new(served.driver()).connect().await {
        Err(error) => error.to_string(),
        Ok(mut stream) => stream.read(&mut [0]).await.unwrap_err().to_string(),
    };
    assert!(said.contains(&format!("cannot connect to 127.0.0.1:{port}: ")), "{said}");
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn an_address_is_told_unless_it_is_not_to_be() -> Result<()> {
    let open = served(TcpNetwork::new(tcp(22))).await?;
    assert_eq!(NetworkClient::new(open.driver()).address().await?, "tcp://127.0.0.1:22");
    let config = TcpNetworkConfig { enable_address: false, host: "::1".to_owned(), ..tcp(22) };
    let (shut, echo) = (served(TcpNetwork::new(config)).await?, served(EchoNetwork).await?);
    for driver in [shut.driver(), echo.driver()] {
        let error = NetworkClient::new(driver).address().await.unwrap_err();
        assert!(matches!(error, CallError::Fault { .. }), "{error}");
    }
    open.shutdown().await?;
    shut.shutdown().await?;
    echo.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_datagram_goes_there_and_back() -> Result<()> {
    let service = UdpSocket::bind("127.0.0.1:0").await?;
    let config = UdpNetworkConfig {
        host: "127.0.0.1".to_owned(),
        port: service.local_addr()?.port(),
        enable_address: true,
    };
    let served = served(UdpNetwork::new(config)).await?;
    let mut client = NetworkClient::new(served.driver()).connect().await?;
    let mut buf = vec![0; 65_536];
    for size in [1, 1500, 9000] {
        client.write_all(&vec![7; size]).await?;
        let (received, from) = service.recv_from(&mut buf).await?;
        assert_eq!(received, size);
        service.send_to(&buf[..received], from).await?;
        client.read_exact(&mut buf[..size]).await?;
        if size == 9000 {
            client.shutdown().await?; // who sends no more still hears
            service.send_to(b"late", from).await?;
            client.read_exact(&mut buf[..4]).await?;
            assert_eq!(&buf[..4], b"late");
        }
    }
    drop(client);
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn an_echo_gives_everything_back_and_ends() -> Result<()> {
    let served = served(EchoNetwork).await?;
    let client = NetworkClient::new(served.driver()).connect().await?;
    let sent: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
    let (mut input, mut output) = tokio::io::split(client);
    let mut back = Vec::new();
    let (written, read) = tokio::join!(
        async {
            output.write_all(&sent).await?;
            output.shutdown().await
        },
        input.read_to_end(&mut back),
    );
    written?;
    read?;
    assert!(back == sent, "{} of {} bytes came back", back.len(), sent.len());
    served.shutdown().await?;
    Ok(())
}
