//! `jmp-bus list`: exporters and their trees.

use std::collections::BTreeMap;

use bus_schema::{DriverRecord, ExporterName, Presence, Selector, State};
use runtime::{Change, Registry, Why};
use serde_json::{Value as Json, json};

use crate::{
    advice::CliError,
    output::Output,
    session::Session,
    table::{span, table},
};

/// List the exporters that are there, and their drivers.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    /// Only drivers with these labels: `board=rpi4,rack!=3`.
    #[arg(short = 'l', long)]
    selector: Option<Selector>,
    /// Go on: a line for each exporter that comes, changes or goes.
    #[arg(long, conflicts_with = "selector")]
    watch: bool,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let registry = session.client().await?.registry();
        if self.watch {
            return session.out.while_read(watch(&registry, session.out)).await;
        }
        let listed = self.listed(&registry).await?;
        let data: Vec<_> = listed.iter().map(as_json).collect();
        let text = || match listed.as_slice() {
            [] => String::new(),
            listed => listed.iter().map(|(presence, drivers)| tree(presence, drivers)).collect(),
        };
        session.out.document(&data, text).await?;
        match &self.selector {
            Some(selector) if listed.is_empty() => {
                session.out.note(format_args!("no driver here has {selector}"));
            }
            None if listed.is_empty() => {
                session.out.note("nothing is there; start an exporter with `jmp-bus serve`");
            }
            _ => {}
        }
        Ok(())
    }

    async fn listed(
        &self,
        registry: &Registry,
    ) -> Result<Vec<(Presence, Vec<DriverRecord>)>, CliError> {
        let mut listed = Vec::new();
        let exporters = registry.exporters().await?;
        match &self.selector {
            None => {
                for presence in exporters {
                    let tree = registry.tree(&presence.exporter).await?;
                    listed.push((presence, tree));
                }
            }
            Some(selector) => {
                let mut found: BTreeMap<ExporterName, Vec<DriverRecord>> = BTreeMap::new();
                for driver in registry.select(selector).await? {
                    found.entry(driver.exporter).or_default().push(driver.record);
                }
                let with = |presence: Presence| {
                    let drivers = found.remove(&presence.exporter)?;
                    Some((presence, drivers))
                };
                listed.extend(exporters.into_iter().filter_map(with));
            }
        }
        Ok(listed)
    }
}

fn as_json((presence, drivers): &(Presence, Vec<DriverRecord>)) -> Json {
    let mut data = json!(presence);
    data["drivers"] = json!(drivers);
    data
}

fn state(presence: &Presence) -> &'static str {
    match presence.state {
        State::Up => "up",
        State::Draining => "draining",
        State::Left => "left",
    }
}

/// The labels of `labels` that `above` has not, in one cell.
fn labels(labels: &BTreeMap<String, String>, above: &BTreeMap<String, String>) -> String {
    let own = labels.iter().filter(|(key, value)| above.get(*key) != Some(value));
    own.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// An exporter, and its drivers below it.
fn tree(presence: &Presence, drivers: &[DriverRecord]) -> String {
    let now_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    let up = span(now_ms.saturating_sub(presence.started_ms) / 1000);
    let head = [
        presence.exporter.to_string(),
        format!("{} for {up} on {}", state(presence), presence.host),
        labels(&presence.labels, &BTreeMap::new()),
    ];
    let row = |record: &DriverRecord| {
        let interfaces: Vec<_> = record.interfaces.iter().map(|(name, _)| name.as_str()).collect();
        let kind = match &record.alias_of {
            Some(target) => format!("-> {target}"),
            None => record.kind.clone(),
        };
        let more = [labels(&record.labels, &presence.labels), record.description.clone()];
        [
            format!("  {}", record.path),
            kind,
            interfaces.join(","),
            more.join("  ").trim().to_owned(),
        ]
    };
    let rows: Vec<_> = drivers.iter().filter(|record| !record.path.is_empty()).map(row).collect();
    table(&[head]) + &table(&rows)
}

async fn watch(registry: &Registry, out: Output) -> Result<(), CliError> {
    let mut watch = registry.watch().await?;
    while let Some(change) = watch.next().await {
        let (data, text) = match change {
            Change::Here(presence) => (json!({ "here": presence }), told("here", &presence)),
            Change::Changed(presence) => {
                (json!({ "changed": presence }), told("changed", &presence))
            }
            Change::Gone(exporter, why) => {
                let (word, why) = match why {
                    Why::Left => ("left", "it said goodbye".to_owned()),
                    Why::Silent => ("silent", "it has not been heard of".to_owned()),
                    Why::Replaced(by) => ("replaced", format!("replaced by {by}")),
                };
                let data = json!({ "gone": { "exporter": exporter, "why": word } });
                (data, format!("gone     {exporter}  {why}\n"))
            }
        };
        out.document(&data, || text).await?;
    }
    Err(runtime::BusError::Closed.into())
}

fn told(what: &str, presence: &Presence) -> String {
    let Presence { exporter, host, drivers, .. } = presence;
    format!("{what:<7}  {exporter}  {}, {drivers} drivers, on {host}\n", state(presence))
}
