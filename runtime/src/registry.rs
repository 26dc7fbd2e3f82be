//! Who is there: exporters, their trees and their interfaces, as they last said themselves.
//!
//! Records are hints. Nothing here is asked before a call: an address is a subject.

mod boards;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    time::{Duration, SystemTime},
};

use bus_schema::{
    Address, DriverRecord, ExporterName, Incarnation, Interface, InterfaceDigest, Presence,
    Selector, State, Target, TreeRecord, codec,
    limits::PRESENCE_TTL,
    subject::{FromExporter, Streams},
};
use tokio::time::{Instant, Interval, interval};

pub use self::boards::BoardWatch;
use crate::{
    Client, PlaceError,
    bus::{BusError, Incoming, Subscription},
    stored::{read_all, stored_subject},
};

/// The registry, as a client reads it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry(Client);

/// A driver that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its exporter.
    pub exporter: ExporterName,
    /// What the exporter says of it.
    pub record: DriverRecord,
}

impl Found {
    /// Its address.
    pub fn address(&self) -> Result<Address, bus_schema::AddressError> {
        Ok(Address { exporter: self.exporter.clone(), path: self.record.path.parse()? })
    }

    /// What a selector sees of it: its labels, and `exporter`, `path`, `name`, `type` and
    /// `interface` (all of them, joined by `,`).
    pub fn labels(&self) -> BTreeMap<String, String> {
        let Self { exporter, record } = self;
        let mut labels = record.labels.clone();
        let interfaces: Vec<_> = record.interfaces.iter().map(|(name, _)| name.as_str()).collect();
        let name = record.path.rsplit('/').next().unwrap_or_default();
        labels.extend([
            ("exporter".to_owned(), exporter.to_string()),
            ("path".to_owned(), record.path.clone()),
            ("name".to_owned(), name.to_owned()),
            ("type".to_owned(), record.kind.clone()),
            ("interface".to_owned(), interfaces.join(",")),
        ]);
        labels
    }
}

impl Client {
    /// The registry.
    pub fn registry(&self) -> Registry {
        Registry(self.clone())
    }
}

impl Registry {
    /// The exporters that are there, by name.
    ///
    /// # Errors
    ///
    /// [`BusError::Unfit`] if there is no registry on this broker.
    pub async fn exporters(&self) -> Result<Vec<Presence>, BusError> {
        let records = self.read(FromExporter::presence_all(self.0.root())).await?;
        let mut all: Vec<Presence> = records.iter().filter_map(decode).collect();
        all.retain(|presence| presence.state != State::Left);
        all.sort_by(|a, b| a.exporter.cmp(&b.exporter));
        Ok(all)
    }

    /// The newest presence that was stored, by the broker's clock: while an exporter is up it is
    /// no older than a heartbeat.
    ///
    /// # Errors
    ///
    /// As [`exporters`](Self::exporters).
    pub async fn newest(&self) -> Result<Option<SystemTime>, BusError> {
        let records = self.read(FromExporter::presence_all(self.0.root())).await?;
        let stored =
            |record: &Incoming| humantime::parse_rfc3339(record.header("Nats-Time-Stamp")?).ok();
        Ok(records.iter().filter_map(stored).max())
    }

    /// The tree of one exporter, parents before children; empty if it has published none.
    ///
    /// # Errors
    ///
    /// As [`exporters`](Self::exporters).
    pub async fn tree(&self, exporter: &ExporterName) -> Result<Vec<DriverRecord>, BusError> {
        let subject = FromExporter::tree_of(self.0.root(), exporter);
        Ok(whole_tree(self.read(subject).await?.iter().filter_map(numbered_part).collect()))
    }

