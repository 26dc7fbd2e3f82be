//! The files that are stored: listing and removing them, which takes more rights than lending.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use bus_schema::{
    BlockPart, ClientName, Manifest, Sha256, codec,
    subject::{Piece, Stored as StoredAt, Streams},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value as Json, json};
use tokio::time::timeout;

use super::LendError;
use crate::{
    Client,
    bus::{Incoming, Subject},
};

/// For one answer of JetStream.
const PATIENCE: Duration = Duration::from_secs(10);
/// Manifests that are read at once.
const AT_ONCE: usize = 16;

/// A file that is stored.
#[derive(Clone, Debug)]
pub struct StoredFile {
    /// Who stored it.
    pub client: ClientName,
    /// What it is stored under.
    pub manifest: Sha256,
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// How long ago its manifest was stored, by the broker's word and this host's clock.
    pub stored: Option<String>,
    /// Its blocks that are not zeros.
    blocks: Vec<Sha256>,
}

impl StoredFile {
    /// How many blocks it has that are stored.
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }
}

impl Client {
    /// All files that are stored under this root, by anybody. For admins.
    ///
    /// # Errors
    ///
    /// [`LendError::NotStored`] if the broker does not let this client list them.
    pub async fn files(&self) -> Result<Vec<StoredFile>, LendError> {
        let inner = &self.0;
        let mut manifests = Vec::new();
        let mut offset = 0;
        loop {
            let filter = StoredAt::all(&inner.root);
            let asked = json!({ "subjects_filter": filter, "offset": offset });
            let stream = Streams::of(&inner.root).files;
            let answer = self.ask_admin(Streams::info(&stream), asked.to_string()).await?;
            let subjects = answer.pointer("/state/subjects").and_then(Json::as_object);
            let page = subjects.map_or(0, serde_json::Map::len);
            for subject in subjects.into_iter().flat_map(serde_json::Map::keys) {
                if let Ok(StoredAt { client, piece: Piece::Manifest(digest) }) =
                    StoredAt::read(&inner.root, subject)
                {
                    manifests.push((client, digest));
                }
            }
            offset += page;
            let total = answer.get("total").and_then(Json::as_u64).unwrap_or_default();
            if page == 0 || offset as u64 >= total {
                break;
            }
        }
        let files = manifests.into_iter().map(|(client, digest)| self.file(client, digest));
        let files: Vec<_> = stream::iter(files).buffered(AT_ONCE).try_collect().await?;
        let mut files: Vec<_> = files.into_iter().flatten().collect();
        files.sort_by(|a: &StoredFile, b| (&a.client, &a.name).cmp(&(&b.client, &b.name)));
        Ok(files)
    }

    /// Removes a file, and those of its blocks that no other file in `all` of its owner has.
    ///
    /// # Errors
    ///
    /// [`LendError::NotStored`] if the broker does not let this client remove it.
    pub async fn remove_file(
        &self,
        file: &StoredFile,
        all: &[StoredFile],
    ) -> Result<(), LendError> {
        let root = &self.0.root;
        let same =
            |other: &&StoredFile| other.client == file.client && other.manifest != file.manifest;
        let kept: HashSet<_> = all.iter().filter(same).flat_map(|other| &other.blocks).collect();
        let client = file.client.clone();
        // The manifest first: a file without blocks would be found, and lent.
        let manifest = StoredAt { client, piece: Piece::Manifest(file.manifest) };
        self.purge(manifest.under(root)).await?;
        for block in file.blocks.iter().filter(|block| !kept.contains(block)) {
            self.purge(StoredAt::parts_of(root, &file.client, *block)).await?;
        }
        Ok(())
    }

    async fn purge(&self, filter: String) -> Result<(), LendError> {
        let stream = Streams::of(&self.0.root).files;
        let asked = json!({ "filter": filter }).to_string();
        self.ask_admin(Streams::purge(&stream), asked).await.map(drop)
    }

    /// One file; none if it has gone meanwhile, or is none.
    async fn file(
        &self,
        client: ClientName,
        digest: Sha256,
    ) -> Result<Option<StoredFile>, LendError> {
        let Some(answer) = self.stored(&client, Piece::Manifest(digest)).await? else {
            return Ok(None);
        };
        let stored = answer.header("Nats-Time-Stamp").map(str::to_owned);
        let Ok(manifest) = codec::decode::<Manifest>(answer.payload()) else { return Ok(None) };
        if manifest.check().is_err() {
            return Ok(None);
        }
        let list = match manifest.list {
            None => manifest.blocks.clone(),
            Some(list) => self.list(&client, list).await?.unwrap_or_default(),
        };
        let blocks: BTreeMap<_, _> = manifest
            .digests(&list)
            .unwrap_or_default()
            .into_iter()
            .filter(|block| *block != Sha256::ZEROS)
            .map(|block| (block, ()))
            .collect();
        let blocks = blocks.into_keys().chain(manifest.list).collect();
        let Manifest { name, bytes, .. } = manifest;
        Ok(Some(StoredFile { client, manifest: digest, name, bytes, stored, blocks }))
    }

    /// The list of digests of a large file, if it is there and plain.
    async fn list(&self, client: &ClientName, digest: Sha256) -> Result<Option<Bytes>, LendError> {
        let mut coded = Vec::new();
        let (mut n, mut parts, mut bytes) = (0, 1, 0);
        while n < parts {
            let Some(answer) = self.stored(client, Piece::Part(digest, n)).await? else {
                return Ok(None);
            };
            let Ok(part) = BlockPart::decode(answer.payload()) else { return Ok(None) };
            if part.check().is_err() {
                return Ok(None);
            }
            (parts, bytes) = (part.parts, part.bytes);
            coded.extend_from_slice(&part.data);
            n += 1;
        }
        // Digests do not get smaller: what is packed all the same is of another client.
        Ok((coded.len() as u64 == bytes).then(|| coded.into()))
    }

    async fn stored(
        &self,
        client: &ClientName,
        piece: Piece,
    ) -> Result<Option<Incoming>, LendError> {
        let inner = &self.0;
        let subject = StoredAt { client: client.clone(), piece }.under(&inner.root);
        let get = Streams::direct_get(&Streams::of(&inner.root).files, &subject);
        let answer = self.ask_broker(get, Bytes::new()).await?;
        Ok(answer.status().is_none().then_some(answer))
    }

    async fn ask_admin(&self, subject: String, body: String) -> Result<Json, LendError> {
        let answer = self.ask_broker(subject, body.into()).await?;
        let not_stored = |why: &str| LendError::NotStored(why.to_owned());
        if answer.is_no_responders() {
            return Err(not_stored("the broker has no JetStream: start it with -js"));
        }
        let answer: Json = serde_json::from_slice(answer.payload())
            .map_err(|error| not_stored(&format!("its answer cannot be read: {error}")))?;
        match answer.pointer("/error/description").and_then(Json::as_str) {
            Some(why) => Err(not_stored(why)),
            None => Ok(answer),
        }
    }

    async fn ask_broker(&self, subject: String, body: Bytes) -> Result<Incoming, LendError> {
        let subject = Subject::from(subject);
        let mut answers = self.0.jetstream_box(1, &subject);
        self.0.control().request(subject, answers.subject.clone(), body).await?;
        match timeout(PATIENCE, answers.next()).await {
            Ok(answer) => Ok(answer?),
            Err(_elapsed) => Err(LendError::NotStored("the broker does not answer".to_owned())),
        }
    }
}
