//! The leases of the environment: those that `jmp-bus shell` or `jmp-bus run` holds for the
//! command that this one was started in.

use std::fmt;

use bus_schema::Address;

use crate::args::variable;

/// The variable that names them: `bench=1795554000000000,bench/board-a=1795554000000001`.
pub(crate) const VARIABLE: &str = "JMP_BUS_LEASE";

/// The leases of the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeldLeases(Vec<(Address, u64)>);

impl HeldLeases {
    pub(crate) fn new(leases: Vec<(Address, u64)>) -> Self {
        Self(leases)
    }

    /// Those that the variable names. What is no lease in it is nobody's.
    pub(crate) fn of_environment() -> Self {
        variable(VARIABLE).map(|text| Self::read(&text)).unwrap_or_default()
    }

    fn read(text: &str) -> Self {
        let lease = |item: &str| {
            let (address, epoch) = item.split_once('=')?;
            Some((address.parse().ok()?, epoch.parse().ok()?))
        };
        Self(text.split(',').filter_map(lease).collect())
    }

    /// The number of the lease that a driver is used under: that of the deepest subtree around it.
    pub(crate) fn epoch_at(&self, address: &Address) -> Option<u64> {
        let around = self.0.iter().filter(|(top, _)| {
            top.exporter == address.exporter && address.path.is_within(&top.path)
        });
        around.max_by_key(|(top, _)| top.path.steps().len()).map(|(_, epoch)| *epoch)
    }
}

impl fmt::Display for HeldLeases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items: Vec<_> =
            self.0.iter().map(|(address, epoch)| format!("{address}={epoch}")).collect();
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
        let epoch = |address: &str| held.epoch_at(&address.parse().unwrap());
        assert_eq!(epoch("bench/board-a/serial"), Some(6));
        assert_eq!(epoch("bench/board-b"), Some(5));
        assert_eq!(epoch("bench2/board-a"), None);
    }
}