    /// The interfaces of a driver.
    ///
    /// # Errors
    ///
    /// As [`exporters`](Self::exporters).
    pub async fn interfaces(
        &self,
        driver: &DriverRecord,
        exporter: &ExporterName,
    ) -> Result<Vec<Interface>, BusError> {
        let wanted: HashSet<InterfaceDigest> = driver.interfaces.iter().map(|(_, d)| *d).collect();
        let subject = FromExporter::interface_of(self.0.root(), exporter);
        let mut found = HashMap::new();
        for record in self.read(subject).await? {
            let digest = InterfaceDigest::of(record.payload());
            if let (true, Ok(interface)) =
                (wanted.contains(&digest), codec::decode(record.payload()))
            {
                found.insert(digest, interface);
            }
        }
        Ok(driver.interfaces.iter().filter_map(|(_, digest)| found.remove(digest)).collect())
    }

    /// The driver that a person means, if there is one.
    ///
    /// # Errors
    ///
    /// As [`exporters`](Self::exporters).
    pub async fn resolve(&self, target: &Target) -> Result<Option<Found>, BusError> {
        match target {
            Target::Address(Address { exporter, path }) => {
                let path = path.to_string();
                let record = self.tree(exporter).await?.into_iter().find(|r| r.path == path);
                Ok(record.map(|record| Found { exporter: exporter.clone(), record }))
            }
            Target::Id(id) => {
                let drivers = self.drivers().await?;
                let is = |found: &Found| found.record.id == *id && found.record.alias_of.is_none();
                Ok(drivers.into_iter().find(is))
            }
            Target::Place(place) => match self.0.at_place(place).await {
                Ok(address) => Box::pin(self.resolve(&Target::Address(address))).await,
                Err(PlaceError::Bus(error)) => Err(error),
                Err(_) => Ok(None),
            },
        }
    }

    /// The drivers that a selector matches, by address. An alias is not a driver of its own: a
    /// call to all of them reaches none twice.
    ///
    /// # Errors
    ///
    /// As [`exporters`](Self::exporters).
    pub async fn select(&self, selector: &Selector) -> Result<Vec<Found>, BusError> {
        let mut drivers = self.drivers().await?;
        drivers
            .retain(|found| found.record.alias_of.is_none() && selector.matches(&found.labels()));
        drivers.sort_by(|a, b| (&a.exporter, &a.record.path).cmp(&(&b.exporter, &b.record.path)));
        Ok(drivers)
    }

    /// All drivers of all exporters that are there.
    async fn drivers(&self) -> Result<Vec<Found>, BusError> {
        let here: HashSet<_> = self.exporters().await?.into_iter().map(|p| p.exporter).collect();
        let mut trees = HashMap::<ExporterName, Vec<(u32, TreeRecord)>>::new();
        for record in self.read(FromExporter::tree_all(self.0.root())).await? {
            if let Some((exporter, part)) =
                exporter_of(&self.0, &record).zip(numbered_part(&record))
                && here.contains(&exporter)
            {
                trees.entry(exporter).or_default().push(part);
            }
        }
        let found = trees.into_iter().flat_map(|(exporter, parts)| {
            let drivers = whole_tree(parts).into_iter();
            drivers.map(move |record| Found { exporter: exporter.clone(), record })
        });
        Ok(found.collect())
    }

    /// Follows who comes and goes. Subscribes first and then takes stock, so that nothing falls
    /// between.
    ///
    /// # Errors
    ///
    /// As [`exporters`](Self::exporters).
    pub async fn watch(&self) -> Result<Watch, BusError> {
        let control = self.0.0.control();
        let subject = FromExporter::presence_all(self.0.root());
        let live = control.subscribe(subject.clone()).await?;
        let (own, name) = (self.0.0.inbox.token(crate::bus::random()), self.0.name().as_str());
        control.confirm(own, name, &[&subject]).await?;
        let mut watch = Watch {
            client: self.0.clone(),
            live,
            here: BTreeMap::new(),
            queue: VecDeque::new(),
            look: interval(Duration::from_secs(1)),
        };
        for presence in self.exporters().await? {
            watch.take(presence);
        }
        Ok(watch)
    }

    /// Every record whose subject matches.
    async fn read(&self, subject: String) -> Result<Vec<Incoming>, BusError> {
        let stream = Streams::of(self.0.root()).registry;
        read_all(&self.0.0, &stream, &subject).await
    }
}

fn decode(record: &Incoming) -> Option<Presence> {
    codec::decode(record.payload()).ok()
}

