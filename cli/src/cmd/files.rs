//! `jmp-bus files`: what is stored, and its end.

use runtime::StoredFile;
use serde_json::{Value as Json, json};

use crate::{advice::CliError, progress::size, session::Session, table::table};

/// List the files that are stored, or remove some. Takes the rights of an admin.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List them.
    List,
    /// Remove files: by name, or by the beginning of their digest (at least 8 digits).
    Remove {
        /// Names or digests.
        #[arg(required = true)]
        files: Vec<String>,
        /// Those of this client only.
        #[arg(long, value_name = "CLIENT")]
        of: Option<bus_schema::ClientName>,
    },
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let client = session.client().await?;
        let all = client.files().await?;
        match self.action {
            None | Some(Action::List) => list(session, &all).await,
            Some(Action::Remove { files, of }) => {
                let mut chosen = Vec::new();
                for word in &files {
                    let before = chosen.len();
                    let of = |file: &&StoredFile| of.as_ref().is_none_or(|of| *of == file.client);
                    chosen.extend(all.iter().filter(of).filter(|file| is(file, word)));
                    if chosen.len() == before {
                        let instead = "see `jmp-bus files`".to_owned();
                        return Err(CliError::NotFound { what: format!("file {word}"), instead });
                    }
                }
                let mut left = all.clone();
                for file in &chosen {
                    client.remove_file(file, &left).await?;
                    left.retain(|other| {
                        (&other.client, other.manifest) != (&file.client, file.manifest)
                    });
                }
                list(session, chosen.into_iter().cloned().collect::<Vec<_>>().as_slice()).await
            }
        }
    }
}

fn is(file: &StoredFile, word: &str) -> bool {
    const DIGITS_MIN: usize = 8;
    file.name == word || (word.len() >= DIGITS_MIN && file.manifest.to_string().starts_with(word))
}

async fn list(session: &Session, files: &[StoredFile]) -> Result<(), CliError> {
    let data: Vec<Json> = files
        .iter()
        .map(|file| {
            json!({
                "client": file.client, "name": file.name, "bytes": file.bytes,
                "manifest": file.manifest, "stored": file.stored,
                "blocks": file.blocks(),
            })
        })
        .collect();
    let row = |file: &StoredFile| {
        let stored = file.stored.as_deref().unwrap_or_default();
        let stored = stored.split('.').next().unwrap_or_default().to_owned();
        let digest = file.manifest.to_string()[..16].to_owned();
        [file.client.to_string(), file.name.clone(), size(file.bytes), digest, stored]
    };
    session.out.document(&data, || table(&files.iter().map(row).collect::<Vec<_>>())).await
}
