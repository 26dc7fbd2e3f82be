//! `jmp-bus exit-codes`: what the exit code of a command means.

use serde_json::json;

use crate::{
    advice::{CliError, EXIT_CODES},
    session::Session,
    table::table,
};

/// List the exit codes and what they mean.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let data: Vec<_> = EXIT_CODES
            .iter()
            .map(|(code, means)| json!({ "code": code, "means": means }))
            .collect();
        let rows: Vec<_> = EXIT_CODES
            .iter()
            .map(|(code, means)| [code.to_string(), (*means).to_owned()])
            .collect();
        session.out.document(&data, || table(&rows)).await
    }
}
