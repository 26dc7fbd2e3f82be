//! `jmp-bus logs`: what exporters and their drivers say.

use bus_schema::{Address, ExporterName, Level, LogLines, Path, Target};
use runtime::{Client, Said, Since};
use serde_json::json;

use crate::{
    advice::CliError,
    output::Output,
    request::not_found,
    session::Session,
    tail,
    told::{moment, printable, since},
};

/// Show the logs of exporters and their drivers.
///
/// A line each, oldest first. Any number of readers sees all of it. Logs are kept for a time that
/// the operator sets (3 days unless another was given to `doctor --keep-logs`).
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    /// Only of this exporter, or of this driver and what is below it: `exporter/child`.
    target: Option<Target>,
    /// Go on with what is said.
    #[arg(short, long)]
    follow: bool,
    /// Only what matters at least so much: error, warn, info, debug, trace.
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = level)]
    level: Level,
    /// Only what was said since then: `2h` ago, a time as `2026-11-25T08:00:00Z`, or `now`.
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
}

fn level(typed: &str) -> Result<Level, String> {
    let found = Level::ALL.iter().find(|level| level.as_str() == typed);
    found.copied().ok_or_else(|| "expected error, warn, info, debug or trace".to_owned())
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let client = session.client().await?;
        let (exporter, path) = self.of(client).await?;
        let since = self.since.unwrap_or(Since::Ever);
        let tail = match self.follow {
            true => client.follow_logs(exporter.as_ref(), None, since).await?,
            false => client.logs(exporter.as_ref(), None, since),
        };
        let shown = Shown { out: session.out, level: self.level, below: path.to_string() };
        let show = async |said| shown.show(said).await;
        tail::print(tail, self.follow, session.out, show).await
    }

    /// Whose logs. A driver has to be there, or to have been: a typing error would show nothing.
    async fn of(&self, client: &Client) -> Result<(Option<ExporterName>, Path), CliError> {
        let Some(target) = &self.target else { return Ok((None, Path::ROOT)) };
        let target = &client.settle(target).await?;
        if let Target::Address(Address { exporter, path }) = target
            && path.is_root()
        {
            return Ok((Some(exporter.clone()), Path::ROOT));
        }
        let found = client.registry().resolve(target).await?;
        let Some(Ok(address)) = found.map(|found| found.address()) else {
            return Err(not_found(client, target).await);
        };
        Ok((Some(address.exporter), address.path))
    }
}

struct Shown {
    out: Output,
    level: Level,
    below: String,
}

impl Shown {
    async fn show(&self, said: Said<LogLines>) -> Result<(), CliError> {
        let Said { exporter, lost, message: LogLines { path, lines, .. }, .. } = said;
        let rest = path.strip_prefix(self.below.as_str());
        if !rest
            .is_some_and(|rest| self.below.is_empty() || rest.is_empty() || rest.starts_with('/'))
        {
            return Ok(());
        }
        let address = match path.as_str() {
            "" => exporter.to_string(),
            path => format!("{exporter}/{path}"),
        };
        if lost > 0 {
            let data = json!({ "exporter": exporter, "path": path, "lost": lost });
            let text = || format!("[{lost} lines lost]  {}\n", printable(&address));
            self.out.document(&data, text).await?;
        }
        for line in lines.iter().filter(|line| line.level <= self.level) {
            let at = moment(line.at_ms);
            let data = json!({
                "exporter": exporter,
                "path": path,
                "at": at,
                "at_ms": line.at_ms,
                "level": line.level,
                "text": line.text,
            });
            let text = format!("{at}  {:<5}  {address}  {}", line.level, line.text);
            self.out.document(&data, || printable(&text) + "\n").await?;
        }
        Ok(())
    }
}
