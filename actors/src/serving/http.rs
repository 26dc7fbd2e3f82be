//! An HTTP server of the exporter, for boot loaders and installers.

use std::{convert::Infallible, io::SeekFrom, path::PathBuf, sync::Arc, time::Duration};

use bus_schema::{Describe, Fault, Interface, driver};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http_body_util::{BodyExt, Empty, StreamBody, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use runtime::{DriverKind, Resource, Site};
use serde::Deserialize;
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _},
    net::TcpListener,
    task::JoinSet,
};
use tokio_util::io::ReaderStream;

use super::{listen_at, port::Port, tree::ServedTree};

/// Connections at once; more wait.
const CONNECTIONS_MAX: usize = 256;
/// For the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

type Body = BoxBody<Bytes, std::io::Error>;

/// An HTTP server. It gives what was put into it, and takes nothing.
#[derive(Debug)]
pub struct HttpServer {
    tree: Arc<ServedTree>,
    port: Port,
}

/// The configuration of an [`HttpServer`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Describe)]
#[serde(default, deny_unknown_fields)]
pub struct HttpServerConfig {
    /// The directory that is served: one of the driver's own unless given.
    pub root_dir: Option<PathBuf>,
    /// The address to listen on: all of them unless given.
    pub host: Option<String>,
    /// The port: 8080 unless given; 0 for any that is free.
    pub port: u16,
    /// Whether what was put in is removed at the end.
    pub remove_created_on_close: bool,
}

impl Default for HttpServerConfig {
    fn default() -> Self {
        Self { root_dir: None, host: None, port: 8080, remove_created_on_close: true }
    }
}

#[driver(name = "http")]
impl HttpServer {
    /// Begins to serve. Does nothing if it does already.
    #[export]
    async fn start(&self) -> Result<(), Fault> {
        if self.port.is_open() {
            return Ok(());
        }
        let listener =
            TcpListener::bind(self.port.wanted()).await.map_err(|error| self.port.fault(error))?;
        let at = listener.local_addr().map_err(|error| self.port.fault(error))?;
        self.port.serve(at, accept(listener, self.tree.clone()));
        Ok(())
    }

    /// Ends serving, and frees the port.
    #[export]
    async fn stop(&self) -> Result<(), Fault> {
        self.port.close().await;
        Ok(())
    }

    /// Where it is.
    #[export]
    #[method(concurrent)]
    async fn get_url(&self) -> String {
        format!("http://{}", self.port.at())
    }

    /// The address that it listens on.
    #[export]
    #[method(concurrent)]
    async fn get_host(&self) -> Option<String> {
        Some(self.port.at().ip().to_string())
    }

    /// The port that it listens on.
    #[export]
    #[method(concurrent)]
    async fn get_port(&self) -> u16 {
        self.port.at().port()
    }

    /// Puts a file in, to be served; gives the number of bytes.
    #[export]
    #[method(deadline = "1h")]
    async fn put(
        &self,
        /// The path under which it is served.
        name: String,
        /// What is served.
        source: Resource,
    ) -> Result<u64, Fault> {
        self.tree.put(&name, source).await
    }

    /// Takes a file out.
    #[export]
    async fn remove(&self, name: String) -> Result<(), Fault> {
        self.tree.remove(&name)
    }

    /// What was put in.
    #[export]
    #[method(concurrent)]
    async fn files(&self) -> Vec<String> {
        self.tree.names()
    }

    #[safe]
    async fn make_safe(&self) -> Result<(), Fault> {
        let stopped = self.stop().await;
        self.tree.clear();
        stopped
    }
}

async fn accept(listener: TcpListener, tree: Arc<ServedTree>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        let Ok((tcp, _peer)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await; // out of descriptors
            continue;
        };
        let tree = tree.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| answer(tree.clone(), request));
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
            // A client that leaves is no news.
            let _ = http.serve_connection(TokioIo::new(tcp), service).await;
        });
    }
}

async fn answer(
    tree: Arc<ServedTree>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let answered = give(&tree, &request).await;
    Ok(answered.unwrap_or_else(|status| empty(status, &[])))
}

fn empty(status: StatusCode, headers: &[(header::HeaderName, String)]) -> Response<Body> {
    let body = Empty::new().map_err(|never: Infallible| match never {}).boxed();
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(body).expect("a status and numbers make a response")
}

