//! `jmp-bus check`: whether a configuration is valid.

use std::path::PathBuf;

use runtime::{Config, Node};
use serde_json::json;

use crate::{advice::CliError, session::Session};

/// Check an exporter's configuration. Nothing is opened or connected to.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    /// The configuration.
    file: PathBuf,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let state_dir = session.state_dir(None, "check");
        let config = match Config::read(&self.file, &session.kinds, &state_dir) {
            Ok(config) => config,
            Err(errors) => {
                if !session.out.is_for_people() {
                    let problems: Vec<_> = errors.0.iter().map(as_json).collect();
                    let data = json!({ "valid": false, "problems": problems });
                    session.out.document(&data, String::new).await?;
                }
                return Err(errors.into());
            }
        };
        for warning in &config.warnings {
            session.out.note(warning);
        }
        let drivers = count(&config.root);
        let warnings: Vec<_> = config.warnings.iter().map(as_json).collect();
        let data = json!({
            "valid": true,
            "exporter": config.name,
            "drivers": drivers,
            "warnings": warnings,
        });
        let text = || format!("ok: exporter {}, {drivers} drivers\n", config.name);
        session.out.document(&data, text).await
    }
}

fn as_json(problem: &runtime::Problem) -> serde_json::Value {
    let runtime::Problem { file, line, column, path, text, suggestion } = problem;
    json!({
        "file": file,
        "line": line,
        "column": column,
        "path": path,
        "problem": text,
        "suggestion": suggestion,
    })
}

/// The drivers of a tree.
pub(crate) fn count(node: &Node) -> usize {
    1 + node.children.values().map(count).sum::<usize>()
}
