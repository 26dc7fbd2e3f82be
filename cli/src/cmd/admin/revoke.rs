//! `jmp-bus admin revoke`: ends somebody's credentials.

use bus_schema::permission::Role;
use runtime::Authority;
use serde_json::json;

use super::{broker, push::tell};
use crate::{advice::CliError, session::Session};

/// End all credentials of a name. Live connections are cut at once.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    /// Whose.
    name: String,
    /// Only those of this role.
    #[arg(long)]
    role: Option<Role>,
}

impl Cmd {
    pub(crate) async fn run(
        self,
        session: &Session,
        mut authority: Authority,
    ) -> Result<(), CliError> {
        let revoked = authority.revoke(&self.name, self.role)?;
        // The revocation is kept; a broker that is away gets it with the next push.
        let pushed = authority.push(&broker(session)?).await;
        tell(session, &pushed.map_err(CliError::NotPushed)?);
        let data = json!({
            "name": self.name,
            "revoked": revoked.iter().map(|user| &user.nkey).collect::<Vec<_>>(),
        });
        let text = || match revoked.len() {
            0 => format!("{} was revoked already\n", self.name),
            1 => format!("{} is revoked\n", self.name),
            keys => format!("{} is revoked, with {keys} keys\n", self.name),
        };
        session.out.document(&data, text).await
    }
}
