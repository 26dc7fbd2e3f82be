//! The fence around a subtree: whether a call may pass, on its arrival, at its turn, and for every
//! message of a stream. One atomic load each; nobody waits for anybody.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use bus_schema::{ClientName, HookId, Path, Refusal, RefusalCode, Session};
use tokio::time::Instant;

use super::{
    book::{Lease, Standing},
    rules::{LeaseRules, shown},
};

/// The fence around one subtree.
pub(crate) struct Fence {
    /// Its place in the list of subtrees.
    pub(crate) unit: usize,
    pub(crate) path: Path,
    /// Counts who may use it: what was let in under another number may go on no longer.
    generation: AtomicU64,
    gate: ArcSwap<Gate>,
    /// Whether a hook has used the subtree since this was last asked.
    hook_acted: AtomicBool,
}

struct Gate {
    generation: u64,
    standing: Standing,
    /// The hook that runs now.
    hook: Option<HookId>,
    /// The moment that the lease ends at, for those who are told.
    until: Option<Instant>,
    rules: Arc<LeaseRules>,
}

/// That an operation was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    pub(crate) unit: usize,
    pub(crate) generation: u64,
}

impl Fence {
    pub(crate) fn new(unit: usize, path: Path, rules: Arc<LeaseRules>) -> Self {
        let standing = match rules.required {
            true => Standing::Closed { why: "it needs a lease".to_owned(), lease: None },
            false => Standing::Open,
        };
        let gate = Gate { generation: 0, standing, hook: None, until: None, rules };
        let (generation, gate) = (AtomicU64::new(0), ArcSwap::from_pointee(gate));
        Self { unit, path, generation, gate, hook_acted: AtomicBool::new(false) }
    }

    /// Lets a call or stream in, or not.
    ///
    /// # Errors
    ///
    /// *not-leased*, with who has the lease and for how long; *not-allowed* for a client that
    /// could not have one.
    pub(crate) fn admit(&self, client: &ClientName, epoch: Option<u64>) -> Result<Pass, Refusal> {
        let gate = self.gate.load();
        let pass = Pass { unit: self.unit, generation: gate.generation };
        match &gate.standing {
            Standing::Open if epoch.is_none() && gate.rules.access.is_empty() => Ok(pass),
            Standing::Leased(lease)
                if lease.lets_in(client) && epoch.is_none_or(|epoch| epoch == lease.epoch) =>
            {
                Ok(pass)
            }
            _ => self.refuse(&gate, client, epoch).map_or(Ok(pass), Err),
        }
    }

    /// Whether what was let in may still go on.
    pub(crate) fn holds(&self, pass: Pass) -> bool {
        self.generation.load(Ordering::Acquire) == pass.generation
    }

    /// The refusal for what may go on no longer.
    pub(crate) fn ended(&self) -> Refusal {
        let text = format!("the lease on {} has ended", shown(&self.path));
        Refusal::new(RefusalCode::NotLeased, text)
    }

    /// Says who may use the subtree from now on. What was let in before may go on only if it was
    /// under the same lease; whether it was is known by the generation.
    pub(crate) fn set(&self, standing: Standing, until: Option<Instant>) {
        self.change(|old| {
            let (generation, hook) = match same_lease(&old.standing, &standing) {
                true => (old.generation, old.hook),
                false => (old.generation + 1, None), // a hook of what was before acts no more
            };
            let (standing, rules) = (standing.clone(), old.rules.clone());
            Gate { generation, standing, hook, until, rules }
        });
    }

    /// Lets a call or stream of a hook in, or not.
    ///
    /// # Errors
    ///
    /// *not-leased*: the hook of that session does not run for this subtree now.
    pub(crate) fn admit_hook(&self, session: Option<Session>) -> Result<Pass, Refusal> {
        let gate = self.gate.load();
        if session.is_some() && gate.hook == session.map(Session::hook) {
            self.hook_acted.store(true, Ordering::Relaxed);
            return Ok(Pass { unit: self.unit, generation: gate.generation });
        }
        let text = format!(
            "a hook may use the drivers of its own subtree, while it runs: none that speaks like \
             this runs for {} now",
            shown(&self.path)
        );
        Err(Refusal::new(RefusalCode::NotLeased, text))
    }

