//! `jmp-bus admin streams`: makes what JetStream keeps for the fleet.

use runtime::Authority;
use serde_json::json;

use super::broker;
use crate::{advice::CliError, session::Session};

/// Make the JetStream streams on the broker, or find them as they must be.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    /// Nodes of a cluster that each stream is kept on: 1, 3 or 5.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: u8,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session, authority: Authority) -> Result<(), CliError> {
        authority.make_streams(&broker(session)?, self.replicas).await?;
        let root = authority.root();
        let data = json!({ "root": root, "replicas": self.replicas });
        let text = || format!("the streams of {root} are as they must be\n");
        session.out.document(&data, text).await
    }
}
