//! Places: named sets of drivers over any number of exporters, which admins write down.

use std::time::Duration;

use bus_schema::{
    Address, Place, PlaceName, PlaceRef, Target, codec,
    subject::{FromAdmin, Streams},
};
use bytes::Bytes;
use tokio::time::timeout;

use crate::{
    Client,
    bus::{BusError, Incoming},
    config::near,
    stored::{read_all, stored_subject},
};

/// How long JetStream may take to store or give a record.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why a place, or a driver of it, was not found or not written.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The broker, or its stream of what admins write down.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// There is no such place.
    #[error("there is no place @{place}")]
    Unknown {
        /// The place.
        place: PlaceName,
        /// One whose name is near.
        near: Option<PlaceName>,
    },
    /// The place has no such role.
    #[error("@{} has no role {:?}: it has {}", .of.place, .of.role.as_str(), .roles.join(", "))]
    NoRole {
        /// What was asked for.
        of: PlaceRef,
        /// The roles that it has.
        roles: Vec<String>,
        /// The one that was probably meant.
        near: Option<String>,
    },
    /// It was not stored.
    #[error("place @{place} was not stored: {why}")]
    NotStored {
        /// The place.
        place: PlaceName,
        /// Why not.
        why: String,
    },
}

impl Client {
    /// All places, by name.
    ///
    /// # Errors
    ///
    /// [`BusError::Unfit`] if the broker has no stream for them.
    pub async fn places(&self) -> Result<Vec<Place>, BusError> {
        let stream = Streams::of(self.root()).admin;
        let records = read_all(&self.0, &stream, &FromAdmin::places(self.root())).await?;
        let place = |record| {
            let FromAdmin::Place(name) =
                FromAdmin::read(self.root(), stored_subject(record)).ok()?;
            codec::decode(record.payload()).ok().filter(|place| is(&name, place))
        };
        let mut places: Vec<_> = records.iter().filter_map(place).collect();
        places.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(places)
    }

    /// The place called `name`; its [`addresses`](Place::addresses) are what a lease on it is of.
    ///
    /// # Errors
    ///
    /// [`PlaceError::Unknown`], with one that is near; or the broker.
    pub async fn place(&self, name: &PlaceName) -> Result<Place, PlaceError> {
        let record = FromAdmin::Place(name.clone()).under(self.root());
        let get = Streams::direct_get(&Streams::of(self.root()).admin, &record);
        let unfit = |why: &str| BusError::Unfit(format!("places cannot be read: {why}"));
        let asked = self.ask_jetstream(get, Bytes::new());
        let answer = timeout(PATIENCE, asked).await.map_err(|_| unfit("no answer"))??;
        if answer.is_no_responders() {
            return Err(unfit("the broker has no stream for them").into());
        }
        let place = codec::decode::<Place>(answer.payload()).ok();
        match place.filter(|place| answer.status().is_none() && is(name, place)) {
            Some(place) => Ok(place),
            None => {
                let places = self.places().await?;
                let names = places.iter().map(|place| place.name.as_str());
                let near = near(name.as_str(), names).and_then(|near| near.parse().ok());
                Err(PlaceError::Unknown { place: name.clone(), near })
            }
        }
    }

    /// The address of a driver of a place.
    ///
    /// # Errors
    ///
    /// [`PlaceError`]: there is no such place or role, with what is near.
    pub async fn at_place(&self, of: &PlaceRef) -> Result<Address, PlaceError> {
        let place = self.place(&of.place).await?;
        let Some(address) = place.roles.get(&of.role) else {
            let roles: Vec<_> = place.roles.iter().map(|(role, _)| role.to_string()).collect();
            let near = near(of.role.as_str(), roles.iter().map(String::as_str)).map(str::to_owned);
            return Err(PlaceError::NoRole { of: of.clone(), roles, near });
        };
        let mut path = address.path.clone();
        for child in of.below.steps() {
            path = path.child(child).map_err(|error| BusError::Unfit(error.to_string()))?;
        }
        Ok(Address { exporter: address.exporter.clone(), path })
    }

    /// The same target without a place.
    ///
    /// # Errors
    ///
    /// As [`at_place`](Self::at_place).
    pub async fn settle(&self, target: &Target) -> Result<Target, PlaceError> {
        match target {
            Target::Place(place) => self.at_place(place).await.map(Target::Address),
            Target::Address(_) | Target::Id(_) => Ok(target.clone()),
        }
    }

    /// Writes a place down, over what was there under its name. It takes an admin's rights.
    ///
    /// # Errors
    ///
    /// [`PlaceError::NotStored`].
    pub async fn write_place(&self, place: &Place) -> Result<(), PlaceError> {
        #[derive(serde::Deserialize)]
        struct Answer {
            seq: Option<u64>,
            error: Option<Refused>,
        }
        #[derive(serde::Deserialize)]
        struct Refused {
            description: Option<String>,
        }
        let name = &place.name;
        let not_stored = |why: String| PlaceError::NotStored { place: name.clone(), why };
        let subject = FromAdmin::Place(name.clone()).under(self.root());
        let silence = || not_stored("no answer; only admins may write places".to_owned());
        let asked = self.ask_jetstream(subject, codec::encode(place));
        let answer = timeout(PATIENCE, asked).await.map_err(|_| silence())??;
        if answer.is_no_responders() {
            return Err(not_stored("the broker has no stream for places".to_owned()));
        }
        match serde_json::from_slice::<Answer>(answer.payload()) {
            Ok(Answer { seq: Some(_), error: None }) => Ok(()),
            Ok(Answer { error: Some(refused), .. }) => {
                Err(not_stored(refused.description.unwrap_or_default()))
            }
            _ => Err(not_stored("JetStream's answer cannot be read".to_owned())),
        }
    }

    async fn ask_jetstream(&self, subject: String, message: Bytes) -> Result<Incoming, BusError> {
        let subject = subject.into();
        let mut answers = self.0.jetstream_box(1, &subject);
        self.0.control().request(subject, answers.subject.clone(), message).await?;
        answers.next().await
    }

    /// Lets a place be no more. It takes an admin's rights.
    ///
    /// # Errors
    ///
    /// [`PlaceError::Unknown`] if there is none, [`PlaceError::NotStored`].
    pub async fn remove_place(&self, name: &PlaceName) -> Result<(), PlaceError> {
        let Place { name, .. } = self.place(name).await?;
        let (roles, labels, description) = Default::default();
        self.write_place(&Place { name, roles, labels, description, removed: true }).await
    }
}

/// Whether a record is of the place that its subject names.
fn is(name: &PlaceName, place: &Place) -> bool {
    place.name == *name && !place.removed
}
