//! `jmp-bus admin add`: credentials for somebody.

use std::{path::PathBuf, time::Duration};

use bus_schema::permission::Role;
use runtime::{Authority, NewUser};
use serde_json::json;

use crate::{advice::CliError, session::Session};

/// Sign credentials for a client, an observer, an admin or an exporter. The broker is not asked,
/// and nobody is disturbed.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    /// What it will be: client, observer, admin, exporter, or leaf (a broker at another site).
    role: Role,
    /// Its name. An exporter's is that in its configuration.
    name: String,
    /// Where the credentials go [default: NAME.creds here].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How long they are good for, such as 90d [default: until they are revoked].
    #[arg(long, value_name = "TIME", value_parser = crate::told::time)]
    expires: Option<Duration>,
    /// Give a name that has credentials a second key.
    #[arg(long)]
    again: bool,
}

impl Cmd {
    pub(crate) async fn run(
        self,
        session: &Session,
        mut authority: Authority,
    ) -> Result<(), CliError> {
        let Self { role, name, out, expires, again } = self;
        let file = out.unwrap_or_else(|| format!("{name}.creds").into());
        let request = NewUser { role, name: &name, lasts: expires, again, file: &file };
        let issued = authority.add(&request)?;
        let data = json!({
            "name": issued.user.name,
            "role": role.as_str(),
            "nkey": issued.user.nkey,
            "expires": issued.user.expires,
            "creds": issued.file,
        });
        let text = || format!("{}\n", issued.file.display());
        session.out.document(&data, text).await
    }
}