async fn give(
    tree: &ServedTree,
    request: &Request<Incoming>,
) -> Result<Response<Body>, StatusCode> {
    let is_head = match *request.method() {
        Method::GET => false,
        Method::HEAD => true,
        _ => return Err(StatusCode::METHOD_NOT_ALLOWED),
    };
    let name = decoded(request.uri().path()).ok_or(StatusCode::BAD_REQUEST)?;
    let path = tree.inside(&name).map_err(|_outside| StatusCode::NOT_FOUND)?;
    let mut file = File::open(path).await.map_err(|_| StatusCode::NOT_FOUND)?;
    let about = file.metadata().await.map_err(|_| StatusCode::NOT_FOUND)?;
    if !about.is_file() {
        return Err(StatusCode::NOT_FOUND);
    }
    let whole = about.len();
    let asked = request.headers().get(header::RANGE).and_then(|range| range.to_str().ok());
    let (status, from, bytes) = match asked.and_then(|range| range_of(range, whole)) {
        None => (StatusCode::OK, 0, whole),
        Some(Some((from, bytes))) => (StatusCode::PARTIAL_CONTENT, from, bytes),
        Some(None) => {
            let range = (header::CONTENT_RANGE, format!("bytes */{whole}"));
            return Ok(empty(StatusCode::RANGE_NOT_SATISFIABLE, &[range]));
        }
    };
    let mut headers = vec![
        (header::CONTENT_LENGTH, bytes.to_string()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
    ];
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {from}-{}/{whole}", from + bytes - 1);
        headers.push((header::CONTENT_RANGE, range));
    }
    let mut response = empty(status, &headers);
    if !is_head {
        file.seek(SeekFrom::Start(from)).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        let stream = ReaderStream::with_capacity(file.take(bytes), 64 << 10);
        *response.body_mut() = BodyExt::boxed(StreamBody::new(stream.map_ok(Frame::data)));
    }
    Ok(response)
}

/// The first byte and the number of bytes that `range` asks for; `Some(None)` if there are none.
fn range_of(range: &str, whole: u64) -> Option<Option<(u64, u64)>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last.min(whole.checked_sub(1)?)),
        (Ok(first), _) if last.is_empty() => (first, whole.checked_sub(1)?),
        (_, Ok(tail)) if first.is_empty() => (whole.saturating_sub(tail), whole.checked_sub(1)?),
        _ => return None, // several ranges, or nonsense: all of it
    };
    Some((range.0 <= range.1).then(|| (range.0, range.1 - range.0 + 1)))
}

/// A path with `%20` and its like as what they stand for.
fn decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'%', [a, b, tail @ ..]) => {
                let hex = [*a, *b];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
                tail
            }
            (b'%', _) => return None,
            (byte, tail) => {
                bytes.push(*byte);
                tail
            }
        };
    }
    String::from_utf8(bytes).ok()
}

impl DriverKind for HttpServer {
    const KIND: &'static str = "http";
    const ALIASES: &'static [&'static str] = &["jumpstarter_driver_http.driver.HttpServer"];
    const HELP: &'static str = "An HTTP server that gives devices what clients lent.";
    type Config = HttpServerConfig;

    async fn open(config: HttpServerConfig, site: Site) -> Result<Self, Fault> {
        let root = match config.root_dir {
            Some(root) => root,
            None => site.state_dir()?.join("served"),
        };
        let at = listen_at(config.host.as_deref(), config.port)?;
        let tree = Arc::new(ServedTree::open(root, config.remove_created_on_close)?);
        Ok(Self { tree, port: Port::new(at) })
    }

    fn interfaces_of_kind() -> Vec<Arc<Interface>> {
        vec![HttpServerInterface::describe()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_the_standard_says() {
        for (range, wanted) in [
            ("bytes=0-4", Some(Some((0, 5)))),
            ("bytes=5-", Some(Some((5, 5)))),
            ("bytes=-3", Some(Some((7, 3)))),
            ("bytes=8-99", Some(Some((8, 2)))),
            ("bytes=-99", Some(Some((0, 10)))),
            ("bytes=10-", Some(None)),
            ("bytes=10-20", Some(None)),
            ("bytes=4-2", None),
            ("bytes=0-1,3-4", None),
            ("lines=1-2", None),
        ] {
            assert_eq!(range_of(range, 10), wanted, "{range}");
        }
        assert_eq!(range_of("bytes=0-", 0), None);
    }

    #[test]
    fn a_path_is_decoded_once() {
        assert_eq!(decoded("/a%20b").as_deref(), Some("/a b"));
        assert_eq!(decoded("/%252e").as_deref(), Some("/%2e"));
        for bad in ["/%", "/%2", "/%zz", "/%ff"] {
            assert_eq!(decoded(bad), None, "{bad}");
        }
    }
}
