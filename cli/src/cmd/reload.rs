//! `jmp-bus reload`: exporters read their configuration anew.

use bus_schema::ExporterName;
use futures_util::future::join_all;
use serde_json::json;

use crate::{advice::CliError, session::Session};

/// Makes exporters read their configuration anew. For admins.
///
/// What the file does not change goes on: drivers, calls, streams, leases. Where a driver is changed
/// or removed, the lease of its board ends first. A file that is not valid changes nothing.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    /// The exporters.
    #[arg(required = true, value_name = "EXPORTER")]
    exporters: Vec<ExporterName>,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let client = session.client().await?;
        let reload = async |exporter: &ExporterName| client.reload(exporter).await;
        let done = join_all(self.exporters.iter().map(reload)).await;
        let (mut data, mut text, mut failed) = (Vec::new(), String::new(), None);
        for (exporter, done) in self.exporters.iter().zip(done) {
            match done {
                Ok(done) => {
                    text += &format!("{exporter}: {done}\n");
                    data.push(json!({ "exporter": exporter, "done": done }));
                }
                Err(error) if failed.is_none() => failed = Some(error),
                Err(error) => session.out.note(error),
            }
        }
        if !data.is_empty() {
            session.out.document(&data, || text).await?;
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}
