//! A driver that takes what it is lent, and gives back what it is asked for.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bus_schema::{Describe, Fault, driver};
use ring::digest::{Context as Sha256, SHA256};
use runtime::{Context, Extent, Items, Resource, ResourceWriter};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::Events;

/// What came of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct Took {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
    /// How many of them came as holes.
    pub holes: u64,
    /// Their SHA-256.
    pub sha256: String,
    /// The length that was announced.
    pub announced: Option<u64>,
    /// How it was compressed.
    pub packing: String,
}

/// The driver.
#[derive(Clone, Debug, Default)]
pub struct Taker {
    /// What happened.
    pub events: Events,
    /// Resources that were taken to their end.
    pub done: Arc<AtomicU64>,
}

#[driver]
impl Taker {
    /// Takes all of it.
    #[export]
    #[method(deadline = "2m")]
    async fn take(&self, source: Resource) -> Result<Took, Fault> {
        let took = self.read(source).await?;
        self.done.fetch_add(1, Ordering::Relaxed);
        Ok(took)
    }

    /// Takes two, one after the other.
    #[export]
    async fn take_two(&self, first: Resource, second: Resource) -> Result<Vec<Took>, Fault> {
        Ok(vec![self.read(first).await?, self.read(second).await?])
    }

    /// Takes all of it, and says how far it is.
    #[export]
    async fn follow(&self, mut source: Resource, items: Items<u64>) -> Result<(), Fault> {
        let mut bytes = 0;
        while let Some(extent) = source.next().await? {
            bytes += extent.len();
            items.send(bytes).await?;
        }
        Ok(())
    }

    /// Reads this much, and leaves the rest.
    #[export]
    async fn taste(&self, mut source: Resource, bytes: u64) -> Result<String, Fault> {
        let mut text = String::new();
        (&mut source).take(bytes).read_to_string(&mut text).await?;
        Ok(text)
    }

    /// Does not even look at it.
    #[export]
    async fn ignore(&self, source: Resource) -> String {
        source.name().to_owned()
    }

    /// Keeps it for later, when the call has ended.
    #[export]
    async fn keep(&self, mut source: Resource) -> Result<(), Fault> {
        source.info().await?;
        let events = self.events.clone();
        #[expect(clippy::disallowed_methods, reason = "it is to outlive the operation")]
        tokio::spawn(async move {
            while let Ok(Some(_)) = source.next().await {}
            events.note(format!("kept: {:?}", source.next().await));
        });
        Ok(())
    }

    /// Writes this many bytes, and ends properly or not.
    #[export]
    async fn give(
        &self,
        cx: &Context,
        mut target: ResourceWriter,
        bytes: u64,
        end: bool,
    ) -> Result<(), Fault> {
        let _ = cx;
        let piece = vec![7; 100_000];
        let mut left = bytes;
        while left > 0 {
            let now = left.min(piece.len() as u64);
            target.write_all(&piece[..usize::try_from(now).expect("it is small")]).await?;
            left -= now;
        }
        match end {
            true => Ok(target.finish().await?),
            false => Ok(()),
        }
    }
}

impl Taker {
    async fn read(&self, mut source: Resource) -> Result<Took, Fault> {
        let info = source.info().await?;
        self.events.note("begun");
        let (mut bytes, mut holes, mut sha256) = (0, 0, Sha256::new(&SHA256));
        while let Some(extent) = source.next().await? {
            bytes += extent.len();
            match extent {
                Extent::Data(data) => sha256.update(&data),
                Extent::Hole(zeros) => {
                    holes += zeros;
                    (0..zeros / 4096).for_each(|_| sha256.update(&[0; 4096]));
                    (0..zeros % 4096).for_each(|_| sha256.update(&[0]));
                }
            }
        }
        let digest = sha256.finish();
        let sha256 = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let (name, packing) = (source.name().to_owned(), info.packing.to_string());
        Ok(Took { name, bytes, holes, sha256, announced: info.bytes, packing })
    }
}
