//! Names: the tokens of a subject that people choose.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize, Serializer, de};

use crate::limits::NAME_BYTES_MAX;

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no {what} name: use 1 to {NAME_BYTES_MAX} of a-z, 0-9, '_' and '-', and begin \
     with a letter or digit"
)]
pub struct NameError {
    what: &'static str,
    text: String,
}

/// Checked everywhere a name comes in: a client named `*` would be everybody.
fn is_name(text: &str, first: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    let plain = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    bytes.len() <= NAME_BYTES_MAX
        && bytes.first().is_some_and(|b| first(*b))
        && bytes.iter().all(plain)
}

fn letter_or_digit(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $first:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Whether `text` is one.
            pub fn is(text: &str) -> bool {
                is_name(text, $first)
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                match Self::is(text) {
                    true => Ok(Self(text.into())),
                    // What is quoted back is bounded: the text may be a megabyte of garbage.
                    false => Err(NameError { what: $what, text: text.chars().take(80).collect() }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: de::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

name! {
    /// The name of an exporter: one process on a lab host that serves drivers.
    ExporterName, "exporter", letter_or_digit
}
name! {
    /// The name of a client: who uses drivers. The broker's permissions make it true.
    ClientName, "client", letter_or_digit
}
name! {
    /// The name of a method. May begin with `_`, as some of Jumpstarter's do.
    MethodName, "method", |b| letter_or_digit(b) || b == b'_'
}
name! {
    /// The name of a place: a set of drivers, over any number of exporters, with a role each.
    PlaceName, "place", letter_or_digit
}
name! {
    /// What a driver is to a place: `power`, `serial`.
    RoleName, "role", letter_or_digit
}
name! {
    /// The first token of every subject (`jmp` unless configured): two labs, or two tests,
    /// can share one NATS account under different roots.
    Root, "root", letter_or_digit
}

impl Default for Root {
    fn default() -> Self {
        Self("jmp".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_nobody() {
        for bad in ["", "*", ">", "a.b", "a b", "A", "-a", "é", "a*", "{{name()}}"] {
            assert!(bad.parse::<ClientName>().is_err(), "{bad}");
        }
        assert!("a".repeat(65).parse::<ClientName>().is_err());
        assert!("a".repeat(64).parse::<ClientName>().is_ok());
    }

    #[test]
    fn a_refused_name_says_what_would_be_right() {
        let said = "Bench 3".parse::<ExporterName>().unwrap_err().to_string();
        assert!(said.contains("\"Bench 3\"") && said.contains("a-z"), "{said}");
    }
}
