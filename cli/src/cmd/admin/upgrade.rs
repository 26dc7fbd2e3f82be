//! `jmp-bus admin upgrade`: gives roles and accounts what this version needs.

use runtime::Authority;
use serde_json::json;

use super::{broker, push::tell};
use crate::{advice::CliError, session::Session};

/// Give each role the permissions, and JetStream the account, that this version of jmp-bus needs.
/// The broker drops the connections of roles that change; they come back by themselves.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    /// Do it. Without this, what would change is shown.
    #[arg(long)]
    yes: bool,
}

impl Cmd {
    pub(crate) async fn run(
        self,
        session: &Session,
        mut authority: Authority,
    ) -> Result<(), CliError> {
        let outdated = authority.outdated()?;
        let done = self.yes && !outdated.is_empty();
        if done {
            authority.renew()?;
            let pushed = authority.push(&broker(session)?).await.map_err(CliError::NotPushed)?;
            tell(session, &pushed);
        }
        let words: Vec<_> = outdated.roles.iter().map(|role| role.as_str()).collect();
        let data = json!({ "roles": words, "store": outdated.store, "done": done });
        session.out.document(&data, || shown(&words, outdated.store, done)).await
    }
}

fn shown(roles: &[&str], store: bool, done: bool) -> String {
    let mut text = String::new();
    if !roles.is_empty() {
        let roles = roles.join(", ");
        text += &match done {
            true => format!("changed: {roles}\n"),
            false => format!(
                "would change: {roles}; their connections are dropped and come back (--yes)\n"
            ),
        };
    }
    if store {
        text += match done {
            true => "JetStream moves when the broker is restarted; then: jmp-bus admin streams\n",
            false => {
                "would move JetStream to an account of its own, where its streams are made anew \
                 (--yes); see deploy/README.md\n"
            }
        };
    }
    match text.is_empty() {
        true => "the broker's accounts are those of this version\n".to_owned(),
        false => text,
    }
}
