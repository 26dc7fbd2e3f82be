//! A mapping of the file whose keys are fixed.

use std::collections::BTreeMap;

use super::{
    problem::{Problems, Trail},
    value::quote_it,
    yaml::{Data, Entry, Mark, Plain, Yaml},
};

/// A mapping, checked for keys that nobody knows.
pub(super) struct Keys<'y> {
    map: &'y [Entry],
    /// Where the mapping is: its key.
    pub(super) at: Mark,
    /// Whether it has a key that nobody knows. Then a missing key is probably that one.
    pub(super) typo: bool,
}

impl<'y> Keys<'y> {
    /// The mapping `yaml`, which may have the keys in `known`.
    pub(super) fn of(
        yaml: &'y Yaml,
        known: &[&str],
        trail: &Trail<'_>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let map = mapping(yaml, trail, problems)?;
        let unknown = || map.iter().filter(|entry| !known.contains(&entry.key.as_str()));
        for Entry { key, at, .. } in unknown() {
            problems.unknown_key(*at, trail, key, known);
        }
        Some(Self { map, at: yaml.under, typo: unknown().next().is_some() })
    }

    pub(super) fn get(&self, key: &str) -> Option<&'y Entry> {
        self.map.iter().find(|entry| entry.key == key)
    }

    /// The text under `key`.
    pub(super) fn text(
        &self,
        key: &str,
        trail: &Trail<'_>,
        problems: &mut Problems,
    ) -> Option<&'y str> {
        let entry = self.get(key)?;
        text(&entry.value, &trail.key(key), problems)
    }

    /// The mapping of text to text under `key`; empty if there is none.
    pub(super) fn texts(
        &self,
        key: &str,
        trail: &Trail<'_>,
        problems: &mut Problems,
    ) -> BTreeMap<String, String> {
        let below = self.get(key).map(|entry| texts(&entry.value, &trail.key(key), problems));
        below.unwrap_or_default()
    }
}

/// A mapping of text to text.
pub(super) fn texts(
    yaml: &Yaml,
    trail: &Trail<'_>,
    problems: &mut Problems,
) -> BTreeMap<String, String> {
    let pair = |entry: &Entry, problems: &mut Problems| {
        let value = text(&entry.value, &trail.key(&entry.key), problems)?;
        Some((entry.key.clone(), value.to_owned()))
    };
    let map = mapping(yaml, trail, problems).unwrap_or_default();
    map.iter().filter_map(|entry| pair(entry, problems)).collect()
}

/// The entries of a mapping.
pub(super) fn mapping<'y>(
    yaml: &'y Yaml,
    trail: &Trail<'_>,
    problems: &mut Problems,
) -> Option<&'y [Entry]> {
    match &yaml.data {
        Data::Map(map) => Some(map),
        _ => {
            problems.add(yaml.at, trail, format_args!("expected a mapping, got {}", yaml.what()));
            None
        }
    }
}

/// A text.
pub(super) fn text<'y>(
    yaml: &'y Yaml,
    trail: &Trail<'_>,
    problems: &mut Problems,
) -> Option<&'y str> {
    let got = match &yaml.data {
        Data::Scalar(scalar) => match scalar.plain() {
            Plain::Text => return Some(&scalar.text),
            Plain::Bool(_) => quote_it("a boolean"),
            Plain::Integer(_) | Plain::Float(_) => quote_it("a number"),
            Plain::Null => "expected text, got nothing".to_owned(),
        },
        _ => format!("expected text, got {}", yaml.what()),
    };
    problems.add(yaml.at, trail, got);
    None
}
