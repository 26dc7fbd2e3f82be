//! Every way a lease can be missed or lost.

use std::{sync::Arc, time::Duration};

use bus_schema::{LeaseEnd, PlaceRef, Refusal};

use crate::{CallError, PlaceError, bus::BusError};

/// Why there is no lease.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LeaseError {
    /// Nobody serves under that name.
    #[error("no exporter {exporter} on this bus")]
    NoExporter {
        /// The name.
        exporter: String,
    },
    /// The exporter said no.
    #[error("{address} refused: {refusal}")]
    Refused {
        /// What was asked for.
        address: String,
        /// Which no.
        refusal: Refusal,
    },
    /// The wait was over.
    #[error("{address} did not become free within {waited:?}{}", held_by(.holder.as_deref()))]
    TimedOut {
        /// What was asked for.
        address: String,
        /// How long it was waited for.
        waited: Duration,
        /// Who had it.
        holder: Option<String>,
    },
    /// It is over.
    #[error("the lease on {address} is over: {why}{}", said(text))]
    Ended {
        /// What was leased, or asked for.
        address: String,
        /// Why, for programs.
        why: LeaseEnd,
        /// Why, for people.
        text: String,
    },
    /// Too few can be had.
    #[error("{wanted} wanted, and only {found} can be had")]
    TooFew {
        /// How many were asked for.
        wanted: usize,
        /// How many there are.
        found: usize,
    },
    /// The place is not there.
    #[error("{0}")]
    Place(Arc<PlaceError>),
    /// A driver of a place cannot be had.
    #[error("{of}: {error}")]
    Role {
        /// Which.
        of: PlaceRef,
        /// Why not.
        error: Box<LeaseError>,
    },
    /// The exporter does not answer.
    #[error("exporter {exporter} does not answer")]
    Silent {
        /// Its name.
        exporter: String,
    },
    /// The broker does not allow it, or lets us in no more.
    #[error("{0}")]
    NotAllowed(Box<CallError>),
    /// The answer cannot be read.
    #[error("the answer cannot be read: {0}")]
    Garbled(String),
    /// The broker.
    #[error("{0}")]
    Bus(String),
}

fn held_by(holder: Option<&str>) -> String {
    holder.map(|holder| format!("; {holder} has it")).unwrap_or_default()
}

fn said(text: &str) -> String {
    match text {
        "" => String::new(),
        text => format!(": {text}"),
    }
}

impl From<BusError> for LeaseError {
    fn from(error: BusError) -> Self {
        Self::Bus(error.to_string())
    }
}
