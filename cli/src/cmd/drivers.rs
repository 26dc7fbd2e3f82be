//! `jmp-bus drivers`: the kinds of driver that this program knows.

use bus_schema::{Interface, Type};
use runtime::{ChildrenRule, Kind};
use serde_json::{Value as Json, json};

use crate::{
    advice::CliError,
    session::Session,
    table::{indented, table},
};

/// List the kinds of driver that a configuration can name; or show one.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    /// The kind: its keys and its methods are shown.
    kind: Option<String>,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let kinds = &session.kinds;
        let Some(name) = &self.kind else {
            let data: Vec<_> = kinds.iter().map(as_json).collect();
            let row = |kind: &Kind| [kind.name.to_owned(), first_line(kind.help)];
            let rows: Vec<_> = kinds.iter().map(row).collect();
            return session.out.document(&data, || table(&rows)).await;
        };
        let Some(kind) = kinds.get(name) else {
            let instead = match kinds.near(name) {
                Some(near) => format!("did you mean {near}?"),
                None => "see `jmp-bus drivers`".to_owned(),
            };
            return Err(CliError::Usage(format!(
                "no kind of driver is called {name:?}; {instead}"
            )));
        };
        session.out.document(&as_json(kind), || shown(kind)).await
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn as_json(kind: &Kind) -> Json {
    let interfaces = (kind.interfaces)();
    json!({
        "kind": kind.name,
        "aliases": kind.aliases,
        "help": kind.help,
        "config": (kind.config)(),
        "children": children(kind.children),
        "runs_commands": kind.runs_commands,
        "interfaces": interfaces.iter().map(AsRef::as_ref).collect::<Vec<&Interface>>(),
    })
}

fn children(rule: ChildrenRule) -> &'static str {
    match rule {
        ChildrenRule::Own => "its own",
        ChildrenRule::Configured => "configured",
        ChildrenRule::None => "none",
    }
}

fn shown(kind: &Kind) -> String {
    let mut text = kind.name.to_owned();
    if !kind.aliases.is_empty() {
        text += &format!("  (also {})", kind.aliases.join(", "));
    }
    text += "\n";
    text += &indented(kind.help, 2);
    text += &format!("  children: {}\n", children(kind.children));
    if kind.runs_commands {
        text += "  runs commands on the exporter's host for whoever calls it\n";
    }
    match (kind.config)() {
        Type::Struct { fields, .. } if !fields.is_empty() => {
            text += "\nconfig\n";
            for field in fields {
                let needed = if field.optional { "" } else { "  (needed)" };
                text += &format!("  {field}{needed}\n");
                text += &indented(&field.help, 6);
            }
        }
        _ => text += "\nconfig: none\n",
    }
    for interface in (kind.interfaces)() {
        text += &format!("\n{} v{}\n", interface.name, interface.version);
        text += &indented(&interface.help, 2);
        for method in &interface.methods {
            text += &format!("  {method}\n");
            text += &indented(&method.help, 6);
        }
    }
    text
}
