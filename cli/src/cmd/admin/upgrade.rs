//! `jmp-bus admin upgrade`: gives the roles the permissions of this version.

use runtime::Authority;
use serde_json::json;

use super::{broker, push::tell};
use crate::{advice::CliError, session::Session};

/// Give each role the permissions that this version of jmp-bus needs. The broker drops the
/// connections of roles that change; they come back by themselves.
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
        let roles = authority.outdated_roles()?;
        let words: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
        let done = self.yes && !roles.is_empty();
        if done {
            authority.renew_roles()?;
            let pushed = authority.push(&broker(session)?).await.map_err(CliError::NotPushed)?;
            tell(session, &pushed);
        }
        let data = json!({ "roles": words, "done": done });
        let text = || match (roles.is_empty(), done) {
            (true, _) => "every role has the permissions of this version\n".to_owned(),
            (false, true) => format!("changed: {}\n", words.join(", ")),
            (false, false) => {
                let words = words.join(", ");
                format!(
                    "would change: {words}; their connections are dropped and come back (--yes)\n"
                )
            }
        };
        session.out.document(&data, text).await
    }
}
