//! `jmp-bus events`: what happened.

use bus_schema::{Event, ExporterName};
use runtime::{Said, Since};
use serde_json::{Value as Json, json};

use crate::{
    advice::CliError,
    output::Output,
    session::Session,
    tail,
    told::{moment, printable, since},
};

/// Show what happened at exporters: who came and went, crashes, leases, what admins did.
///
/// A line each, oldest first. Events are kept for a time that the operator sets (30 days unless
/// another was given to `doctor --keep-events`).
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    /// Only of this exporter.
    exporter: Option<ExporterName>,
    /// Go on with what happens.
    #[arg(short, long)]
    follow: bool,
    /// Only what happened since then: `2h` ago, a time as `2026-11-25T08:00:00Z`, or `now`.
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let client = session.client().await?;
        let (exporter, since) = (self.exporter.as_ref(), self.since.unwrap_or(Since::Ever));
        let tail = match self.follow {
            true => client.follow_events(exporter, since).await?,
            false => client.events(exporter, since),
        };
        let out = session.out;
        tail::print(tail, self.follow, out, async |said| show(out, said).await).await
    }
}

async fn show(out: Output, said: Said<Event>) -> Result<(), CliError> {
    let Said { exporter, lost, message: event, .. } = said;
    if lost > 0 {
        let data = json!({ "exporter": exporter, "lost": lost });
        out.document(&data, || format!("[{lost} events of {exporter} lost]\n")).await?;
    }
    out.document(&as_json(&exporter, &event), || line(&exporter, &event)).await
}

fn as_json(exporter: &ExporterName, event: &Event) -> Json {
    let mut data = json!(event);
    data["exporter"] = json!(exporter);
    data["at"] = moment(event.at_ms).into();
    data
}

fn line(exporter: &ExporterName, event: &Event) -> String {
    let address = match event.path.as_str() {
        "" => exporter.to_string(),
        path => format!("{exporter}/{path}"),
    };
    let client = event.client.as_ref().map(|client| format!("  {client}")).unwrap_or_default();
    let reason = match event.reason.as_str() {
        "" => String::new(),
        reason => format!("  {reason}"),
    };
    let line = format!("{}  {address}  {}{client}{reason}", moment(event.at_ms), event.kind);
    printable(&line) + "\n"
}
