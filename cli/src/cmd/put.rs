//! `jmp-bus put`: store a file, to be lent.

use std::path::PathBuf;

use runtime::Put;
use serde_json::json;

use crate::{
    advice::CliError,
    progress::{Upload, size},
    session::Session,
};

/// Store a file at the broker, so that boards get it from there.
///
/// `flash` and `call … @FILE` do the same by themselves: what is stored is not sent again, and an
/// upload that was interrupted goes on where it was.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    /// The file.
    file: PathBuf,
    /// Store everything once more, also what the broker has.
    #[arg(long)]
    again: bool,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let client = session.client().await?;
        let upload = Upload::of(&self.file, session.out);
        let on_moved = Some(upload.on_moved());
        let stored =
            client.put(Put { on_moved, again: self.again, ..Put::new(&self.file) }).await?;
        let data = json!({
            "name": stored.name, "bytes": stored.bytes, "manifest": stored.manifest,
            "sent": stored.sent,
        });
        let text = || {
            let (bytes, sent) = (size(stored.bytes), size(stored.sent));
            format!("{}  {}  {bytes}, {sent} sent\n", stored.manifest, stored.name)
        };
        session.out.document(&data, text).await
    }
}
