//! What an exporter tells everybody: that it is there, its tree, its interfaces.
//!
//! Records are hints and views, never authority: anybody who can ask JetStream for something can
//! have its answer published on a record's subject.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize, de};

use crate::{DriverId, ExporterName, IdError, Incarnation, Interface, codec::Message};

/// That an exporter is there; under 1 KiB, every [`PRESENCE_EVERY`](crate::limits::PRESENCE_EVERY).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    /// Its name.
    pub exporter: ExporterName,
    /// Which run of it.
    pub incarnation: Incarnation,
    /// Up, draining or gone.
    pub state: State,
    /// The host it runs on.
    pub host: String,
    /// The version of its program.
    pub version: String,
    /// When it started, in ms since 1970 by its own clock.
    pub started_ms: u64,
    /// How often it has said so: a record that stands still is of an exporter that is gone.
    pub beat: u64,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Drivers in its tree.
    pub drivers: u32,
    /// Digest of its tree: the tree is read again when it changes.
    pub tree: InterfaceDigest,
}

/// How an exporter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It serves.
    Up,
    /// It finishes what it has and takes nothing new.
    Draining,
    /// It left.
    Left,
}

/// One part of an exporter's tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TreeRecord {
    /// Digest of the whole tree, which all its parts share.
    pub tree: InterfaceDigest,
    /// How many parts there are.
    pub parts: u32,
    /// The drivers of this part, parents before children.
    pub drivers: Vec<DriverRecord>,
}

/// One driver of a tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DriverRecord {
    /// Its UUID. An alias (`ref`) has that of what it stands for.
    pub id: DriverId,
    /// Its path.
    pub path: String,
    /// Its kind: the `type` of the configuration.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What it is, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Help for single methods, over that of the interface.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub methods_description: BTreeMap<String, String>,
    /// Its interfaces, as `name` and digest.
    pub interfaces: Vec<(String, InterfaceDigest)>,
    /// The path of what it stands for, if it is an alias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias_of: Option<String>,
}

impl Message for Presence {
    const KIND: u8 = 0x20;
    const NAME: &str = "presence";
}

impl Message for TreeRecord {
    const KIND: u8 = 0x21;
    const NAME: &str = "tree";
}

impl Message for Interface {
    const KIND: u8 = 0x22;
    const NAME: &str = "interface";
}

/// The digest of an interface's or tree's bytes: the UUIDv5 (a truncated SHA-1) of them in the
/// namespace of driver ids. It tells versions apart; it is no protection against a forger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceDigest(pub [u8; 16]);

impl InterfaceDigest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(uuid::Uuid::new_v5(&DriverId::NAMESPACE, bytes).into_bytes())
    }
}

impl fmt::Display for InterfaceDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::StreamId(u128::from_be_bytes(self.0)).fmt(f)
    }
}

impl FromStr for InterfaceDigest {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        text.parse::<crate::StreamId>().map(|id| Self(id.0.to_be_bytes()))
    }
}

impl Serialize for InterfaceDigest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for InterfaceDigest {
    fn deserialize<D: de::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(de::Error::custom)
    }
}
