//! The image: lent once, or to every board.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use runtime::{Client, Lend, Put, Storing};

use crate::{
    advice::CliError,
    bucket::Object,
    progress::{Progress, Upload, size},
};

/// The image, ready to be lent once or often.
pub(super) enum Image {
    Once(Mutex<Option<Lend>>),
    Stored(AtBroker),
    Url(String),
    Object(Object),
}

/// A file at the broker, or on its way there: boards begin with what is there. It may be removed,
/// or age out, before every board has it.
pub(super) struct AtBroker {
    put: Put,
    now: tokio::sync::Mutex<Now>,
}

struct Now {
    storing: Storing,
    /// How often it was stored again.
    again: u32,
}

impl Image {
    /// Begins to store a file.
    pub(super) async fn put(
        client: &Client,
        put: Put,
        progress: &Progress,
    ) -> Result<Self, CliError> {
        let on_moved = Some(Upload::among(&put.file, progress).on_moved());
        let storing = client.store(Put { on_moved, ..put.clone() }).await?;
        let now = tokio::sync::Mutex::new(Now { storing, again: 0 });
        Ok(Self::Stored(AtBroker { put, now }))
    }

    /// Waits until it is stored, to be found by the next flash.
    pub(super) async fn settle(&self) {
        if let Self::Stored(file) = self {
            let storing = file.now.lock().await.storing.clone();
            drop(storing.stored().await); // the boards have it: what was flashed was flashed
        }
    }

    /// Why the image could not be stored, if that is why boards did not get it.
    pub(super) async fn trouble(&self) -> Option<CliError> {
        match self {
            Self::Stored(file) => Some(file.now.lock().await.storing.trouble()?.into()),
            _ => None,
        }
    }

    pub(super) async fn lend(&self) -> Result<Lend, CliError> {
        let used = || CliError::Usage("stdin was read already".to_owned());
        match self {
            Self::Once(lend) => {
                let mut lend = lend.lock().unwrap_or_else(PoisonError::into_inner);
                lend.take().ok_or_else(used)
            }
            Self::Stored(file) => Ok(Lend::from(&file.now.lock().await.storing)),
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
        let (before, put) = (now.storing.stored().await?, self.put.clone());
        let storing = client.store(Put { again: true, ..put }).await?;
        let stored = storing.stored().await?;
        if stored.manifest != before.manifest {
            let what = format!("store {} again", self.put.file.display());
            let changed = io::Error::other("it is not what it was when the first board got it");
            return Err(CliError::io(what, changed));
        }
        let sent = size(stored.sent);
        progress.ended(&stored.name, &format!("was gone from the broker: {sent} sent again"));
        *now = Now { storing, again: seen + 1 };
        Ok(())
    }
}
