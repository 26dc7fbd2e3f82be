//! The image: lent once, or to every board.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use runtime::{Client, Lend, Put, Stored};

use crate::{
    advice::CliError,
    bucket::Object,
    output::Output,
    progress::{Progress, Upload, size},
};

/// The image, ready to be lent once or often.
pub(super) enum Image {
    Once(Mutex<Option<Lend>>),
    Stored(AtBroker),
    Url(String),
    Object(Object),
}

/// A file at the broker. It may be removed there, or age out, before every board has it.
pub(super) struct AtBroker {
    put: Put,
    now: tokio::sync::Mutex<Now>,
}

struct Now {
    stored: Stored,
    /// How often it was stored again.
    again: u32,
}

impl Image {
    /// Stores a file, unless it is there.
    pub(super) async fn put(client: &Client, put: Put, out: Output) -> Result<Self, CliError> {
        let upload = Upload::of(&put.file, out);
        let put = Put { on_moved: Some(upload.on_moved()), ..put };
        let stored = client.put(put.clone()).await?;
        let (bytes, sent) = (size(stored.bytes), size(stored.sent));
        out.note(format_args!("{}: {bytes}, {sent} sent to the broker", stored.name));
        let now = tokio::sync::Mutex::new(Now { stored, again: 0 });
        Ok(Self::Stored(AtBroker { put, now }))
    }

    pub(super) async fn lend(&self) -> Result<Lend, CliError> {
        let used = || CliError::Usage("stdin was read already".to_owned());
        match self {
            Self::Once(lend) => {
                let mut lend = lend.lock().unwrap_or_else(PoisonError::into_inner);
                lend.take().ok_or_else(used)
            }
            Self::Stored(file) => Ok(Lend::from(&file.now.lock().await.stored)),
            Self::Url(url) => Ok(Lend::url(url, std::iter::empty::<(String, String)>())),
            Self::Object(object) => object.source().await,
        }
    }
}

impl AtBroker {
    /// How often it was stored again.
    pub(super) async fn again(&self) -> u32 {
        self.now.lock().await.again
    }

    /// Stores all of it again, unless that was done for another board since it was stored `seen`
    /// times. What is there is not asked for: a block counts as there while its first part is.
    pub(super) async fn restore(
        &self,
        client: &Client,
        seen: u32,
        progress: &Progress,
    ) -> Result<(), CliError> {
        let mut now = self.now.lock().await;
        if now.again != seen {
            return Ok(());
        }
        let stored = client.put(Put { again: true, ..self.put.clone() }).await?;
        if stored.manifest != now.stored.manifest {
            let what = format!("store {} again", self.put.file.display());
            let changed = io::Error::other("it is not what it was when the first board got it");
            return Err(CliError::io(what, changed));
        }
        let sent = size(stored.sent);
        progress.ended(&stored.name, &format!("was gone from the broker: {sent} sent again"));
        *now = Now { stored, again: seen + 1 };
        Ok(())
    }
}
