//! What the broker denies the exporter, for its log: nobody else would tell its operator.

use std::sync::Arc;

use bus_schema::subject::FromExporter;
use tokio::sync::broadcast::error::RecvError;

use super::core::Core;
use crate::bus::{Denial, Denials};

/// Logs it until the exporter stops.
pub(crate) async fn log(core: Arc<Core>, denials: Denials) {
    let mut denied = denials.listen();
    let mut is_in = true;
    loop {
        tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            denial = denied.recv() => match denial {
                // A line about a line that cannot be published would be one for ever.
                Ok(Denial { subject, .. }) if is_log(&core, &subject) => {}
                Ok(Denial { action, subject }) => {
                    tracing::warn!(exporter = %core.name, %action, subject, "the broker does not allow it");
                }
                Err(RecvError::Lagged(more)) => tracing::warn!(more, "the broker does not allow it"),
                Err(RecvError::Closed) => return,
            },
            why = denials.until_turned_away(), if is_in => {
                is_in = false;
                tracing::error!(exporter = %core.name, %why, "the broker does not let the exporter in; it tries again");
            }
            () = denials.until_let_in(), if !is_in => {
                is_in = true;
                tracing::info!(exporter = %core.name, "the broker lets the exporter in again");
            }
        }
    }
}

fn is_log(core: &Core, subject: &str) -> bool {
    matches!(FromExporter::read(&core.root, subject), Ok(FromExporter::Log(..)))
}
