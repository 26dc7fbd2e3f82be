//! What the exporter's servers give to devices, and what they leave behind.

#![cfg(feature = "serving")]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use actors::{
    kinds,
    serving::{HttpServerClient, TftpClient},
};
use bus_schema::FaultKind;
use runtime::{CallError, Config, DriverRef, Lend, Served, serve};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
};

struct Lab {
    dir: TempDir,
    served: Served,
    http: HttpServerClient<DriverRef>,
    tftp: TftpClient<DriverRef>,
}

impl Lab {
    async fn start() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let root = |name: &str| dir.path().join(name).display().to_string();
        let yaml = format!(
            "name: lab\nexport:\n  \
             http: {{type: http, config: {{root_dir: {}, host: 127.0.0.1, port: 0}}}}\n  \
             tftp: {{type: tftp, config: {{root_dir: {}, host: 127.0.0.1, port: 0}}}}\n",
            root("http"),
            root("tftp")
        );
        let config = Config::parse(&yaml, "lab.yaml", &kinds(), dir.path())?;
        let served = serve(config.root).await.map_err(anyhow::Error::from_boxed)?;
        let http = HttpServerClient::new(served.child("http"));
        let tftp = TftpClient::new(served.child("tftp"));
        Ok(Self { dir, served, http, tftp })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn fault(error: CallError) -> (FaultKind, String) {
    match error {
        CallError::Fault { fault, .. } => (fault.kind, fault.text),
        other => panic!("no fault: {other:?}"),
    }
}

/// One HTTP request, and everything that comes back.
async fn http(at: SocketAddr, request: &str) -> anyhow::Result<String> {
    let mut tcp = TcpStream::connect(at).await?;
    tcp.write_all(format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut all = Vec::new();
    tcp.read_to_end(&mut all).await?;
    Ok(String::from_utf8_lossy(&all).into_owned())
}

#[tokio::test]
async fn what_was_lent_is_served_by_http_with_ranges() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    lab.http.start().await?;
    lab.http.start().await?; // does nothing to one that serves
    let at = SocketAddr::from(([127, 0, 0, 1], lab.http.get_port().await?));
    assert_eq!(lab.http.get_url().await?, format!("http://{at}"));
    assert_eq!(lab.http.put("boot/a b.txt".to_owned(), Lend::bytes("0123456789")).await?, 10);
    let whole = http(at, "GET /boot/a%20b.txt HTTP/1.1").await?;
    assert!(whole.starts_with("HTTP/1.1 200") && whole.ends_with("\r\n\r\n0123456789"), "{whole}");
    let part = http(at, "GET /boot/a%20b.txt HTTP/1.1\r\nRange: bytes=3-5").await?;
    assert!(part.starts_with("HTTP/1.1 206") && part.ends_with("345"), "{part}");
    assert!(part.to_ascii_lowercase().contains("content-range: bytes 3-5/10"), "{part}");
    let head = http(at, "HEAD /boot/a%20b.txt HTTP/1.1").await?;
    assert!(head.to_ascii_lowercase().contains("content-length: 10") && head.ends_with("\r\n\r\n"));
    for (request, status) in [
        ("GET /nothing HTTP/1.1", "404"),
        ("GET /boot HTTP/1.1", "404"),
        ("GET /../lab.yaml HTTP/1.1", "404"),
        ("GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1", "404"),
        ("GET /boot/a%20b.txt HTTP/1.1\r\nRange: bytes=10-", "416"),
        ("PUT /new HTTP/1.1", "405"),
    ] {
        let answer = http(at, request).await?;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
    }
    lab.http.stop().await?;
    assert!(TcpStream::connect(at).await.is_err(), "the port is free again");
    lab.served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn what_was_put_in_goes_with_the_server_and_what_was_there_stays() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    std::fs::write(lab.path("http/mine"), b"stays")?;
    lab.http.put("a/b/c".to_owned(), Lend::bytes("x")).await?;
    lab.http.put("gone".to_owned(), Lend::bytes("x")).await?;
    lab.http.remove("gone".to_owned()).await?;
    assert_eq!(lab.http.files().await?, ["a/b/c"]);
    assert!(!lab.path("http/gone").exists() && lab.path("http/a/b/c").exists());
    let broken = Lend::bytes("short").packed(bus_schema::Packing::Gzip);
    let (kind, _) = fault(lab.http.put("half".to_owned(), broken).await.unwrap_err());
    assert_eq!(kind, FaultKind::Resource);
    let left = std::fs::read_dir(lab.path("http"))?.count();
    assert_eq!(left, 2, "a half file was left");
    for bad in ["../x", "/", "a/../../x", ""] {
        let (kind, text) = fault(lab.http.put(bad.to_owned(), Lend::bytes("x")).await.unwrap_err());
        assert!(kind == FaultKind::Argument && text.contains("no path inside"), "{bad}: {text}");
    }
    let root = lab.path("http");
    lab.served.shutdown().await?;
    let left: Vec<_> =
        std::fs::read_dir(&root)?.map(|e| e.map(|e| e.file_name())).collect::<Result<_, _>>()?;
    assert_eq!(left, ["mine"]);
    Ok(())
}

/// Fetches a file by TFTP, in blocks of 512 bytes.
async fn tftp(port: u16, name: &str) -> anyhow::Result<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let request = [&b"\0\x01"[..], name.as_bytes(), b"\0octet\0"].concat();
    socket.send_to(&request, ("127.0.0.1", port)).await?;
    let (mut all, mut packet) = (Vec::new(), [0; 600]);
    for block in 1_u16.. {
        let (len, peer) = socket.recv_from(&mut packet).await?;
        anyhow::ensure!(packet[1] == 3, "error: {}", String::from_utf8_lossy(&packet[4..len]));
        anyhow::ensure!(packet[2..4] == block.to_be_bytes(), "block {block}");
        all.extend_from_slice(&packet[4..len]);
        socket.send_to(&[0, 4, packet[2], packet[3]], peer).await?;
        if len < 516 {
            break;
        }
    }
    Ok(all)
}

#[tokio::test]
async fn what_was_lent_is_served_by_tftp() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let image: Vec<u8> = (0..70_000_u32).map(|at| at as u8).collect();
    lab.tftp.put("boot/Image".to_owned(), Lend::bytes(image.clone())).await?;
    lab.tftp.start().await?;
    let port = lab.tftp.get_port().await?;
    assert!(tftp(port, "boot/Image").await? == image);
    for bad in ["nothing", "../http/x", "/etc/passwd"] {
        assert!(tftp(port, bad).await.is_err(), "{bad}");
    }
    lab.tftp.stop().await?;
    assert!(UdpSocket::bind(("127.0.0.1", port)).await.is_ok(), "the port is free again");
    assert!(Path::new(&lab.path("tftp/boot/Image")).exists());
    let root = lab.path("tftp");
    lab.served.shutdown().await?;
    assert_eq!(std::fs::read_dir(&root)?.count(), 0);
    Ok(())
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    let yaml = format!(
        "name: lab\nexport:\n  http: {{type: http, config: {{host: 127.0.0.1, port: {port}}}}}\n"
    );
    let config = Config::parse(&yaml, "lab.yaml", &kinds(), lab.dir.path())?;
    let served = serve(config.root).await.map_err(anyhow::Error::from_boxed)?;
    let http = HttpServerClient::new(served.child("http"));
    let (kind, text) = fault(http.start().await.unwrap_err());
    assert!(kind == FaultKind::Io && text.contains(&format!("127.0.0.1:{port}")), "{text}");
    served.shutdown().await?;
    lab.served.shutdown().await?;
    Ok(())
}