    /// From now on this hook may use the subtree.
    pub(crate) fn open_for_hook(&self, hook: HookId) {
        self.hold_for(Some(hook), |_| true);
    }

    /// The hook has ended: what it has begun may go on no longer.
    pub(crate) fn close_for_hook(&self, hook: HookId) {
        self.hold_for(None, |now| now == Some(hook));
    }

    /// Whether a hook has used the subtree since this was last asked.
    pub(crate) fn take_hook_acted(&self) -> bool {
        self.hook_acted.swap(false, Ordering::Relaxed)
    }

    fn hold_for(&self, hook: Option<HookId>, if_now: impl Fn(Option<HookId>) -> bool) {
        self.change(|old| {
            let (generation, hook) = match if_now(old.hook) {
                true => (old.generation + 1, hook),
                false => (old.generation, old.hook),
            };
            let (standing, rules) = (old.standing.clone(), old.rules.clone());
            Gate { generation, standing, hook, until: old.until, rules }
        });
    }

    /// The keeper and a hook's task may change it at the same time.
    fn change(&self, to: impl Fn(&Gate) -> Gate) {
        self.gate.rcu(|old| to(old));
        // Whoever is later has seen the other's change, and so has the higher number.
        self.generation.fetch_max(self.gate.load().generation, Ordering::Release);
    }

    /// The number that operations have which may go on, and whose they may be; none may go on that
    /// have another.
    pub(crate) fn lets_go_on(&self) -> impl Fn(Pass, &ClientName) -> bool + use<> {
        let gate = self.gate.load_full();
        let unit = self.unit;
        move |pass, client| {
            let may_use = match &gate.standing {
                Standing::Leased(lease) => lease.lets_in(client),
                Standing::Maintained(closure) => closure.by == *client,
                Standing::Open | Standing::Closed { .. } => true,
            };
            pass.unit != unit || (pass.generation == gate.generation && may_use)
        }
    }

    /// Other rules are in force.
    pub(crate) fn follow(&self, rules: &Arc<LeaseRules>) {
        self.gate.rcu(|gate| {
            let Gate { generation, standing, hook, until, .. } = &**gate;
            let (generation, hook, until) = (*generation, *hook, *until);
            Gate { generation, standing: standing.clone(), hook, until, rules: rules.clone() }
        });
    }

    fn refuse(&self, gate: &Gate, client: &ClientName, epoch: Option<u64>) -> Option<Refusal> {
        let path = shown(&self.path);
        let not_leased = |text: String| Some(Refusal::new(RefusalCode::NotLeased, text));
        let with = |refusal: Option<Refusal>, lease: &Lease| {
            let left = gate.until.map(|until| until.saturating_duration_since(Instant::now()));
            let left_ms = left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
            refusal.map(|refusal| Refusal {
                holder: Some(lease.client.clone()),
                left_ms,
                ..refusal
            })
        };
        match (&gate.standing, epoch) {
            (Standing::Open, None) => gate.rules.allowance(client, &self.path).err(),
            (Standing::Open, Some(epoch)) => {
                not_leased(format!("lease {epoch} on {path} has ended"))
            }
            (Standing::Leased(lease), Some(epoch)) if lease.lets_in(client) => {
                let now = lease.epoch;
                with(
                    not_leased(format!("lease {epoch} on {path} has ended; now it is {now}")),
                    lease,
                )
            }
            (Standing::Leased(lease), _) => {
                with(not_leased(format!("{path} is leased by {}", lease.client)), lease)
            }
            (Standing::Maintained(closure), None) if closure.by == *client => None,
            (Standing::Maintained(closure), _) => {
                not_leased(format!("{path} cannot be used now: {closure}"))
            }
            (Standing::Closed { why, lease }, _) => {
                let refusal = not_leased(format!("{path} cannot be used now: {why}"));
                match lease {
                    Some(lease) => with(refusal, lease),
                    None => refusal,
                }
            }
        }
    }
}

