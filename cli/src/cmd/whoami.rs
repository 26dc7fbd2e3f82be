//! `jmp-bus whoami`: who one is to the broker.

use serde_json::json;

use super::admin::date;
use crate::{advice::CliError, session::Session};

/// Show who one is by the credentials, or by --as where there are none. Nothing is connected to.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let settings = session.settings()?;
        let identity = settings.identity()?;
        let Some(identity) = identity else {
            let name = session.client_name(&settings)?;
            let data = json!({ "name": name, "proven": false, "servers": settings.servers });
            let text = || format!("{name}, as nothing proves or disproves\n");
            return session.out.document(&data, text).await;
        };
        if let Some(asked) =
            session.global.asked_for().filter(|asked| asked.as_str() != identity.name)
        {
            let (whose, wanted) = (identity.name, format!("those of {asked}"));
            return Err(CliError::NotYours { whose, wanted });
        }
        let mut data = serde_json::to_value(&identity)?;
        data["proven"] = true.into();
        data["expired"] = identity.is_expired().into();
        data["servers"] = json!(settings.servers);
        let role = identity.role.map_or("user", |role| role.as_str());
        let until = match identity.expires {
            None => String::new(),
            Some(at) if identity.is_expired() => format!(", expired on {}", date(at)),
            Some(at) => format!(", until {}", date(at)),
        };
        let text = || {
            let (name, nkey, account) = (&identity.name, &identity.nkey, &identity.account);
            format!("{name} ({role}{until})\nnkey     {nkey}\naccount  {account}\n")
        };
        session.out.document(&data, text).await
    }
}
