//! Those who have credentials, and their roles.

use std::{
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use bus_schema::permission::Role;
use serde::{Deserialize, Serialize};

use super::now;

/// Somebody who has credentials, or had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The name.
    pub name: String,
    /// The role.
    #[serde(with = "role_word")]
    pub role: Role,
    /// Public key.
    pub nkey: String,
    /// Since when, in seconds since 1970.
    pub issued: u64,
    /// Until when.
    pub expires: Option<u64>,
    /// Since when not any more.
    pub revoked: Option<u64>,
}

impl User {
    /// Whether it can use the broker by this host's clock.
    pub fn is_valid(&self) -> bool {
        self.revoked.is_none() && self.expires.is_none_or(|expires| expires > now())
    }
}

/// A user to be.
#[derive(Clone, Copy, Debug)]
pub struct NewUser<'a> {
    /// What it will be.
    pub role: Role,
    /// Its name.
    pub name: &'a str,
    /// For how long; for ever by default.
    pub lasts: Option<Duration>,
    /// Whether the name may have another key already.
    pub again: bool,
    /// Where its credentials go.
    pub file: &'a Path,
}

/// Roles whose names are tokens at the same place: there a name is one user's. An exporter, a
/// leaf and a person may share one.
pub(super) fn class(role: Role) -> u8 {
    match role {
        Role::Client | Role::Observer | Role::Admin => 0,
        Role::Exporter => 1,
        Role::Leaf => 2,
    }
}

pub(super) fn key_of(role: Role) -> String {
    format!("keys/role-{role}.nk")
}

pub(super) fn date(seconds: u64) -> String {
    let at = UNIX_EPOCH + Duration::from_secs(seconds.min(u64::from(u32::MAX)));
    humantime::format_rfc3339_seconds(at).to_string().chars().take(10).collect()
}

mod role_word {
    use bus_schema::permission::Role;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de};

    pub(super) fn serialize<S: Serializer>(role: &Role, s: S) -> Result<S::Ok, S::Error> {
        role.as_str().serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Role, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}
