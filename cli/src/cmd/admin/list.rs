//! `jmp-bus admin list`: who has credentials.

use std::time::{Duration, UNIX_EPOCH};

use runtime::{Authority, User};
use serde_json::json;

use crate::{advice::CliError, session::Session, table::table};

/// List who has credentials, or had.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    /// Leave out who cannot use the broker any more.
    #[arg(long)]
    valid: bool,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session, authority: Authority) -> Result<(), CliError> {
        let shown = |user: &&User| !self.valid || user.is_valid();
        let users: Vec<_> = authority.users().iter().filter(shown).collect();
        let data: Vec<_> = users.iter().map(|user| as_json(user)).collect();
        let text = || {
            let rows: Vec<_> = users.iter().map(|user| row(user)).collect();
            table(&rows)
        };
        session.out.document(&data, text).await
    }
}

fn as_json(user: &User) -> serde_json::Value {
    let User { name, role, nkey, issued, expires, revoked } = user;
    json!({
        "name": name,
        "role": role.as_str(),
        "nkey": nkey,
        "issued": issued,
        "expires": expires,
        "revoked": revoked,
        "valid": user.is_valid(),
    })
}

fn row(user: &User) -> [String; 5] {
    let state = match (user.revoked, user.expires) {
        (Some(at), _) => format!("revoked {}", date(at)),
        (None, Some(at)) if !user.is_valid() => format!("expired {}", date(at)),
        (None, Some(at)) => format!("until {}", date(at)),
        (None, None) => "valid".to_owned(),
    };
    let issued = format!("since {}", date(user.issued));
    [user.name.clone(), user.role.to_string(), issued, state, user.nkey.clone()]
}

/// The day, as everybody reads it.
pub(crate) fn date(seconds: u64) -> String {
    // A file that says more was not written by us; the year 2106 will do.
    let at = UNIX_EPOCH + Duration::from_secs(seconds.min(u64::from(u32::MAX)));
    humantime::format_rfc3339_seconds(at).to_string().chars().take(10).collect()
}
