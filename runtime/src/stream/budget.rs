//! The credit that one connection grants, shared out over its streams.

use std::sync::{Arc, Mutex, PoisonError};

use bus_schema::limits::{CREDIT_BYTES_MAX, WINDOW_BYTES_MAX, WINDOW_BYTES_MIN};

/// A new stream gets this part of what is free, so that hundreds of them all get some.
const SHARE: usize = 64;

/// Credit that is not granted yet. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    free: Arc<Mutex<usize>>,
}

/// Credit of one stream, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Grant {
    budget: Budget,
    bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { free: Arc::new(Mutex::new(CREDIT_BYTES_MAX)) }
    }
}

impl Budget {
    /// Credit for a new stream; `None` if less than one chunk's worth is left.
    pub(crate) fn grant(&self) -> Option<Grant> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = (*free / SHARE).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        *free = free.checked_sub(bytes)?;
        Some(Grant { budget: self.clone(), bytes })
    }

    /// The credit of a streaming call at its exporter, which receives nothing.
    pub(crate) fn nothing(&self) -> Grant {
        Grant { budget: self.clone(), bytes: 0 }
    }
}

impl Grant {
    /// What was granted.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// Doubles the grant while most of the budget is free: a stream that is read as fast as it
    /// comes should not wait for credit. Says by how much it grew.
    pub(crate) fn grow(&mut self) -> u64 {
        let mut free = self.budget.free.lock().unwrap_or_else(PoisonError::into_inner);
        let more = self.bytes.min(WINDOW_BYTES_MAX - self.bytes);
        if *free < CREDIT_BYTES_MAX / 2 || more == 0 {
            return 0;
        }
        *free -= more;
        self.bytes += more;
        more as u64
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        *self.budget.free.lock().unwrap_or_else(PoisonError::into_inner) += self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hundreds_of_streams_share_one_budget_and_give_it_back() {
        let budget = Budget::default();
        let grants: Vec<_> = std::iter::from_fn(|| budget.grant()).collect();
        assert!(grants.len() >= 256, "{}", grants.len());
        assert!(grants.iter().all(|grant| grant.bytes() >= WINDOW_BYTES_MIN as u64));
        drop(grants);
        assert_eq!(*budget.free.lock().unwrap(), CREDIT_BYTES_MAX);
    }

    #[test]
    fn a_lone_stream_grows_to_its_limit() {
        let mut grant = Budget::default().grant().unwrap();
        while grant.grow() > 0 {}
        assert_eq!(grant.bytes(), WINDOW_BYTES_MAX as u64);
    }
}
