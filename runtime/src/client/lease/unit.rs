//! Which subtree a driver is leased with: its exporter says.

use bus_schema::{
    Address, Board, LeaseAction, LeaseAsk, Leased, codec,
    subject::{ExporterVerb, To},
};
use futures_util::future::try_join_all;

use super::{Client, Lease, LeaseError, LeaseRequest, ticket};

impl Client {
    /// The subtree that the driver at `address` is leased with.
    ///
    /// # Errors
    ///
    /// [`LeaseError`], also if there is no such driver.
    pub async fn lease_unit(&self, address: &Address) -> Result<Address, LeaseError> {
        let (path, action) = (address.path.clone(), LeaseAction::Status);
        let ask = codec::encode(&LeaseAsk { ticket: None, path, driver: None, action });
        let (exporter, to) = (&address.exporter, To::Exporter(ExporterVerb::Lease));
        let answer = ticket::answer(&self.0, exporter, to, ask).await?;
        match (codec::decode(answer.payload()), codec::decode(answer.payload())) {
            (Ok(Board { at, .. }), _) => {
                let path = at.unwrap_or_else(|| address.path.clone()); // an older exporter
                Ok(Address { exporter: exporter.clone(), path })
            }
            (_, Ok(Leased::Refused(refusal))) => {
                Err(LeaseError::Refused { address: address.to_string(), refusal })
            }
            (Err(error), _) => Err(LeaseError::Garbled(error.to_string())),
        }
    }

    /// Leases the boards of all these drivers, or none of them. Drivers of one subtree are one
    /// board.
    ///
    /// # Errors
    ///
    /// [`LeaseError`]; nothing is held then.
    pub async fn lease_set(
        &self,
        addresses: &[Address],
        request: &LeaseRequest,
    ) -> Result<Vec<Lease>, LeaseError> {
        let units = addresses.iter().map(|address| self.lease_unit(address));
        let units = each_once(try_join_all(units).await?);
        self.leases(&units, units.len(), request).await
    }
}

/// Two tickets of one client on one subtree would wait for each other.
pub(super) fn each_once(mut units: Vec<Address>) -> Vec<Address> {
    units.sort();
    units.dedup();
    units
}
