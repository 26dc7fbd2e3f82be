//! `jmp-bus describe`: what a driver can do.

use bus_schema::{DriverRecord, Interface, Target};
use serde_json::json;

use crate::{
    advice::CliError,
    request::not_found,
    session::Session,
    table::{indented, table},
};

/// Show a driver and its methods, with signatures and help.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    /// The driver: `exporter/child`, `@place/role`, or its UUID.
    target: Target,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let client = session.client().await?;
        let registry = client.registry();
        let target = client.settle(&self.target).await?;
        let Some(found) = registry.resolve(&target).await? else {
            return Err(not_found(client, &target).await);
        };
        let (record, exporter) = (&found.record, &found.exporter);
        let interfaces = registry.interfaces(record, exporter).await?;
        let tree = registry.tree(exporter).await?;
        let up = registry.exporters().await?.iter().any(|up| up.exporter == *exporter);
        if !up {
            session.out.note(format_args!("{exporter} is not up; this is what it said last"));
        }
        let data =
            json!({ "exporter": exporter, "up": up, "driver": record, "interfaces": interfaces });
        let text = || {
            let address = format!("{exporter}/{}", record.path);
            let address = address.trim_end_matches('/');
            head(address, record) + &methods(record, &interfaces) + &children(record, &tree)
        };
        session.out.document(&data, text).await
    }
}

fn head(address: &str, record: &DriverRecord) -> String {
    let mut text = format!("{address}  {}  {}\n", record.kind, record.id);
    if let Some(target) = &record.alias_of {
        text += &format!("  stands for {target}\n");
    }
    if !record.labels.is_empty() {
        let labels: Vec<_> = record.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        text += &format!("  {}\n", labels.join(","));
    }
    text + &indented(&record.description, 2)
}

/// Each interface with its methods; help of the configuration goes before that of the interface.
pub(crate) fn methods(record: &DriverRecord, interfaces: &[Interface]) -> String {
    let mut text = String::new();
    for interface in interfaces {
        text += &format!("\n{} v{}\n", interface.name, interface.version);
        text += &indented(&interface.help, 2);
        for method in &interface.methods {
            text += &format!("  {method}\n");
            let help = record.methods_description.get(&method.name).unwrap_or(&method.help);
            text += &indented(help, 6);
            for param in method.params.iter().filter(|param| !param.help.is_empty()) {
                text += &indented(&format!("{}: {}", param.name, param.help), 8);
            }
        }
    }
    text
}

fn children(record: &DriverRecord, tree: &[DriverRecord]) -> String {
    let prefix = if record.path.is_empty() { String::new() } else { format!("{}/", record.path) };
    let child = |other: &&DriverRecord| {
        let name = other.path.strip_prefix(&prefix);
        name.is_some_and(|name| !name.is_empty() && !name.contains('/'))
    };
    let row = |child: &DriverRecord| {
        [format!("  {}", child.path), child.kind.clone(), child.description.clone()]
    };
    let rows: Vec<_> = tree.iter().filter(child).map(row).collect();
    match rows.is_empty() {
        true => String::new(),
        false => format!("\nchildren\n{}", table(&rows)),
    }
}
