//! Addresses and selectors: how people name drivers.

use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::{
    DriverId, ExporterName, NameError, PlaceRef,
    limits::{DEPTH_MAX, LABEL_BYTES_MAX, NAME_BYTES_MAX},
};

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// A part of it is no name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A step of the path is empty, too long or has a character that no child's name has.
    #[error(
        "{step:?} is no child's name: use 1 to {NAME_BYTES_MAX} of a-z, A-Z, 0-9, '_', '-' and '.'"
    )]
    Step {
        /// The step.
        step: String,
    },
    /// The path has too many steps.
    #[error("the path is deeper than {DEPTH_MAX}")]
    Deep,
    /// A place without one of its roles.
    #[error("@{place} is a place, with several drivers: name one as @{place}/role")]
    NoRole {
        /// The place.
        place: String,
    },
}

/// Where a driver is in its exporter's tree: child names from the root, joined by `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(Vec<String>);

impl Path {
    /// The path of the tree's root driver.
    pub const ROOT: Self = Self(Vec::new());

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The names from the root down.
    pub fn steps(&self) -> &[String] {
        &self.0
    }

    /// The last name; empty for the root.
    pub fn name(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }

    /// The path of a child.
    ///
    /// # Errors
    ///
    /// [`AddressError`] if `name` is no child's name or the path would be too deep.
    pub fn child(&self, name: &str) -> Result<Self, AddressError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) {
            return Err(AddressError::Step { step: name.chars().take(80).collect() });
        }
        if self.0.len() >= DEPTH_MAX {
            return Err(AddressError::Deep);
        }
        Ok(Self(self.0.iter().cloned().chain([name.to_owned()]).collect()))
    }

    /// The path one step up; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        self.0.split_last().map(|(_, rest)| Self(rest.to_vec()))
    }
}

impl Path {
    /// Whether it is `above`, or lies below it.
    pub fn is_within(&self, above: &Self) -> bool {
        self.0.starts_with(&above.0)
    }
}

impl serde::Serialize for Path {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Path {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

impl FromStr for Path {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text {
            "" => Ok(Self::ROOT),
            _ => text.split('/').try_fold(Self::ROOT, |path, step| path.child(step)),
        }
    }
}

/// A driver by name: `exporter/child/child`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// The exporter.
    pub exporter: ExporterName,
    /// The driver in its tree.
    pub path: Path,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.is_root() {
            true => self.exporter.fmt(f),
            false => write!(f, "{}/{}", self.exporter, self.path),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (exporter, path) = text.split_once('/').unwrap_or((text, ""));
        let slash_without_child = text.ends_with('/');
        if slash_without_child {
            return Err(AddressError::Step { step: String::new() });
        }
        Ok(Self { exporter: exporter.parse()?, path: path.parse()? })
    }
}

/// What a person may write where one driver is meant: an address, a UUID (which the registry turns
/// into an address), or a driver of a place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// `exporter/child`.
    Address(Address),
    /// A driver's UUID.
    Id(DriverId),
    /// A driver of a place.
    Place(PlaceRef),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Id(id) => id.fmt(f),
            Self::Place(place) => place.fmt(f),
        }
    }
}

impl FromStr for Target {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.starts_with('@') {
            return text.parse().map(Self::Place);
        }
        match text.parse() {
            Ok(id) => Ok(Self::Id(id)),
            Err(_) => text.parse().map(Self::Address),
        }
    }
}

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{term:?} is no term of a selector: write key=value, key!=value, key or !key, joined by ','"
)]
pub struct SelectorError {
    term: String,
}

/// Names many drivers by their labels: `board=rpi4,rack!=3,!broken`. All terms must hold.
///
/// Besides a driver's own labels it sees `exporter`, `path`, `name`, `type` and `interface`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Term>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    Is(String, String),
    IsNot(String, String),
    Has(String),
    HasNot(String),
}

impl Selector {
    /// Whether a selector can name a label like this: 1 to 253 of a-z, A-Z, 0-9, `_-./:`.
    pub fn is_word(text: &str) -> bool {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:".contains(&b);
        !text.is_empty() && text.len() <= LABEL_BYTES_MAX && text.bytes().all(plain)
    }

    /// Whether all terms hold for these labels. A label that may have several values (as
    /// `interface`) holds them joined by `,`; `=` then asks for any one of them.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let is = |key: &str, value: &str| {
            labels.get(key).is_some_and(|has| has == value || has.split(',').any(|h| h == value))
        };
        self.0.iter().all(|term| match term {
            Term::Is(key, value) => is(key, value),
            Term::IsNot(key, value) => !is(key, value),
            Term::Has(key) => labels.contains_key(key),
            Term::HasNot(key) => !labels.contains_key(key),
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, term) in self.0.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { "," })?;
            match term {
                Term::Is(key, value) => write!(f, "{key}={value}")?,
                Term::IsNot(key, value) => write!(f, "{key}!={value}")?,
                Term::Has(key) => f.write_str(key)?,
                Term::HasNot(key) => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let term = |term: &str| {
            let term = term.trim();
            let word = |w: &str| Self::is_word(w).then(|| w.to_owned());
            let parsed = if let Some((key, value)) = term.split_once("!=") {
                word(key.trim()).zip(word(value.trim())).map(|(k, v)| Term::IsNot(k, v))
            } else if let Some((key, value)) = term.split_once('=') {
                let value = value.strip_prefix('=').unwrap_or(value); // `==`, as Kubernetes has it
                word(key.trim()).zip(word(value.trim())).map(|(k, v)| Term::Is(k, v))
            } else if let Some(key) = term.strip_prefix('!') {
                word(key.trim()).map(Term::HasNot)
            } else {
                word(term).map(Term::Has)
            };
            parsed.ok_or_else(|| SelectorError { term: term.chars().take(80).collect() })
        };
        text.split(',').map(term).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_what_they_write() {
        for text in ["bench-1", "bench-1/power", "bench-1/dut/Console.0"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for bad in ["", "/", "bench/", "bench//x", "Bench", "bench/a b", "bench/*"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_selector_needs_all_its_terms() {
        let labels = BTreeMap::from(
            [("board", "rpi4"), ("rack", "2"), ("interface", "power,storage")]
                .map(|(k, v)| (k.to_owned(), v.to_owned())),
        );
        let holds = |text: &str| text.parse::<Selector>().unwrap().matches(&labels);
        assert!(holds("board=rpi4,rack!=3,!broken,interface=power"));
        assert!(!holds("board=rpi4,rack=3"));
        assert!(!holds("broken"));
        assert!("board=".parse::<Selector>().is_err());
        assert!("".parse::<Selector>().is_err());
    }
}
