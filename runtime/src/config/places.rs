//! A file of places: `name: {role: address, …}`, read as strictly as an exporter's.

use std::path;

use bus_schema::{Address, Place, PlaceName, RoleName, limits::PLACE_ROLES_MAX};

use super::{
    ConfigErrors, keys,
    keys::mapping,
    problem::{Problems, Trail},
    read_text,
    yaml::{self, Entry},
};

/// What a place may say besides its roles.
const LABELS: &str = "labels";
const DESCRIPTION: &str = "description";

/// Reads a file of places.
///
/// # Errors
///
/// [`ConfigErrors`] with everything that is wrong.
pub fn read_places(file: &path::Path) -> Result<Vec<Place>, ConfigErrors> {
    let name = file.display().to_string();
    parse_places(&read_text(file)?, &name)
}

/// Reads the text of a file that errors call `file_name`.
///
/// # Errors
///
/// [`ConfigErrors`] with everything that is wrong.
pub fn parse_places(text: &str, file_name: &str) -> Result<Vec<Place>, ConfigErrors> {
    let mut problems = Problems::new(file_name);
    let places = yaml::read(text, &mut problems).map(|yaml| {
        let entries = mapping(&yaml, &Trail::TOP, &mut problems).unwrap_or_default();
        entries.iter().filter_map(|entry| place(entry, &mut problems)).collect()
    });
    match places {
        Some(places) if problems.is_empty() => Ok(places),
        _ => Err(ConfigErrors(problems.into_list())),
    }
}

fn place(entry: &Entry, problems: &mut Problems) -> Option<Place> {
    let Entry { key, at, value } = entry;
    let trail = Trail::TOP.key(key);
    let name = key.parse::<PlaceName>();
    let name = name.map_err(|error| problems.add(*at, trail, error)).ok();
    let (mut roles, mut labels, mut description) = (Vec::new(), Default::default(), String::new());
    for Entry { key, at, value } in mapping(value, &trail, problems)? {
        let trail = trail.key(key);
        match key.as_str() {
            LABELS => labels = keys::labels(value, &trail, problems),
            DESCRIPTION => {
                description = keys::text(value, &trail, problems).unwrap_or_default().to_owned();
            }
            role => {
                let role = role.parse::<RoleName>();
                let role = role.map_err(|error| problems.add(*at, trail, error)).ok();
                let address = keys::text(value, &trail, problems).and_then(|text| {
                    let address = text.parse::<Address>();
                    address.map_err(|error| problems.add(value.at, trail, error)).ok()
                });
                roles.extend(role.zip(address));
            }
        }
    }
    if roles.is_empty() && problems.is_empty() {
        problems.add(*at, trail, "a place has at least one role: write \"role: exporter/child\"");
    }
    if roles.len() > PLACE_ROLES_MAX {
        problems.add(*at, trail, format_args!("more than {PLACE_ROLES_MAX} roles"));
    }
    let roles = roles.into_iter().collect();
    Some(Place { name: name?, roles, labels, description, removed: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
rpi-1:
  description: by the door
  labels: {board: rpi4}
  power: pdu-1/port3
  serial: bench-3/uart0
nuc: {power: pdu-1/port4}
";

    fn wrong(text: &str) -> String {
        parse_places(text, "places.yaml").unwrap_err().to_string()
    }

    #[test]
    fn places_are_read_with_their_roles() {
        let places = parse_places(GOOD, "places.yaml").unwrap();
        assert_eq!(places.len(), 2);
        let rpi = places.iter().find(|place| place.name.as_str() == "rpi-1").unwrap();
        assert_eq!(rpi.roles.get(&"power".parse().unwrap()).unwrap().to_string(), "pdu-1/port3");
        assert_eq!((rpi.labels["board"].as_str(), &*rpi.description), ("rpi4", "by the door"));
        let addresses: Vec<_> = rpi.addresses().iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["bench-3/uart0", "pdu-1/port3"]);
    }

    #[test]
    fn each_mistake_is_told_with_its_line() {
        for (text, part) in [
            ("Rpi: {power: a/b}", "places.yaml:1:1: Rpi: \"Rpi\" is no place name"),
            ("rpi: {Power: a/b}", "places.yaml:1:7: rpi.Power: \"Power\" is no role name"),
            ("rpi:\n  power: A/b", "places.yaml:2:10: rpi.power: \"A\" is no exporter name"),
            ("rpi: {power: 7}", "rpi.power: expected text, got a number"),
            ("rpi: {}", "a place has at least one role"),
            ("rpi: {labels: {a: b}}", "a place has at least one role"),
            ("rpi: [a/b]", "expected a mapping"),
            ("- a", "expected a mapping"),
            ("rpi: {power: a/b, power: a/c}", "power"),
            ("rpi: {power: \"@nuc/power\"}", "is no exporter name"),
        ] {
            assert!(wrong(text).contains(part), "{text}: {}", wrong(text));
        }
        let many: String = (0..=PLACE_ROLES_MAX).map(|n| format!("  r{n}: a/b\n")).collect();
        assert!(wrong(&format!("rpi:\n{many}")).contains("more than 64 roles"));
    }
}
