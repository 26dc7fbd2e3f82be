//! What the configuration says about leases: who may have what, for how long, how urgently.

use std::time::Duration;

use bus_schema::{
    Acquire, ClientName, Path, Refusal, RefusalCode,
    limits::{LEASE_ALIVE, LEASE_DURATION, LEASE_DURATION_MAX, LEASE_PRIORITY_MAX},
};

/// The rules of one exporter's leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRules {
    /// Whether calls need a lease even while nobody has one.
    pub required: bool,
    /// A lease without a sign of life ends after this time.
    pub keep_alive: Duration,
    /// What a client gets that does not say how long it wants it.
    pub duration: Duration,
    /// Longest lease, renewals included.
    pub duration_max: Duration,
    /// The subtrees that are leased apart; what lies in none of them is leased with the root.
    pub subtrees: Vec<Path>,
    /// Who may have what. Empty: everybody everything.
    pub access: Vec<AccessRule>,
}

impl Default for LeaseRules {
    fn default() -> Self {
        Self {
            required: false,
            keep_alive: LEASE_ALIVE,
            duration: LEASE_DURATION,
            duration_max: LEASE_DURATION_MAX,
            subtrees: Vec::new(),
            access: Vec::new(),
        }
    }
}

/// What some clients may have. The first rule that names a client and a subtree counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRule {
    /// Names of clients; one that ends with `*` is every name that begins so.
    pub clients: Vec<String>,
    /// Only in these subtrees; empty is everywhere.
    pub subtrees: Vec<Path>,
    /// Longest lease.
    pub duration_max: Option<Duration>,
    /// Highest priority.
    pub priority_max: Option<u64>,
    /// Leases at this exporter at the same time.
    pub leases_max: Option<usize>,
}

impl AccessRule {
    fn names(&self, client: &ClientName) -> bool {
        self.clients.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => client.as_str().starts_with(beginning),
            None => pattern == client.as_str(),
        })
    }

    fn covers(&self, path: &Path) -> bool {
        self.subtrees.is_empty() || self.subtrees.iter().any(|subtree| path.is_within(subtree))
    }
}

/// What one client may have of one subtree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(crate) duration_max: Duration,
    pub(crate) priority_max: u64,
    pub(crate) leases_max: usize,
}

impl LeaseRules {
    /// The subtrees that are leased apart from each other, the rest of the tree first.
    pub(crate) fn units(&self) -> Vec<Path> {
        let mut subtrees: Vec<_> =
            self.subtrees.iter().filter(|path| !path.is_root()).cloned().collect();
        subtrees.sort();
        subtrees.dedup();
        std::iter::once(Path::ROOT).chain(subtrees).collect()
    }

    /// What `client` may have of the subtree at `path`.
    ///
    /// # Errors
    ///
    /// *not-allowed*, with the rule that is missing.
    pub(crate) fn allowance(&self, client: &ClientName, path: &Path) -> Result<Allowance, Refusal> {
        let all = Allowance {
            duration_max: self.duration_max,
            priority_max: LEASE_PRIORITY_MAX,
            leases_max: usize::MAX,
        };
        if self.access.is_empty() {
            return Ok(all);
        }
        let mut named = self.access.iter().filter(|rule| rule.names(client)).peekable();
        let is_named = named.peek().is_some();
        let rule = named.find(|rule| rule.covers(path)).ok_or_else(|| {
            let text = match is_named {
                true => format!(
                    "{client} may not have {}: no rule of `access` for {client} names it",
                    shown(path)
                ),
                false => {
                    format!("{client} may not have leases here: no rule of `access` names {client}")
                }
            };
            Refusal::new(RefusalCode::NotAllowed, text)
        })?;
        Ok(Allowance {
            duration_max: rule
                .duration_max
                .map_or(all.duration_max, |max| max.min(all.duration_max)),
            priority_max: rule
                .priority_max
                .map_or(all.priority_max, |max| max.min(all.priority_max)),
            leases_max: rule.leases_max.unwrap_or(all.leases_max),
        })
    }

    /// How long a lease lasts that is asked for like this.
    ///
    /// # Errors
    ///
    /// *not-allowed*, with the limit.
    pub(crate) fn duration(
        &self,
        asked_ms: u64,
        allowance: &Allowance,
    ) -> Result<Duration, Refusal> {
        let max = allowance.duration_max;
        match Duration::from_millis(asked_ms) {
            Duration::ZERO => Ok(self.duration.min(max)),
            asked if asked <= max => Ok(asked),
            asked => {
                let text = format!(
                    "a lease of {} is longer than the {} allowed",
                    humantime::format_duration(asked),
                    humantime::format_duration(max)
                );
                let limit = u64::try_from(max.as_millis()).unwrap_or(u64::MAX);
                Err(Refusal::new(RefusalCode::NotAllowed, text).with_limit(limit))
            }
        }
    }

    /// Whether a lease may be asked for like this; how long it will last.
    ///
    /// # Errors
    ///
    /// *not-allowed*, with the limit.
    pub(crate) fn check(
        &self,
        client: &ClientName,
        path: &Path,
        asked: &Acquire,
    ) -> Result<(Allowance, Duration), Refusal> {
        let allowance = self.allowance(client, path)?;
        if asked.priority > allowance.priority_max {
            let max = allowance.priority_max;
            let text = format!(
                "{client} may ask with a priority of at most {max}, not {}",
                asked.priority
            );
            return Err(Refusal::new(RefusalCode::NotAllowed, text).with_limit(max));
        }
        let duration = self.duration(asked.duration_ms, &allowance)?;
        Ok((allowance, duration))
    }
}

/// A subtree as people read it.
pub(crate) fn shown(path: &Path) -> String {
    match path.is_root() {
        true => "the tree".to_owned(),
        false => path.to_string(),
    }
}

/// The subtree that a driver at `path` is leased with: the deepest that it lies in.
pub(crate) fn unit_of<'a>(units: impl Iterator<Item = &'a Path>, path: &Path) -> usize {
    let around = units.enumerate().filter(|(_, unit)| path.is_within(unit));
    around.max_by_key(|(_, unit)| unit.steps().len()).map_or(0, |(at, _)| at)
}
