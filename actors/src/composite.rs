//! A driver that does nothing but hold others.

use bus_schema::driver;

/// Holds other drivers, and has no methods of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Composite;

#[driver]
impl Composite {}
