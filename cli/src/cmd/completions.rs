//! `jmp-bus completions`: for a shell.

use clap::CommandFactory as _;
use serde_json::json;

use crate::{advice::CliError, args::Top, session::Session};

/// Print the completions for a shell.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    /// The shell.
    shell: clap_complete::Shell,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Top::command(), "jmp-bus", &mut script);
        let script = String::from_utf8_lossy(&script).into_owned();
        let data = json!({ "shell": self.shell.to_string(), "script": script });
        session.out.document(&data, || script).await
    }
}
