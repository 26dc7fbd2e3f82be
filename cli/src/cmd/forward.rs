//! `jmp-bus forward`: a local port that is a stream of a driver.

use std::{path::PathBuf, time::Duration};

use bus_schema::{Target, Value};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde_json::json;
use tokio::io::copy_bidirectional;

use super::connect::open;
use crate::{
    advice::CliError,
    listener::{Listener, Local},
    request::{Asked, not_found, words},
    session::Session,
};

/// Listen on a local port; each connection becomes a stream of a driver.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    #[command(flatten)]
    asked: Asked,
    /// The method.
    #[arg(default_value = "connect")]
    method: String,
    /// Words for it, as for `call`.
    #[arg(value_name = "WORD", allow_negative_numbers = true)]
    words: Vec<String>,
    /// Listen on this TCP port, of the loopback unless a host is named; 0 is any free port.
    #[arg(long, value_name = "[HOST:]PORT", required_unless_present = "unix")]
    tcp: Option<String>,
    /// Listen on this Unix socket, for this user only.
    #[arg(long, value_name = "PATH", conflicts_with = "tcp")]
    unix: Option<PathBuf>,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let words = words(&self.words)?;
        self.is_there(session).await?;
        let listener = Listener::bind(self.tcp.as_deref(), self.unix.as_deref()).await?;
        let url = listener.to_string();
        session.out.document(&json!({ "listening": url }), || format!("{url}\n")).await?;
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(local) => connections.push(self.carry(session, &words, local)),
                    // Such as too many open files: it may pass.
                    Err(error) => {
                        session.out.note(format_args!("cannot accept a connection: {error}"));
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(ended) = connections.next() => {
                    if let Err(error) = ended {
                        session.out.note(error);
                    }
                }
            }
        }
    }

    /// Says so at once if nobody is there to be connected to.
    async fn is_there(&self, session: &Session) -> Result<(), CliError> {
        let client = session.client().await?;
        let there = match &self.asked.target {
            Target::Id(_) => client.registry().resolve(&self.asked.target).await?.is_some(),
            Target::Address(address) => {
                client.ping(&address.exporter, Duration::from_secs(2)).await.is_ok()
            }
        };
        match there {
            true => Ok(()),
            false => Err(not_found(client, &self.asked.target).await),
        }
    }

    /// One connection, until both halves have ended.
    async fn carry(
        &self,
        session: &Session,
        words: &[Value],
        mut local: Box<dyn Local>,
    ) -> Result<(), CliError> {
        let mut stream = open(session, &self.asked, &self.method, words).await?;
        match copy_bidirectional(&mut local, &mut stream).await {
            Ok(_) => Ok(()),
            // The local side hung up; the driver hears of it as the stream is dropped.
            Err(error) if error.get_ref().is_none() => Ok(()),
            Err(error) => Err(self.asked.cut(error)),
        }
    }
}
