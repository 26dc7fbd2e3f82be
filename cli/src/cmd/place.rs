//! `jmp-bus place`: named sets of drivers over several exporters.

use std::{collections::BTreeSet, path::PathBuf};

use bus_schema::{ExporterName, Place, PlaceName, Selector};
use runtime::{Client, read_places};
use serde_json::json;

use crate::{advice::CliError, session::Session, table::table, told::printable};

/// Places: named sets of drivers, over any number of exporters.
///
/// `@place/role` is an address in every command, `@place` can be leased as a whole.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Write the places of a file down, over those with the same names. It takes an admin's rights.
    ///
    /// The file has lines `name: {role: address, …}`, with `labels` and a `description` if wanted.
    Apply {
        /// The file.
        file: PathBuf,
    },
    /// List the places and their drivers.
    List {
        /// Only places with these labels: `board=rpi4,rack!=3`.
        #[arg(short = 'l', long)]
        selector: Option<Selector>,
    },
    /// Let places be no more. It takes an admin's rights.
    Remove {
        /// Their names.
        #[arg(required = true, value_parser = name)]
        places: Vec<PlaceName>,
    },
}

/// A place's name, with or without its `@`.
fn name(typed: &str) -> Result<PlaceName, bus_schema::NameError> {
    typed.strip_prefix('@').unwrap_or(typed).parse()
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        match self.action {
            Action::Apply { file } => {
                let places = read_places(&file).map_err(CliError::Places)?;
                apply(session, places).await
            }
            Action::List { selector } => list(session, selector).await,
            Action::Remove { places } => remove(session, places).await,
        }
    }
}

async fn apply(session: &Session, places: Vec<Place>) -> Result<(), CliError> {
    let client = session.client().await?;
    for place in &places {
        client.write_place(place).await?;
    }
    warn_of_strangers(session, client, &places).await;
    let text = || places.iter().map(|place| format!("@{} applied\n", place.name)).collect();
    session.out.document(&json!({ "applied": places }), text).await
}

/// Says which addresses name no driver that the registry knows: a typing error, or an exporter
/// that is not up yet.
async fn warn_of_strangers(session: &Session, client: &Client, places: &[Place]) {
    let exporters: BTreeSet<ExporterName> = places
        .iter()
        .flat_map(|place| place.roles.iter().map(|(_, address)| address.exporter.clone()))
        .collect();
    let mut known = BTreeSet::new();
    for exporter in exporters {
        let Ok(tree) = client.registry().tree(&exporter).await else {
            return session.out.note("whether the addresses exist is not known: no registry");
        };
        let address = |path: &str| match path {
            "" => exporter.to_string(),
            path => format!("{exporter}/{path}"),
        };
        known.extend(tree.iter().map(|record| address(&record.path)));
    }
    for place in places {
        for (role, address) in place.roles.iter() {
            if !known.contains(&address.to_string()) {
                let at = format!("@{}/{role}", place.name);
                session.out.note(format_args!("{at}: no exporter has a driver {address} (yet)"));
            }
        }
    }
}

async fn list(session: &Session, selector: Option<Selector>) -> Result<(), CliError> {
    let mut places = session.client().await?.places().await?;
    places.retain(|place| selector.as_ref().is_none_or(|wanted| wanted.matches(&place.labels)));
    let text = || places.iter().map(shown).collect();
    session.out.document(&places, text).await?;
    if places.is_empty() {
        session.out.note("there are no places; an admin makes them with `jmp-bus place apply`");
    }
    Ok(())
}

fn shown(place: &Place) -> String {
    let labels: Vec<_> = place.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let head = [format!("@{}", place.name), labels.join(","), printable(&place.description)];
    let row =
        |(role, address): (_, &bus_schema::Address)| [format!("  {role}"), address.to_string()];
    table(&[head.map(|cell| printable(&cell))])
        + &table(&place.roles.iter().map(row).collect::<Vec<_>>())
}

async fn remove(session: &Session, places: Vec<PlaceName>) -> Result<(), CliError> {
    let client = session.client().await?;
    for name in &places {
        client.remove_place(name).await?;
    }
    let text = || places.iter().map(|name| format!("@{name} removed\n")).collect();
    session.out.document(&json!({ "removed": places }), text).await
}
