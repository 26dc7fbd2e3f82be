//! A place as a lease's target: the boards of all its drivers, or none of them.

use std::sync::Arc;

use bus_schema::{Address, LeaseEnd, Path, Place, PlaceName, PlaceRef, RoleName};
use futures_util::future::{join_all, select_all, try_join_all};

use super::{Client, Lease, LeaseError, LeaseRequest, unit::each_once};
use crate::{DriverRef, PlaceError};

/// The leases on all boards of a place, as it was when they were taken: what an admin makes of
/// the place meanwhile does not change what is held. Dropping it gives them back.
#[derive(Debug)]
#[must_use = "leases end when they are dropped"]
pub struct PlaceLease {
    place: Place,
    /// The board of each role.
    units: Vec<(RoleName, Address)>,
    leases: Vec<Lease>,
}

impl PlaceLease {
    /// The place as it was.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The leases, one for each board.
    pub fn leases(&self) -> &[Lease] {
        &self.leases
    }

    /// The driver in a role, used under the lease of its board. None if there is no such role.
    pub fn driver(&self, role: &RoleName) -> Option<DriverRef> {
        let address = self.place.roles.get(role)?;
        let (_, unit) = self.units.iter().find(|(of, _)| of == role)?;
        let lease = self.leases.iter().find(|lease| lease.address() == *unit)?;
        Some(lease.driver(address))
    }

    /// Resolves when the first of them is over, with which and why. Cancel safe.
    pub async fn ended(&self) -> (Address, LeaseEnd, String) {
        let ended = async |lease: &Lease| {
            let (why, text) = lease.ended().await;
            (lease.address(), why, text)
        };
        select_all(self.leases.iter().map(|lease| Box::pin(ended(lease)))).await.0
    }

    /// Gives all of them back, and returns when the exporters know.
    ///
    /// # Errors
    ///
    /// The first [`LeaseError`]; that lease then ends by its silence.
    pub async fn release(self) -> Result<(), LeaseError> {
        let released = join_all(self.leases.into_iter().map(Lease::release)).await;
        released.into_iter().collect()
    }

    /// The single leases.
    pub fn into_leases(self) -> Vec<Lease> {
        self.leases
    }
}

impl Client {
    /// Leases the boards of all drivers of a place, or none of them.
    ///
    /// # Errors
    ///
    /// [`LeaseError`], with the role that is at fault if one is; nothing is held then.
    pub async fn lease_place(
        &self,
        name: &PlaceName,
        request: &LeaseRequest,
    ) -> Result<PlaceLease, LeaseError> {
        let place = self.place(name).await.map_err(LeaseError::of_place)?;
        let units = self.place_units(&place).await?;
        let boards = each_once(units.iter().map(|(_, unit)| unit.clone()).collect());
        let request = LeaseRequest { place: Some(name.clone()), ..request.clone() };
        let leases = self.leases(&boards, boards.len(), &request).await?;
        Ok(PlaceLease { place, units, leases })
    }

    /// The boards of a place: for each role the subtree that its driver is leased with.
    ///
    /// # Errors
    ///
    /// [`LeaseError::Role`]: which driver is not there.
    pub async fn place_units(&self, place: &Place) -> Result<Vec<(RoleName, Address)>, LeaseError> {
        let unit = async |role: &RoleName, address: &Address| match self.lease_unit(address).await {
            Ok(unit) => Ok((role.clone(), unit)),
            Err(error) => {
                let (place, role, below) = (place.name.clone(), role.clone(), Path::ROOT);
                let of = PlaceRef { place, role, below };
                Err(LeaseError::Role { of, error: Box::new(error) })
            }
        };
        try_join_all(place.roles.iter().map(|(role, address)| unit(role, address))).await
    }
}

impl LeaseError {
    fn of_place(error: PlaceError) -> Self {
        Self::Place(Arc::new(error))
    }
}
