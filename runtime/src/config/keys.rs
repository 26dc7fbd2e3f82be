//! A mapping of the file whose keys are fixed.

use std::collections::BTreeMap;

use bus_schema::{
    Selector,
    limits::{LABEL_BYTES_MAX, LABELS_MAX, TEXT_BYTES_MAX},
};

use super::{
    problem::{Problems, Trail},
    value::quote_it,
    yaml::{Data, Entry, Mark, Plain, Yaml},
};

const LABELS: &str = "labels";

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

    /// The labels under `labels`; none if there are none.
    pub(super) fn labels(
        &self,
        trail: &Trail<'_>,
        problems: &mut Problems,
    ) -> BTreeMap<String, String> {
        let below = self.get(LABELS);
        let below = below.map(|entry| labels(&entry.value, &trail.key(LABELS), problems));
        below.unwrap_or_default()
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

/// Labels: what selectors name.
pub(super) fn labels(
    yaml: &Yaml,
    trail: &Trail<'_>,
    problems: &mut Problems,
) -> BTreeMap<String, String> {
    let labels = texts(yaml, trail, problems);
    for Entry { key, at, .. } in mapping(yaml, trail, &mut Problems::new("")).unwrap_or_default() {
        let too_long = |value: &String| value.len() > LABEL_BYTES_MAX;
        if !Selector::is_word(key) {
            let right = "use 1 to 253 of a-z, A-Z, 0-9, '_', '-', '.', '/' and ':'";
            problems.add(*at, trail.key(key), format_args!("no selector could name it: {right}"));
        } else if labels.get(key).is_some_and(too_long) {
            let text = format!("the value is longer than {LABEL_BYTES_MAX} bytes");
            problems.add(*at, trail.key(key), text);
        } else if labels.get(key).is_some_and(|value| value.contains(char::is_control)) {
            problems.add(*at, trail.key(key), "the value has control characters");
        }
    }
    if labels.len() > LABELS_MAX {
        let text = format!("{} labels, where {LABELS_MAX} are the most", labels.len());
        problems.add(yaml.at, trail, text);
    }
    labels
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
            Plain::Text if scalar.text.len() > TEXT_BYTES_MAX => {
                format!("the text is longer than {TEXT_BYTES_MAX} bytes")
            }
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
