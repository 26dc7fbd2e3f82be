//! Figures over HTTP: just as much of HTTP/1.1 as a scraper needs, within bounds.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use runtime::Metrics;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Scrapers that are answered at the same time; more wait in the listener's queue.
const AT_ONCE: usize = 8;
/// Largest head of a request.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// A request is there within this time: those that say nothing must not keep others out.
const HEAD_WITHIN: Duration = Duration::from_secs(1);
/// A request and its answer take at most so long.
const WITHIN: Duration = Duration::from_secs(10);

/// Where to listen: a port of the loopback, unless another address is given.
pub(crate) fn address(typed: &str) -> Result<SocketAddr, String> {
    let port = typed.strip_prefix(':').unwrap_or(typed);
    if let Ok(port) = port.parse() {
        return Ok((IpAddr::from(Ipv4Addr::LOCALHOST), port).into());
    }
    typed.parse().map_err(|_| {
        "expected a port of the loopback (9464), or an address (0.0.0.0:9464, [::1]:9464)"
            .to_owned()
    })
}

/// Answers scrapers until it is dropped.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    listener: TcpListener,
}

impl Endpoint {
    pub(crate) async fn listen(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { address: listener.local_addr()?, listener })
    }

    /// Answers until `stop`; returns when the last answer is out. Cancel safe.
    pub(crate) async fn serve(self, metrics: Metrics, stop: CancellationToken) {
        let (tasks, room) = (TaskTracker::new(), Arc::new(Semaphore::new(AT_ONCE)));
        let _stop_on_drop = stop.clone().drop_guard();
        loop {
            let accept = async {
                let room = room.clone().acquire_owned().await.expect("it is never closed");
                (self.listener.accept().await, room)
            };
            let Some((accepted, room)) = stop.run_until_cancelled(accept).await else { break };
            let Ok((scraper, _)) = accepted else {
                // Out of file descriptors, perhaps: that passes, or not, without us.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (metrics, stop) = (metrics.clone(), stop.clone());
            tasks.spawn(async move {
                let answering = timeout(WITHIN, answer(scraper, &metrics));
                let _ = stop.run_until_cancelled(answering).await; // a scraper that is gone is gone
                drop(room);
            });
        }
        tasks.close();
        tasks.wait().await;
    }
}

async fn answer(mut scraper: TcpStream, metrics: &Metrics) -> io::Result<()> {
    let head = timeout(HEAD_WITHIN, read_head(&mut scraper)).await;
    let (status, body) = match head.map_err(|_elapsed| io::ErrorKind::TimedOut)?? {
        None => (Status::TooLarge, String::new()),
        Some(head) => respond(&head, metrics),
    };
    let head_only = status == Status::OkHead;
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{}Connection: close\r\n\r\n",
        status.line(),
        if status.is_ok() { "text/plain; version=0.0.4; charset=utf-8" } else { "text/plain" },
        if status.is_ok() { body.len() } else { status.line().len() + 1 },
        if status == Status::NotAllowed { "Allow: GET, HEAD\r\n" } else { "" },
    );
    scraper.write_all(head.as_bytes()).await?;
    match (status.is_ok(), head_only) {
        (true, true) => {}
        (true, false) => scraper.write_all(body.as_bytes()).await?,
        (false, _) => scraper.write_all(format!("{}\n", status.line()).as_bytes()).await?,
    }
    scraper.shutdown().await?;
    // What the scraper still says is read, or the answer might be torn away by a reset.
    let mut rest = [0; 1024];
    for _ in 0..64 {
        if scraper.read(&mut rest).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// The head of a request; `None` if it is too large.
async fn read_head(scraper: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let read = scraper.read(&mut buffer).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&buffer[..read]);
        if head.windows(4).any(|end| end == b"\r\n\r\n") {
            return Ok(Some(head));
        }
        if head.len() > HEAD_BYTES_MAX {
            return Ok(None);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ok,
    OkHead,
    Malformed,
    NotFound,
    NotAllowed,
    TooLarge,
}

impl Status {
    fn is_ok(self) -> bool {
        matches!(self, Self::Ok | Self::OkHead)
    }

    fn line(self) -> &'static str {
        match self {
            Self::Ok | Self::OkHead => "200 OK",
            Self::Malformed => "400 Bad Request",
            Self::NotFound => "404 Not Found: see /metrics",
            Self::NotAllowed => "405 Method Not Allowed",
            Self::TooLarge => "431 Request Header Fields Too Large",
        }
    }
}

fn respond(head: &[u8], metrics: &Metrics) -> (Status, String) {
    match wanted(head) {
        Ok(status) => (status, metrics.render()),
        Err(status) => (status, String::new()),
    }
}

/// What the first line of a head asks for.
fn wanted(head: &[u8]) -> Result<Status, Status> {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| Status::Malformed)?;
    let words: Vec<_> = line.split(' ').collect();
    let [method, target, version] = words[..] else { return Err(Status::Malformed) };
    if !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
        return Err(Status::Malformed);
    }
    let path = target.split('?').next().unwrap_or_default();
    match (method, path) {
        ("GET", "/metrics") => Ok(Status::Ok),
        ("HEAD", "/metrics") => Ok(Status::OkHead),
        ("GET" | "HEAD", _) => Err(Status::NotFound),
        _ => Err(Status::NotAllowed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_one_of_the_loopback() {
        for typed in ["9464", ":9464", "127.0.0.1:9464"] {
            assert_eq!(address(typed).unwrap().to_string(), "127.0.0.1:9464");
        }
        assert_eq!(address("[::1]:1").unwrap().to_string(), "[::1]:1");
        for bad in ["", "localhost", "99999", "1.2.3.4"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_what_a_scraper_asks_is_answered() {
        for (line, asked) in [
            ("GET /metrics HTTP/1.1", Ok(Status::Ok)),
            ("GET /metrics?x=1 HTTP/1.0", Ok(Status::Ok)),
            ("HEAD /metrics HTTP/1.1", Ok(Status::OkHead)),
            ("GET / HTTP/1.1", Err(Status::NotFound)),
            ("POST /metrics HTTP/1.1", Err(Status::NotAllowed)),
            ("GET /metrics", Err(Status::Malformed)),
            ("GET  /metrics HTTP/1.1", Err(Status::Malformed)),
            ("GET /metrics HTTP/2", Err(Status::Malformed)),
            ("\u{1}\u{0}", Err(Status::Malformed)),
            ("", Err(Status::Malformed)),
        ] {
            assert_eq!(wanted(format!("{line}\r\n\r\n").as_bytes()), asked, "{line:?}");
        }
        assert_eq!(wanted(b"\xff\xfe\r\n"), Err(Status::Malformed));
    }
}
