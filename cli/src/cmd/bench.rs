//! `jmp-bus bench`: the project beside bare async-nats.

use bus_schema::Root;
use runtime::{Auth, BrokerOptions, LocalBroker, Settings};

use crate::{
    advice::CliError,
    bench::{Bench, PeerKind, ROWS, serve_as},
    session::Session,
};

/// A round of this scale takes hours in all.
const SCALE_MAX: f64 = 100.0;

/// Measure calls, streams and fan-out beside bare NATS, on a private broker or on --server's.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    /// Only these rows.
    #[arg(value_parser = ROWS)]
    rows: Vec<String>,
    /// Rounds of each row; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// How much work a round is: 1 takes some minutes in all.
    #[arg(long, default_value_t = 1.0, value_parser = scale)]
    scale: f64,
    /// Be the other side of one. (The bench starts these itself.)
    #[arg(long, hide = true)]
    peer: Option<String>,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        if let Some(peer) = &self.peer {
            return be_peer(session, peer).await;
        }
        let named = session.global.flags().server.is_some();
        let broker = match named {
            true => None,
            false => Some(LocalBroker::start(BrokerOptions::default()).await?),
        };
        let settings = match &broker {
            None => session.settings()?,
            Some(broker) => broker.connect_settings(),
        };
        let measured = self.measure(session, settings).await;
        if let Some(broker) = broker {
            broker.stop().await;
        }
        measured
    }

    async fn measure(&self, session: &Session, settings: Settings) -> Result<(), CliError> {
        let program = std::env::current_exe().map_err(|e| CliError::io("find this program", e))?;
        let root: Root = "bench".parse().expect("a name");
        let bench = Bench {
            environment: environment(&settings)?,
            settings,
            root,
            rounds: usize::from(self.rounds),
            scale: self.scale,
            only: self.rows.clone(),
            program: vec![program.display().to_string(), "bench".to_owned()],
        };
        let rows = bench.run(|row| session.out.note(row)).await.map_err(CliError::Bench)?;
        let data: serde_json::Map<_, _> = rows
            .iter()
            .map(|row| Ok((row.key.to_owned(), serde_json::to_value(row)?)))
            .collect::<Result<_, serde_json::Error>>()?;
        let text = || rows.iter().map(|row| format!("{row}\n")).collect();
        session.out.document(&data, text).await
    }
}

/// More work than none, and less than for ever.
fn scale(typed: &str) -> Result<f64, String> {
    match typed.parse::<f64>() {
        Ok(scale) if scale > 0.0 && scale <= SCALE_MAX => Ok(scale),
        _ => Err(format!("expected a number above 0, and at most {SCALE_MAX}")),
    }
}

/// How the other processes reach the broker.
fn environment(settings: &Settings) -> Result<Vec<(String, String)>, CliError> {
    let url = ("NATS_URL".to_owned(), settings.servers.join(","));
    match &settings.auth {
        Auth::None => Ok(vec![url]),
        Auth::Token(token) => Ok(vec![url, ("NATS_TOKEN".to_owned(), token.expose().to_owned())]),
        _ => {
            Err(CliError::Usage("the bench proves who it is by a token, or not at all".to_owned()))
        }
    }
}

async fn be_peer(session: &Session, peer: &str) -> Result<(), CliError> {
    let kind = PeerKind::ALL.into_iter().find(|kind| kind.as_str() == peer);
    let kind = kind.ok_or_else(|| CliError::Usage(format!("no peer is called {peer:?}")))?;
    let ready = || session.out.line_now("ready");
    serve_as(kind, session.settings()?, session.root(), ready).await.map_err(CliError::Bench)
}