/// A part of a tree with its number, which its subject's last token says.
fn numbered_part(record: &Incoming) -> Option<(u32, TreeRecord)> {
    let number = stored_subject(record).rsplit('.').next()?.parse().ok()?;
    Some((number, codec::decode(record.payload()).ok()?))
}

fn exporter_of(client: &Client, record: &Incoming) -> Option<ExporterName> {
    match FromExporter::read(client.root(), stored_subject(record)).ok()? {
        FromExporter::Tree(exporter, _) => Some(exporter),
        _ => None,
    }
}

/// Puts a tree's parts together; those of an older, longer tree are left out.
fn whole_tree(mut parts: Vec<(u32, TreeRecord)>) -> Vec<DriverRecord> {
    parts.sort_by_key(|(number, _)| *number);
    let newest = parts.first().map(|(_, first)| (first.tree, first.parts));
    let is_newest = |number: u32, part: &TreeRecord| {
        newest.is_some_and(|(tree, parts)| part.tree == tree && number < parts)
    };
    let newest_parts = parts.into_iter().filter(|(number, part)| is_newest(*number, part));
    newest_parts.flat_map(|(_, part)| part.drivers).collect()
}

/// Who comes and goes.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    live: Subscription,
    here: BTreeMap<ExporterName, Here>,
    queue: VecDeque<Change>,
    look: Interval,
}

#[derive(Debug)]
struct Here {
    presence: Presence,
    moved: Instant,
}

/// What happened to an exporter.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It is there.
    Here(Presence),
    /// Its state, labels or tree changed.
    Changed(Presence),
    /// It is not there any more.
    Gone(ExporterName, Why),
}

/// Why an exporter is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It said goodbye.
    Left,
    /// It has said nothing for three heartbeats.
    Silent,
    /// Another run of it took its name.
    Replaced(Incarnation),
}

impl Watch {
    /// The next change; `None` when the connection is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            if let Some(change) = self.queue.pop_front() {
                return Some(change);
            }
            tokio::select! {
                message = self.live.next() => {
                    let message = message?;
                    let exporter = match FromExporter::read(self.client.root(), message.subject()) {
                        Ok(FromExporter::Presence(exporter)) => exporter,
                        _ => continue,
                    };
                    let presence = decode(&message).filter(|presence| {
                        presence.exporter == exporter
                            && message.is_of(&exporter, self.client.root())
                    });
                    if let Some(presence) = presence {
                        self.take(presence);
                    }
                }
                _ = self.look.tick() => self.drop_silent(),
            }
        }
    }

    fn take(&mut self, presence: Presence) {
        let name = presence.exporter.clone();
        if presence.state == State::Left {
            if self.here.remove(&name).is_some() {
                self.queue.push_back(Change::Gone(name, Why::Left));
            }
            return;
        }
        let here = Here { presence: presence.clone(), moved: Instant::now() };
        match self.here.insert(name.clone(), here) {
            None => self.queue.push_back(Change::Here(presence)),
            Some(Here { presence: old, .. }) if old.incarnation != presence.incarnation => {
                self.queue.push_back(Change::Gone(name, Why::Replaced(presence.incarnation)));
                self.queue.push_back(Change::Here(presence));
            }
            Some(Here { presence: old, .. }) => {
                let beat = presence.beat;
                if (Presence { beat, ..old }) != presence {
                    self.queue.push_back(Change::Changed(presence));
                }
            }
        }
    }

    /// Expiry sends no message: a record that stands still is of an exporter that is gone. Not
    /// while we are cut off ourselves.
    fn drop_silent(&mut self) {
        if !self.client.0.control().is_connected() {
            for here in self.here.values_mut() {
                here.moved = Instant::now();
            }
        }
        let silent: Vec<_> = self
            .here
            .iter()
            .filter(|(_, here)| here.moved.elapsed() > PRESENCE_TTL)
            .map(|(name, _)| name.clone())
            .collect();
        for name in silent {
            self.here.remove(&name);
            self.queue.push_back(Change::Gone(name, Why::Silent));
        }
    }
}
