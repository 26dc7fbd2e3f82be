//! A URL that the exporter fetches itself: redirects that drop credentials, ranges and retry.

use std::{
    io::{self, Read as _},
    time::Duration,
};

use bus_schema::LentUrl;
use bytes::Bytes;
use tokio::{runtime::Handle, sync::oneshot};
use tokio_util::sync::CancellationToken;
use ureq::{
    Agent, Body,
    http::{HeaderMap, Response, StatusCode, Uri, header},
};

use super::{Extent, ResourceError, Sender, Source, stream::whole};
use crate::digest::Hasher;

/// Redirects that are followed.
const REDIRECTS_MAX: u32 = 10;
/// Attempts without a byte between them; each that brings some starts the count anew.
const ATTEMPTS_MAX: u32 = 4;
/// Before the second attempt; twice as long before each further one.
const PAUSE: Duration = Duration::from_millis(500);
/// For the connection, and between two bytes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes that are read at once.
const PIECE_BYTES: usize = 256 << 10;

/// Starts fetching. Gives the length, if the server says so.
pub(super) async fn start(
    source: Source,
    from: LentUrl,
    tx: Sender,
) -> Result<Option<u64>, ResourceError> {
    let Source { core, lent, stop, .. } = source;
    let (begun, beginning) = oneshot::channel();
    let runtime = Handle::current();
    core.tasks.spawn_blocking(move || {
        let hasher = lent.sha256.map(|_| Hasher::new());
        let mut fetch = Fetch { from, agent: agent(), runtime, stop, at: 0, of: None, hasher };
        let ended = fetch.run(begun, &tx);
        let ended = ended.and_then(|()| whole(&lent, fetch.at, fetch.hasher.take()));
        if let Err(error) = ended {
            let _ = tx.blocking_send(Err(error)); // nobody reads any more
        }
    });
    match beginning.await {
        Ok(bytes) => Ok(bytes),
        Err(_failed) => Ok(None), // the error comes in place of the first extent
    }
}

/// It follows nothing by itself and asks for no compression: both are ours to decide.
fn agent() -> Agent {
    let config = Agent::config_builder()
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .timeout_per_read(Some(PATIENCE))
        .accept_encoding("identity")
        .user_agent(concat!("jmp-bus/", env!("CARGO_PKG_VERSION")))
        .build();
    config.into()
}

struct Fetch {
    from: LentUrl,
    agent: Agent,
    runtime: Handle,
    stop: CancellationToken,
    /// Bytes so far.
    at: u64,
    /// What was begun: its length and what tells whether it is still the same.
    of: Option<Version>,
    hasher: Option<Hasher>,
}

#[derive(Clone)]
struct Version {
    bytes: Option<u64>,
    tag: Option<String>,
}

/// How an attempt went wrong.
enum Trouble {
    /// It may be better next time.
    Passing(String),
    /// It will not.
    Lasting(String),
}

use Trouble::{Lasting, Passing};

impl Fetch {
    fn run(
        &mut self,
        begun: oneshot::Sender<Option<u64>>,
        tx: &Sender,
    ) -> Result<(), ResourceError> {
        let (mut begun, mut attempt) = (Some(begun), 0);
        loop {
            let before = self.at;
            let why = match self.attempt(&mut begun, tx) {
                Ok(()) => return Ok(()),
                Err(Lasting(why)) => return Err(self.failed(why)),
                Err(Passing(why)) => why,
            };
            attempt = if self.at > before { 1 } else { attempt + 1 };
            if attempt >= ATTEMPTS_MAX {
                return Err(self.failed(why));
            }
            let pause = tokio::time::sleep(PAUSE * 2_u32.pow(attempt - 1));
            if self.runtime.block_on(self.stop.run_until_cancelled(pause)).is_none() {
                return Err(ResourceError::Over);
            }
        }
    }

    fn failed(&self, why: String) -> ResourceError {
        ResourceError::Fetch { url: self.from.shown(), why }
    }

