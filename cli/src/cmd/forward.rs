//! `jmp-bus forward`: a local port that is a stream of a driver.

use std::path::PathBuf;

use actors::{Portforward, StreamMethod};
use serde_json::json;

use crate::{
    advice::CliError,
    request::{Asked, has_one_of, words},
    session::Session,
};

/// Listen on a local port; each connection becomes a stream of a driver.
///
/// A connection that the driver refuses is closed, and told of on stderr; the others go on.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("listen").required(true))]
pub(crate) struct Cmd {
    #[command(flatten)]
    asked: Asked,
    /// The method: `connect`, or for --udp `datagrams`, if the driver has that.
    method: Option<String>,
    /// Words for it, as for `call`.
    #[arg(value_name = "WORD", allow_negative_numbers = true)]
    words: Vec<String>,
    /// Listen on this TCP port, of the loopback unless a host is named; 0 is any free port.
    #[arg(long, value_name = "[HOST:]PORT", group = "listen", value_parser = port)]
    tcp: Option<String>,
    /// Listen on this Unix socket, for this user only.
    #[arg(long, value_name = "PATH", group = "listen")]
    unix: Option<PathBuf>,
    /// Listen on this UDP port. Every address that sends there has a stream of its own.
    #[arg(long, value_name = "[HOST:]PORT", group = "listen", value_parser = port)]
    udp: Option<String>,
}

/// Where to listen, as it was typed.
fn port(typed: &str) -> Result<String, String> {
    match typed.rsplit(':').next().map(str::parse::<u16>) {
        Some(Ok(_)) => Ok(typed.to_owned()),
        _ => Err("a port is a number up to 65535: write 9080, or 127.0.0.1:9080".to_owned()),
    }
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let words = words(&self.words)?;
        let client = session.client().await?;
        let (driver, found) = self.asked.found(client).await?;
        let usual: &[&str] = match (&self.method, &self.udp) {
            (Some(method), _) => &[method],
            (None, Some(_)) => &["datagrams", "connect"],
            (None, None) => &["connect"],
        };
        if let Some(found) = &found {
            has_one_of(client, found, usual).await?;
        }
        let method = usual[0].to_owned();
        let mut stream = StreamMethod::named(driver, method);
        if !words.is_empty() {
            stream = stream.with_words(&words)?;
        }
        let adapter = match (self.tcp, self.udp) {
            (Some(at), _) => Portforward::Tcp(at),
            (_, Some(at)) => Portforward::Udp(at),
            _ => Portforward::Unix(self.unix),
        };
        let mut forwarded = stream.adapt(adapter).await?;
        let url = forwarded.local().to_string();
        session.out.document(&json!({ "listening": url }), || format!("{url}\n")).await?;
        loop {
            let trouble = forwarded.trouble().await;
            session.out.note(trouble);
        }
    }
}
