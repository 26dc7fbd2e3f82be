//! The leases of the environment: those that `jmp-bus shell` or `jmp-bus run` holds for the
//! command that this one was started in.

use std::fmt;

use bus_schema::{Address, PlaceName};

use crate::args::variable;

/// The variable that names them: `bench=1795554000000000,bench/board-a=1795554000000001`.
pub(crate) const VARIABLE: &str = "JMP_BUS_LEASE";

/// The variable that names the places which are leased as a whole: `rpi-1,nuc`.
pub(crate) const PLACES: &str = "JMP_BUS_PLACE";

/// The leases of the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeldLeases {
    leases: Vec<(Address, u64)>,
    places: Vec<PlaceName>,
}

impl HeldLeases {
    /// These, and those that were taken after them.
    pub(crate) fn and(mut self, later: &[(Address, u64)]) -> Self {
        self.leases.extend_from_slice(later);
        self
    }

    /// The places that are leased as a whole.
    pub(crate) fn places(&self) -> &[PlaceName] {
        &self.places
    }

    fn new(leases: Vec<(Address, u64)>) -> Self {
        Self { leases, places: Vec::new() }
    }

    /// Those that the variable names. What is no lease in it is nobody's.
    pub(crate) fn of_environment() -> Self {
        let held = variable(VARIABLE).map(|text| Self::read(&text)).unwrap_or_default();
        let places = variable(PLACES).unwrap_or_default();
        let places = places.split(',').filter_map(|name| name.parse().ok()).collect();
        Self { places, ..held }
    }

    fn read(text: &str) -> Self {
        let lease = |item: &str| {
            let (address, epoch) = item.split_once('=')?;
            Some((address.parse().ok()?, epoch.parse().ok()?))
        };
        Self::new(text.split(',').filter_map(lease).collect())
    }

    /// The number of the lease that a driver is used under: that of the deepest subtree around it.
    pub(crate) fn epoch_at(&self, address: &Address) -> Option<u64> {
        let around = self.leases.iter().filter(|(top, _)| {
            top.exporter == address.exporter && address.path.is_within(&top.path)
        });
        around.max_by_key(|(top, _)| top.path.steps().len()).map(|(_, epoch)| *epoch)
    }
}

impl HeldLeases {
    /// Whether `place` is leased, and the driver at `address` is in none of its boards.
    pub(crate) fn lacks(&self, place: &PlaceName, address: &Address) -> bool {
        self.places.contains(place) && self.epoch_at(address).is_none()
    }
}

impl fmt::Display for HeldLeases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items: Vec<_> =
            self.leases.iter().map(|(address, epoch)| format!("{address}={epoch}")).collect();
        f.write_str(&items.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_is_used_under_the_lease_of_the_deepest_subtree_around_it() {
        let held = HeldLeases::read("bench=5,bench/board-a=6,nonsense,other=x");
        assert_eq!(held.to_string(), "bench=5,bench/board-a=6");
        let held = held.and(&[("bench/board-a".parse().unwrap(), 7)]);
        let epoch = |address: &str| held.epoch_at(&address.parse().unwrap());
        assert_eq!(epoch("bench/board-a/serial"), Some(7), "the later one");
        assert_eq!(epoch("bench/board-b"), Some(5));
        assert_eq!(epoch("bench2/board-a"), None);
    }

    #[test]
    fn a_place_lacks_what_was_no_part_of_it_when_it_was_leased() {
        let held = HeldLeases::read("bench=5");
        let held = HeldLeases { places: vec!["rpi-1".parse().unwrap()], ..held };
        let lacks = |place: &str, address: &str| {
            held.lacks(&place.parse().unwrap(), &address.parse().unwrap())
        };
        assert!(!lacks("rpi-1", "bench/power") && lacks("rpi-1", "other/power"));
        assert!(!lacks("nuc", "other/power"), "that place is not leased");
    }
}