    fn attempt(
        &mut self,
        begun: &mut Option<oneshot::Sender<Option<u64>>>,
        tx: &Sender,
    ) -> Result<(), Trouble> {
        let mut response = self.ask()?;
        let mut skip = self.accept(&response)?;
        if let Some(begun) = begun.take() {
            let _ = begun.send(self.of.as_ref().and_then(|of| of.bytes)); // or it was given up
        }
        let mut body = response.body_mut().with_config().limit(u64::MAX).reader();
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let len = match body.read(&mut piece) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Passing(error.to_string())),
            };
            if len == 0 {
                return self.ended();
            }
            piece.truncate(len);
            let already = skip.min(len as u64);
            skip -= already;
            let piece = Bytes::from(piece).slice(usize::try_from(already).expect("within it")..);
            self.at += piece.len() as u64;
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&piece);
            }
            if self.stop.is_cancelled() || tx.blocking_send(Ok(Extent::Data(piece))).is_err() {
                return Err(Lasting("nobody wants it any more".to_owned()));
            }
        }
    }

    fn ended(&self) -> Result<(), Trouble> {
        match self.of.as_ref().and_then(|of| of.bytes) {
            Some(bytes) if self.at < bytes => {
                Err(Passing(format!("it ended after {} of {bytes} bytes", self.at)))
            }
            _ => Ok(()),
        }
    }

    /// Asks for what is missing, and follows redirects. The caller's headers go to the origin that
    /// it named and to no other.
    fn ask(&self) -> Result<Response<Body>, Trouble> {
        let wrong = |error: ureq::http::uri::InvalidUri| Lasting(format!("its URL: {error}"));
        let first: Uri = self.from.url.parse().map_err(wrong)?;
        let mut uri = first.clone();
        for _ in 0..=REDIRECTS_MAX {
            let mut request = self.agent.get(&uri);
            if origin(&uri) == origin(&first) {
                for (name, value) in &self.from.headers {
                    request = request.header(name, value);
                }
            }
            if self.at > 0 {
                request = request.header(header::RANGE, format!("bytes={}-", self.at));
                if let Some(tag) = self.of.as_ref().and_then(|of| of.tag.clone()) {
                    request = request.header(header::IF_RANGE, tag);
                }
            }
            let response = request.call().map_err(|error| trouble(&error))?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            uri = next(&uri, response.headers())?;
        }
        Err(Lasting(format!("more than {REDIRECTS_MAX} redirects")))
    }

    /// Whether the answer is what was asked for. Gives how much of it is here already.
    fn accept(&mut self, response: &Response<Body>) -> Result<u64, Trouble> {
        let status = response.status();
        let version = Version::of(response);
        match (status, &self.of) {
            (StatusCode::OK, None) => {
                self.of = Some(version);
                Ok(0)
            }
            (StatusCode::PARTIAL_CONTENT, Some(_)) if starts_at(response.headers(), self.at) => {
                Ok(0)
            }
            // The server knows no ranges, but says that it is still the same.
            (StatusCode::OK, Some(of)) if of.tag.is_some() && of.tag == version.tag => Ok(self.at),
            (StatusCode::OK | StatusCode::PARTIAL_CONTENT, _) => Err(Lasting(
                "it has changed while it was fetched, or cannot be continued".to_owned(),
            )),
            (status, _) => {
                let again = status.is_server_error()
                    || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS]
                        .contains(&status);
                let why = format!("the server says {status}");
                Err(if again { Passing(why) } else { Lasting(why) })
            }
        }
    }
}

impl Version {
    fn of(response: &Response<Body>) -> Self {
        let text = |name| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        // A weak tag says that it is as good as the same, not that its bytes are.
        let strong = text(header::ETAG).filter(|tag| !tag.starts_with("W/"));
        Self {
            bytes: text(header::CONTENT_LENGTH).and_then(|bytes| bytes.parse().ok()),
            tag: strong.or_else(|| text(header::LAST_MODIFIED)),
        }
    }
}

fn starts_at(headers: &HeaderMap, at: u64) -> bool {
    let range = headers.get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {at}-")))
}

fn trouble(error: &ureq::Error) -> Trouble {
    match error {
        ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => {
            Passing(error.to_string())
        }
        ureq::Error::HostNotFound => Passing("there is no such host".to_owned()),
        _ => Lasting(error.to_string()),
    }
}

/// Scheme, host and port.
fn origin(uri: &Uri) -> (Option<String>, Option<String>, Option<u16>) {
    let usual = match uri.scheme_str() {
        Some("https") => Some(443),
        _ => Some(80),
    };
    let lower = |text: &str| text.to_ascii_lowercase();
    (uri.scheme_str().map(lower), uri.host().map(lower), uri.port_u16().or(usual))
}

/// Where a redirect leads.
fn next(from: &Uri, headers: &HeaderMap) -> Result<Uri, Trouble> {
    let wrong = |what: &str| Lasting(format!("a redirect {what}"));
    let to = headers.get(header::LOCATION).and_then(|to| to.to_str().ok());
    let to = to.ok_or_else(|| wrong("leads nowhere"))?;
    let scheme = from.scheme_str().unwrap_or("http");
    let authority = from.authority().map_or("", |authority| authority.as_str());
    let absolute = match to {
        to if to.contains("://") => to.to_owned(),
        to if to.starts_with("//") => format!("{scheme}:{to}"),
        to if to.starts_with('/') => format!("{scheme}://{authority}{to}"),
        to => {
            let dir = from.path().rsplit_once('/').map_or("", |(dir, _)| dir);
            format!("{scheme}://{authority}{dir}/{to}")
        }
    };
    let uri: Uri = absolute.parse().map_err(|_| wrong("leads to no URL"))?;
    match (from.scheme_str(), uri.scheme_str()) {
        (_, Some("https")) | (Some("http"), Some("http")) => Ok(uri),
        (Some("https"), Some("http")) => Err(wrong("leads from https to http")),
        _ => Err(wrong("leads to something that is not HTTP")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_is_read_as_a_browser_reads_it() {
        let from: Uri = "https://host:8443/a/b?c".parse().unwrap();
        let to = |location: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, location.parse().unwrap());
            next(&from, &headers).map(|uri| uri.to_string()).map_err(|_| ())
        };
        assert_eq!(to("/x"), Ok("https://host:8443/x".to_owned()));
        assert_eq!(to("x?y"), Ok("https://host:8443/a/x?y".to_owned()));
        assert_eq!(to("//other/x"), Ok("https://other/x".to_owned()));
        assert_eq!(to("https://other/x"), Ok("https://other/x".to_owned()));
        assert_eq!(to("http://host/x"), Err(()));
        assert_eq!(to("file:///etc/passwd"), Err(()));
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let is = |a: &str, b: &str| origin(&a.parse().unwrap()) == origin(&b.parse().unwrap());
        assert!(is("https://Host/a", "https://host:443/b"));
        assert!(!is("https://host/a", "https://host:8443/a"));
        assert!(!is("https://host/a", "http://host/a"));
        assert!(!is("https://host/a", "https://host.evil/a"));
    }
}
