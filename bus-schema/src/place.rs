//! Places: named sets of drivers over any number of exporters, as an admin wrote them down.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize, Serializer, de};

use crate::{
    Address, AddressError, Path, PlaceName, RoleName, Target, codec::Message,
    limits::PLACE_ROLES_MAX,
};

/// A place, as its record has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its name; a record that lies under another one is none.
    pub name: PlaceName,
    /// Its drivers, by what they are to it.
    #[serde(default)]
    pub roles: Roles,
    /// Its labels, for selectors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What it is, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// There is no such place any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
}

impl Message for Place {
    const KIND: u8 = 0x42;
    const NAME: &str = "place";
}

impl Place {
    /// The addresses of all its drivers, each once.
    pub fn addresses(&self) -> Vec<Address> {
        let mut all: Vec<_> = self.roles.0.values().map(|address| address.0.clone()).collect();
        all.sort_by_key(ToString::to_string);
        all.dedup();
        all
    }
}

/// Drivers by their roles, at most [`PLACE_ROLES_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Roles(BTreeMap<RoleName, Written>);

/// An address, as text on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Written(Address);

impl Roles {
    /// The driver in a role.
    pub fn get(&self, role: &RoleName) -> Option<&Address> {
        self.0.get(role).map(|written| &written.0)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&RoleName, &Address)> {
        self.0.iter().map(|(role, written)| (role, &written.0))
    }
}

impl FromIterator<(RoleName, Address)> for Roles {
    fn from_iter<T: IntoIterator<Item = (RoleName, Address)>>(roles: T) -> Self {
        Self(roles.into_iter().map(|(role, address)| (role, Written(address))).collect())
    }
}

impl<'de> Deserialize<'de> for Roles {
    fn deserialize<D: de::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let roles = BTreeMap::<RoleName, Written>::deserialize(d)?;
        match roles.len() > PLACE_ROLES_MAX {
            true => Err(de::Error::custom("a place has too many roles")),
            false => Ok(Self(roles)),
        }
    }
}

impl Serialize for Written {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: de::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map(Self).map_err(de::Error::custom)
    }
}

/// A driver of a place as a person writes it: `@place/role`, or what lies below it as
/// `@place/role/child`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PlaceRef {
    /// The place.
    pub place: PlaceName,
    /// The role.
    pub role: RoleName,
    /// From the driver in that role downwards.
    pub below: Path,
}

impl fmt::Display for PlaceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, role, below } = self;
        write!(f, "@{place}/{role}")?;
        match below.is_root() {
            true => Ok(()),
            false => write!(f, "/{below}"),
        }
    }
}

impl FromStr for PlaceRef {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let plain = text.strip_prefix('@').unwrap_or(text);
        let (place, rest) = plain.split_once('/').unwrap_or((plain, ""));
        if rest.is_empty() || text.ends_with('/') {
            return Err(AddressError::NoRole { place: plain.chars().take(80).collect() });
        }
        let (role, below) = rest.split_once('/').unwrap_or((rest, ""));
        Ok(Self { place: place.parse()?, role: role.parse()?, below: below.parse()? })
    }
}

/// What a person may write where boards are leased: a driver of one, or a whole place as `@place`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LeaseTarget {
    /// The board of this driver.
    Driver(Target),
    /// The boards of all drivers of a place.
    Place(PlaceName),
}

impl fmt::Display for LeaseTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver(target) => target.fmt(f),
            Self::Place(place) => write!(f, "@{place}"),
        }
    }
}

impl FromStr for LeaseTarget {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.strip_prefix('@') {
            Some(place) if !place.contains('/') => Ok(Self::Place(place.parse()?)),
            _ => text.parse().map(Self::Driver),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_of_a_place_reads_back_what_it_writes() {
        for text in ["@rpi-1/power", "@rpi-1/board/console", "@a/b/c/d"] {
            assert_eq!(text.parse::<PlaceRef>().unwrap().to_string(), text);
        }
        for bad in ["@", "@rpi", "@rpi/", "@rpi/A", "@R/x", "@rpi/x/", "@rpi//x"] {
            assert!(bad.parse::<PlaceRef>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_leased_is_a_driver_s_board_or_a_place() {
        let target = |text: &str| text.parse::<LeaseTarget>();
        assert_eq!(target("@rpi"), Ok(LeaseTarget::Place("rpi".parse().unwrap())));
        for text in ["@rpi", "@rpi/power", "bench/a", "46e2614d-07d8-525a-b071-50c87f710bad"] {
            assert_eq!(target(text).unwrap().to_string(), text);
        }
        for bad in ["", "@", "@RPI", "@@rpi", "@rpi/", "Bench"] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }
}