/// Whether what was let in under the one may go on under the other.
fn same_lease(old: &Standing, new: &Standing) -> bool {
    match (old, new) {
        (Standing::Leased(old), Standing::Leased(new)) => old.epoch == new.epoch,
        // It was renewed or shared while its hook runs.
        (
            Standing::Closed { why, lease: Some(old) },
            Standing::Closed { why: now, lease: Some(new) },
        ) => old.epoch == new.epoch && why == now,
        (old, new) => old == new,
    }
}

impl std::fmt::Debug for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fence").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bus_schema::TicketId;

    use super::*;

    fn name(name: &str) -> ClientName {
        name.parse().unwrap()
    }

    fn lease(client: &str, epoch: u64) -> Lease {
        Lease {
            epoch,
            client: name(client),
            ticket: TicketId(1),
            allowed: vec![name("carol")],
            since: Duration::ZERO,
            until: Duration::from_secs(1),
            detached: false,
            starting: false,
            place: None,
        }
    }

    #[test]
    fn a_lease_fences_off_everybody_but_its_holder_and_whom_it_allows() {
        let fence = Fence::new(0, Path::ROOT, Arc::default());
        let free = fence.admit(&name("bob"), None).unwrap();
        assert!(fence.admit(&name("bob"), Some(7)).is_err(), "that lease has ended");
        fence.set(Standing::Leased(lease("alice", 8)), None);
        assert!(!fence.holds(free));
        let pass = fence.admit(&name("alice"), Some(8)).unwrap();
        assert_eq!(fence.admit(&name("carol"), None), Ok(pass));
        let refusal = fence.admit(&name("bob"), None).unwrap_err();
        assert_eq!((refusal.code, refusal.holder), (RefusalCode::NotLeased, Some(name("alice"))));
        assert!(fence.admit(&name("alice"), Some(7)).is_err(), "an old epoch");
        fence.set(Standing::Leased(Lease { allowed: vec![], ..lease("alice", 8) }), None);
        assert!(fence.holds(pass), "the lease is the same");
        let goes_on = fence.lets_go_on();
        assert!(goes_on(pass, &name("alice")) && !goes_on(pass, &name("carol")));
        fence.set(Standing::Closed { why: "it ends".to_owned(), lease: None }, None);
        assert!(!fence.holds(pass) && fence.admit(&name("alice"), Some(8)).is_err());
        fence.set(Standing::Open, None);
        assert!(!fence.holds(free), "a lease was in between");
    }

    #[test]
    fn a_hook_uses_its_own_subtree_while_it_runs_and_not_a_moment_longer() {
        let fence = Fence::new(0, Path::ROOT, Arc::default());
        let (own, other) = (HookId(1), HookId(2));
        let admit = |hook, random| fence.admit_hook(Some(Session::of_hook(hook, random)));
        let starting = |allowed| {
            let lease = Lease { starting: true, allowed, ..lease("alice", 8) };
            Standing::Closed { why: "its hook runs".to_owned(), lease: Some(lease) }
        };
        assert!(admit(own, 7).is_err(), "none runs");
        fence.set(starting(vec![]), None);
        fence.open_for_hook(own);
        assert!(admit(other, 7).is_err() && fence.admit_hook(None).is_err());
        assert!(fence.admit(&name("alice"), Some(8)).is_err(), "the lease has not begun");
        assert!(!fence.take_hook_acted());
        let pass = admit(own, 7).unwrap();
        assert_eq!(admit(own, 8), Ok(pass), "another process of it");
        assert!(fence.holds(pass) && fence.take_hook_acted() && !fence.take_hook_acted());
        fence.set(starting(vec![name("bob")]), None);
        assert!(fence.holds(pass), "the lease was shared meanwhile");
        fence.close_for_hook(other);
        assert!(fence.holds(pass), "another hook has ended");
        fence.close_for_hook(own);
        assert!(!fence.holds(pass) && admit(own, 7).is_err());
        assert!(!fence.lets_go_on()(pass, &name("exporter")));
        fence.open_for_hook(own);
        let pass = admit(own, 7).unwrap();
        fence.set(Standing::Leased(lease("alice", 8)), None);
        assert!(!fence.holds(pass) && admit(own, 7).is_err());
        fence.close_for_hook(own);
        assert!(fence.admit(&name("alice"), Some(8)).is_ok());
    }
}
