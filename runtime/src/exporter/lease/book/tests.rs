//! The rules against every order of things: clients that come and vanish, messages that are lost
//! and repeated, deadlines, crashes and restarts of the exporter.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use bus_schema::{Session, limits::OFFER_HELD};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::exporter::lease::{
    fence::{Fence, Pass},
    rules::AccessRule,
};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn name(name: &str) -> ClientName {
    name.parse().unwrap()
}

fn ticket(number: u64) -> TicketId {
    TicketId::new(Session(7), number)
}

fn rules() -> LeaseRules {
    LeaseRules {
        duration: secs(100),
        duration_max: secs(200),
        subtrees: vec!["a".parse().unwrap()],
        ..LeaseRules::default()
    }
}

fn book() -> Book {
    Book::new(rules(), false)
}

fn wanted(wait: u64, priority: u64) -> LeaseAction {
    LeaseAction::Acquire(Acquire {
        wait_ms: wait * 1000,
        priority,
        confirm: true,
        ..Acquire::default()
    })
}

fn hear(book: &mut Book, client: &str, number: u64, action: LeaseAction, now: u64) -> Leased {
    book.hear(&name(client), Some(ticket(number)), 0, action, secs(now))
}

fn epoch(leased: &Leased) -> u64 {
    match leased {
        Leased::Held(held) => held.epoch,
        other => panic!("not held: {other:?}"),
    }
}

/// Ends what is being ended, well.
fn settle(book: &mut Book, now: u64) {
    for unit in 0..book.units.len() {
        if let Phase::Ending { lease, .. } = &book.units[unit].phase {
            let epoch = lease.epoch;
            book.settled(unit, epoch, Ok(()), secs(now));
        }
    }
}

#[test]
fn a_free_tree_is_had_by_one_message_and_a_taken_one_names_its_holder() {
    let mut book = book();
    let first = hear(&mut book, "alice", 1, wanted(0, 0), 1000);
    assert_eq!(epoch(&first), 1_000_000_000);
    assert_eq!(
        hear(&mut book, "alice", 1, wanted(0, 0), 1001),
        hear(&mut book, "alice", 1, LeaseAction::Confirm, 1001)
    );
    let Leased::Refused(refusal) = hear(&mut book, "bob", 2, wanted(0, 0), 1010) else { panic!() };
    assert_eq!((refusal.code, refusal.holder), (RefusalCode::Busy, Some(name("alice"))));
    assert_eq!(refusal.left_ms, Some(90_000));
}

#[test]
fn the_next_is_served_when_all_is_safe_and_not_before() {
    let mut book = book();
    let first = epoch(&hear(&mut book, "alice", 1, wanted(0, 0), 1000));
    assert!(matches!(
        hear(&mut book, "bob", 2, wanted(60, 0), 1000),
        Leased::Waiting { before: 0, .. }
    ));
    hear(&mut book, "alice", 1, LeaseAction::Release, 1001);
    assert!(matches!(
        hear(&mut book, "bob", 2, LeaseAction::Confirm, 1001),
        Leased::Waiting { .. }
    ));
    book.settled(0, first, Err("the relay is stuck".to_owned()), secs(1002));
    assert!(matches!(book.standing(0), Standing::Closed { .. }));
    assert!(matches!(
        hear(&mut book, "bob", 2, LeaseAction::Confirm, 1002),
        Leased::Waiting { .. }
    ));
    assert!(book.kick(0, "mended", secs(1003)).is_ok());
    settle(&mut book, 1003);
    let told = |effect: &Effect| matches!(effect, Effect::Tell(client, news) if *client == name("bob") && matches!(news.now, Leased::Offered { .. }));
    assert!(book.effects().iter().any(told));
    assert!(epoch(&hear(&mut book, "bob", 2, LeaseAction::Confirm, 1003)) > first);
}

#[test]
fn priority_comes_first_and_then_arrival_and_an_offer_that_is_missed_goes_on() {
    let mut book = book();
    hear(&mut book, "alice", 1, wanted(0, 0), 1000);
    for (client, number, priority) in [("bob", 2, 0), ("carol", 3, 5), ("dave", 4, 5)] {
        hear(&mut book, client, number, wanted(100, priority), 1000);
    }
    hear(&mut book, "alice", 1, LeaseAction::Release, 1001);
    settle(&mut book, 1001);
    assert!(matches!(
        hear(&mut book, "carol", 3, LeaseAction::Alive { heard: 0 }, 1002),
        Leased::Offered { .. }
    ));
    book.tick(secs(1012)); // carol did not confirm
    assert!(matches!(
        hear(&mut book, "dave", 4, LeaseAction::Alive { heard: 9 }, 1012),
        Leased::Offered { .. }
    ));
    hear(&mut book, "dave", 4, LeaseAction::Decline { pause_ms: 500 }, 1012);
    assert!(matches!(
        hear(&mut book, "bob", 2, LeaseAction::Alive { heard: 9 }, 1012),
        Leased::Offered { .. }
    ));
}

#[test]
fn silence_ends_a_lease_but_not_while_the_exporter_is_cut_off() {
    let mut book = book();
    hear(&mut book, "alice", 1, wanted(0, 0), 1000);
    book.connection(false, secs(1010));
    book.tick(secs(1090));
    assert!(matches!(book.units[0].phase, Phase::Held(_)));
    book.connection(true, secs(1090));
    book.tick(secs(1099));
    assert!(matches!(book.units[0].phase, Phase::Held(_)), "one period of grace");
    book.tick(secs(1100));
    assert!(
        matches!(book.units[0].phase, Phase::Ending { .. }),
        "the deadline holds whatever else"
    );

    let mut book = Book::new(rules(), false);
    hear(&mut book, "alice", 1, wanted(0, 0), 1000);
    book.tick(secs(1060));
    let Leased::Ended { why, .. } =
        hear(&mut book, "alice", 1, LeaseAction::Alive { heard: 0 }, 1061)
    else {
        panic!()
    };
    assert_eq!(why, LeaseEnd::Silent);
}

#[test]
fn a_transfer_cuts_the_old_holder_and_gives_the_rest_to_the_new_one() {
    let mut book = book();
    let first = epoch(&hear(&mut book, "alice", 1, wanted(0, 0), 1000));
    let gone = hear(&mut book, "alice", 1, LeaseAction::Transfer { to: name("bob") }, 1010);
    assert!(matches!(gone, Leased::Ended { why: LeaseEnd::Transferred, .. }));
    assert_eq!(hear(&mut book, "alice", 1, LeaseAction::Transfer { to: name("bob") }, 1010), gone);
    settle(&mut book, 1011);
    let Phase::Held(lease) = &book.units[0].phase else { panic!() };
    assert_eq!((lease.client.as_str(), lease.until), ("bob", secs(1100)));
    assert!(lease.epoch > first && lease.detached);
    assert!(matches!(
        book.hear(&name("bob"), None, 0, LeaseAction::Release, secs(1012)),
        Leased::Ended { .. }
    ));
}

#[test]
fn a_renewal_never_passes_the_longest_lease() {
    let mut book = book();
    hear(&mut book, "alice", 1, wanted(0, 0), 1000);
    hear(&mut book, "alice", 1, LeaseAction::Renew { duration_ms: 200_000 }, 1050);
    let Phase::Held(lease) = &book.units[0].phase else { panic!() };
    assert_eq!(lease.until, secs(1200));
    let Leased::Refused(refusal) =
        hear(&mut book, "alice", 1, LeaseAction::Renew { duration_ms: 201_000 }, 1051)
    else {
        panic!()
    };
    assert_eq!((refusal.code, refusal.limit), (RefusalCode::NotAllowed, Some(200_000)));
}

#[test]
fn access_says_who_may_have_what_and_names_the_rule_that_is_missing() {
    let rule = AccessRule {
        clients: vec!["ci-*".to_owned()],
        subtrees: vec!["a".parse().unwrap()],
        duration_max: Some(secs(50)),
        priority_max: Some(3),
        leases_max: Some(1),
    };
    let mut book = Book::new(LeaseRules { access: vec![rule], ..rules() }, false);
    let mut ask = |client: &str, unit, number, action| match book.hear(
        &name(client),
        Some(ticket(number)),
        unit,
        action,
        secs(1000),
    ) {
        Leased::Refused(refusal) => refusal.text,
        other => format!("{other:?}"),
    };
    assert!(ask("bob", 1, 1, wanted(0, 0)).contains("no rule of `access` names bob"));
    assert!(ask("ci-1", 0, 2, wanted(0, 0)).contains("the tree"));
    assert!(ask("ci-1", 1, 3, wanted(0, 4)).contains("priority of at most 3"));
    let long = LeaseAction::Acquire(Acquire { duration_ms: 51_000, ..Acquire::default() });
    assert!(ask("ci-1", 1, 4, long).contains("longer than the 50s allowed"));
    assert!(ask("ci-1", 1, 5, wanted(0, 3)).contains("Held"));
    assert!(ask("ci-1", 1, 6, wanted(9, 3)).contains("may have 1"));
}

fn closure(maintenance: bool) -> Closure {
    Closure { by: name("root"), reason: "a new fan".to_owned(), maintenance }
}

#[test]
fn what_is_drained_is_granted_to_nobody_until_an_admin_says_so_even_after_a_restart() {
    let mut book = book();
    let first = epoch(&hear(&mut book, "alice", 1, wanted(0, 0), 1000));
    hear(&mut book, "bob", 2, wanted(600, 0), 1000);
    let done = book.drain(0, &closure(true), secs(1001));
    assert_eq!(done, "nothing more is granted on the tree, a; alice still has the tree");
    assert!(matches!(book.standing(0), Standing::Leased(_)), "what is held goes on");
    hear(&mut book, "alice", 1, LeaseAction::Release, 1002);
    settle(&mut book, 1003);
    assert_eq!(book.standing(0), Standing::Maintained(closure(true)));
    let Leased::Refused(refusal) = hear(&mut book, "carol", 3, wanted(0, 0), 1003) else {
        panic!()
    };
    assert!(refusal.text.contains("in maintenance by root: a new fan"), "{}", refusal.text);

    let written = book.effects().into_iter().filter_map(|effect| match effect {
        Effect::Keep(entry) => Some(entry),
        _ => None,
    });
    let mut again = Book::new(rules(), false);
    again.replay(written.collect::<Vec<_>>(), secs(1004));
    assert_eq!(again.standing(0), Standing::Maintained(closure(true)));
    assert_eq!(again.standing(1), Standing::Maintained(closure(true)), "it lies in the tree");

    assert_eq!(book.resume_grants(1, &name("root"), secs(1005)), "leases are granted again on a");
    hear(&mut book, "bob", 2, LeaseAction::Alive { heard: 0 }, 1005);
    let on_it = book.resume_grants(0, &name("root"), secs(1005));
    assert_eq!(on_it, "leases are granted again on the tree");
    assert!(epoch(&hear(&mut book, "bob", 2, LeaseAction::Confirm, 1005)) > first);
    assert!(book.resume_grants(0, &name("root"), secs(1006)).contains("was not drained"));
}

// --- every order of things -------------------------------------------------------------------

#[derive(Clone, Debug)]
enum Step {
    /// A client says something about one of its tickets; the message takes a while, and may come
    /// twice or never.
    Say {
        client: usize,
        ticket: u64,
        what: What,
        unit: usize,
        travel: Travel,
    },
    /// The oldest message that is on its way arrives.
    Arrive,
    /// Time passes.
    Pass(u64),
    /// A lease that ends is made safe, or not.
    Settle {
        unit: usize,
        safe: bool,
    },
    /// The exporter is killed and comes back; what was not on the disk is lost.
    Crash {
        synced: bool,
    },
    /// Its connection goes and comes.
    Connection(bool),
    Kick(usize),
    /// An admin closes a subtree, or opens it again.
    Drain(usize, bool),
    Resume(usize),
    /// A call arrives, made under no lease, the present one or one that has ended.
    Call {
        client: usize,
        unit: usize,
        under: Under,
    },
    /// The turn of the oldest call that waits for it.
    Turn,
}

#[derive(Clone, Copy, Debug)]
enum Under {
    Nothing,
    ThisLease,
    AnotherLease,
}

#[derive(Clone, Debug)]
enum What {
    Acquire { wait: u64, priority: u64, confirm: bool, detached: bool },
    Confirm,
    Decline,
    Alive,
    Renew,
    Release,
    Transfer(usize),
    Allow(usize, bool),
}

#[derive(Clone, Copy, Debug)]
enum Travel {
    Well,
    Twice,
    Lost,
}

const CLIENTS: [&str; 3] = ["alice", "bob", "carol"];

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        4 => (0..40_u64, 0..3_u64, any::<bool>(), any::<bool>()).prop_map(
            |(wait, priority, confirm, detached)| What::Acquire { wait, priority, confirm, detached }
        ),
        3 => Just(What::Confirm),
        1 => Just(What::Decline),
        2 => Just(What::Alive),
        1 => Just(What::Renew),
        2 => Just(What::Release),
        1 => (0..3_usize).prop_map(What::Transfer),
        1 => (0..3_usize, any::<bool>()).prop_map(|(client, revoke)| What::Allow(client, revoke)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let travel =
        prop_oneof![4 => Just(Travel::Well), 1 => Just(Travel::Twice), 1 => Just(Travel::Lost)];
    let under =
        prop_oneof![Just(Under::Nothing), Just(Under::ThisLease), Just(Under::AnotherLease)];
    prop_oneof![
        8 => (0..3_usize, 0..3_u64, what(), 0..2_usize, travel).prop_map(
            |(client, ticket, what, unit, travel)| Step::Say { client, ticket, what, unit, travel }
        ),
        8 => Just(Step::Arrive),
        3 => (0..70_u64).prop_map(Step::Pass),
        4 => (0..2_usize, prop::bool::weighted(0.8)).prop_map(|(unit, safe)| Step::Settle { unit, safe }),
        1 => any::<bool>().prop_map(|synced| Step::Crash { synced }),
        1 => any::<bool>().prop_map(Step::Connection),
        1 => (0..2_usize).prop_map(Step::Kick),
        6 => (0..3_usize, 0..2_usize, under).prop_map(
            |(client, unit, under)| Step::Call { client, unit, under }
        ),
        4 => Just(Step::Turn),
        1 => (0..2_usize, any::<bool>()).prop_map(|(unit, mine)| Step::Drain(unit, mine)),
        1 => (0..2_usize).prop_map(Step::Resume),
    ]
}

/// The exporter as its clients see it, and what is true of it.
struct World {
    book: Book,
    rules: LeaseRules,
    hook_before: bool,
    now: Duration,
    disk: Vec<Entry>,
    mail: VecDeque<(ClientName, TicketId, usize, LeaseAction)>,
    /// The lease whose operations may run, by subtree: what fences let in.
    inside: BTreeMap<usize, Lease>,
    fences: Vec<Fence>,
    /// Calls that were let in and wait for their turn.
    calls: VecDeque<(ClientName, Pass)>,
    /// Leases that their holders were told of, and that were not ended since.
    promised: HashMap<usize, Lease>,
    epochs: u64,
}

impl World {
    fn new(hook_before: bool, required: bool) -> Self {
        let rules = LeaseRules { required, ..rules() };
        Self {
            book: Book::new(rules.clone(), hook_before),
            fences: fences(&rules),
            rules,
            hook_before,
            now: secs(1000),
            disk: Vec::new(),
            mail: VecDeque::new(),
            inside: BTreeMap::new(),
            calls: VecDeque::new(),
            promised: HashMap::new(),
            epochs: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Say { client, ticket: number, what, unit, travel } => {
                let action = action(&what);
                let message = (name(CLIENTS[client]), ticket(number), unit, action);
                let copies = match travel {
                    Travel::Well => 1,
                    Travel::Twice => 2,
                    Travel::Lost => 0,
                };
                (0..copies).for_each(|_| self.mail.push_back(message.clone()));
            }
            Step::Arrive => self.arrive(),
            Step::Pass(passed) => self.now += secs(passed),
            Step::Settle { unit, safe } => self.settle(unit, safe),
            Step::Crash { synced } => return self.crash(synced),
            Step::Connection(connected) => self.book.connection(connected, self.now),
            Step::Kick(unit) => {
                let _ = self.book.kick(unit, "", self.now);
            }
            Step::Call { client, unit, under } => self.call(&name(CLIENTS[client]), unit, under),
            Step::Turn => self.turn(),
            Step::Drain(unit, maintenance) => {
                self.book.drain(unit, &closure(maintenance), self.now);
            }
            Step::Resume(unit) => {
                self.book.resume_grants(unit, &name("root"), self.now);
            }
        }
        self.book.tick(self.now);
        self.carry_out();
        self.check();
    }

    fn arrive(&mut self) {
        let Some((client, ticket, unit, action)) = self.mail.pop_front() else { return };
        let answer = self.book.hear(&client, Some(ticket), unit, action, self.now);
        self.carry_out();
        if let Leased::Held(held) = answer {
            let at = self.book.units.iter().position(|unit| unit.path == held.path).unwrap();
            assert_eq!(held.holder, client, "a lease is told to its holder");
            self.promised.insert(at, self.book.units[at].lease().unwrap().clone());
        }
    }

    fn call(&mut self, client: &ClientName, unit: usize, under: Under) {
        let now = self.book.units[unit].lease().map_or(self.epochs, |lease| lease.epoch);
        let epoch = match under {
            Under::Nothing => None,
            Under::ThisLease => Some(now),
            Under::AnotherLease => Some(now.saturating_sub(1)),
        };
        let let_in = self.fences[unit].admit(client, epoch);
        assert!(let_in.is_err() || !matches!(under, Under::AnotherLease), "{epoch:?} has ended");
        if let Ok(pass) = let_in {
            assert!(self.may_use(unit, client), "{client} was let in");
            self.calls.push_back((client.clone(), pass));
        } else if !matches!(under, Under::AnotherLease) {
            let held = matches!(&self.book.units[unit].phase, Phase::Held(_));
            assert!(!(held && self.may_use(unit, client)), "{client} has the lease");
        }
    }

    fn turn(&mut self) {
        let Some((client, pass)) = self.calls.pop_front() else { return };
        if self.fences[pass.unit].holds(pass) {
            assert!(self.may_use(pass.unit, &client), "a call of {client} is executed");
        }
    }

    fn may_use(&self, unit: usize, client: &ClientName) -> bool {
        match &self.book.units[unit].phase {
            Phase::Held(lease) => !lease.starting && lease.lets_in(client),
            Phase::Free | Phase::Offered { .. } => match self.book.standing(unit) {
                Standing::Open => !self.rules.required,
                Standing::Maintained(closure) => closure.by == *client,
                Standing::Leased(_) | Standing::Closed { .. } => false,
            },
            Phase::Ending { .. } | Phase::Unsafe { .. } => false,
        }
    }

    fn settle(&mut self, unit: usize, safe: bool) {
        match self.book.units[unit].phase.clone() {
            Phase::Ending { lease, .. } => {
                self.inside.remove(&unit); // its operations have ended, however
                let theirs = |(_, pass): &(ClientName, Pass)| pass.unit == unit;
                assert!(!self.calls.iter().any(theirs), "a call waits beyond its lease");
                let safe = if safe { Ok(()) } else { Err("stuck".to_owned()) };
                self.book.settled(unit, lease.epoch, safe, self.now);
            }
            Phase::Held(lease) if lease.starting => {
                let hook = if safe { Ok(()) } else { Err("no".to_owned()) };
                self.book.begun(unit, lease.epoch, hook, self.now);
            }
            _ => {}
        }
    }

    /// Everything but the disk is lost; what was not written yet may be, with what it promised.
    fn crash(&mut self, synced: bool) {
        if let Some((client, ticket, unit, action)) = self.mail.pop_front() {
            self.book.hear(&client, Some(ticket), unit, action, self.now); // and no answer
        }
        let lost = self.book.effects();
        for effect in lost.into_iter().filter(|_| synced) {
            if let Effect::Keep(entry) = effect {
                self.look_at(&entry);
                self.disk.push(entry);
            }
        }
        self.inside.clear(); // operations end with their process
        self.calls.clear();
        self.fences = fences(&self.rules);
        self.book = Book::new(self.rules.clone(), self.hook_before);
        self.book.replay(self.disk.clone(), self.now);
        for (unit, lease) in self.promised.clone() {
            let now = &self.book.units[unit].phase;
            let as_it_was = matches!(now, Phase::Held(held) if held.epoch == lease.epoch);
            assert!(as_it_was, "{lease:?} was promised, and is {now:?}");
        }
        self.carry_out();
    }

    /// What the keeper does: the disk, the fences, the rest.
    fn carry_out(&mut self) {
        for effect in self.book.effects() {
            match effect {
                Effect::Keep(entry) => {
                    self.look_at(&entry);
                    self.disk.push(entry);
                }
                Effect::Admit(unit) => {
                    self.admit(unit);
                    match self.book.standing(unit) {
                        Standing::Leased(lease) => {
                            let before = self.inside.insert(unit, lease.clone());
                            let other = before.filter(|before| before.epoch != lease.epoch);
                            assert_eq!(other, None, "{lease:?} began before that had ended");
                        }
                        Standing::Open | Standing::Maintained(_) => {
                            assert_eq!(self.inside.get(&unit), None);
                        }
                        Standing::Closed { .. } => {}
                    }
                }
                _ => {}
            }
        }
    }

    /// As the keeper does: the fence first, then what is behind it.
    fn admit(&mut self, unit: usize) {
        self.fences[unit].set(self.book.standing(unit), None);
        let goes_on = self.fences[unit].lets_go_on();
        self.calls.retain(|(client, pass)| goes_on(*pass, client));
    }

    fn look_at(&mut self, entry: &Entry) {
        match entry {
            Entry::Lease { lease, path } => {
                let known = self.disk.iter().any(|before| {
                    matches!(before, Entry::Lease { lease: other, .. } if other.epoch == lease.epoch)
                });
                assert!(known || lease.epoch > self.epochs, "epochs grow: {lease:?}");
                self.epochs = self.epochs.max(lease.epoch);
                assert!(lease.until <= lease.since + rules().duration_max);
                let unit = self.book.units.iter().position(|unit| unit.path == *path).unwrap();
                let stale = |promised: &Lease| promised.epoch != lease.epoch;
                assert!(!self.promised.get(&unit).is_some_and(stale), "two holders");
            }
            Entry::Ending { path, .. } => {
                let unit = self.book.units.iter().position(|unit| unit.path == *path).unwrap();
                self.promised.remove(&unit);
            }
            Entry::Last { .. } | Entry::Freed { .. } | Entry::Closed { .. } => {}
        }
    }

    /// What is true at any time.
    fn check(&self) {
        for (at, unit) in self.book.units.iter().enumerate() {
            if let Phase::Held(lease) = &unit.phase {
                assert!(lease.until > self.now, "{lease:?} outlives its deadline");
            }
            if let Standing::Leased(lease) = self.book.standing(at) {
                assert!(matches!(&unit.phase, Phase::Held(held) if *held == lease));
            }
            if unit.closure.is_some() {
                let offered = matches!(unit.phase, Phase::Offered { .. });
                assert!(!offered, "what is closed is offered");
            } else if unit.phase == Phase::Free {
                let ready = unit.queue.iter().find(|key| self.book.is_ready(key, self.now));
                assert_eq!(ready, None, "somebody waits for what is free");
            }
            assert!(unit.queue.is_sorted_by_key(|key| {
                let ticket = &self.book.tickets[key];
                (std::cmp::Reverse(ticket.asked.priority), ticket.number)
            }));
        }
        let due = self.book.due(self.now);
        assert!(due.is_none_or(|due| due > self.now), "{due:?} was due before {:?}", self.now);
        // The shortest journal says the same as the whole one.
        let (mut short, mut long) = (Book::new(rules(), false), Book::new(rules(), false));
        short.replay(self.book.summary(), self.now);
        long.replay(self.disk.clone(), self.now);
        let said = |book: &Book| {
            let unit = |unit: &Unit| (unit.phase.clone(), unit.closure.clone());
            book.units.iter().map(unit).collect::<Vec<_>>()
        };
        assert_eq!(said(&short), said(&long));
        assert_eq!(short.last_epoch.max(self.epochs), long.last_epoch.max(self.epochs));
    }

    /// From now on everybody does what they should: nobody waits for ever.
    fn everybody_is_served_or_told(&mut self) {
        self.mail.clear();
        self.book.connection(true, self.now);
        self.book.resume_grants(0, &name("root"), self.now);
        for _ in 0..100 {
            let keys: Vec<_> = self.book.tickets.keys().cloned().collect();
            for key in &keys {
                let unit = self.book.tickets.get(key).map_or(0, |ticket| ticket.unit);
                let stands = self.book.stands(key, self.now);
                let action = match stands {
                    Leased::Offered { .. } => LeaseAction::Confirm,
                    Leased::Held(_) => LeaseAction::Release,
                    _ => LeaseAction::Alive { heard: u64::MAX },
                };
                self.book.hear(&key.client, Some(key.ticket), unit, action, self.now);
                self.carry_out();
            }
            for unit in 0..self.book.units.len() {
                self.settle(unit, true);
                self.carry_out();
            }
            self.now += secs(1);
            self.book.tick(self.now);
            self.carry_out();
            self.check();
        }
        for key in self.book.tickets.keys() {
            let stands = self.book.stands(key, self.now);
            assert!(matches!(stands, Leased::Ended { .. }), "{key:?} is {stands:?}");
        }
        for unit in &self.book.units {
            assert_eq!(unit.phase, Phase::Free, "{:?}", unit.path);
        }
    }
}

fn fences(rules: &LeaseRules) -> Vec<Fence> {
    let rules = Arc::new(rules.clone());
    let fence = |(unit, path)| Fence::new(unit, path, rules.clone());
    rules.units().into_iter().enumerate().map(fence).collect()
}

fn action(what: &What) -> LeaseAction {
    match what {
        What::Acquire { wait, priority, confirm, detached } => LeaseAction::Acquire(Acquire {
            wait_ms: wait * 1000,
            priority: *priority,
            confirm: *confirm,
            detached: *detached,
            duration_ms: 0,
            place: None,
        }),
        What::Confirm => LeaseAction::Confirm,
        What::Decline => LeaseAction::Decline { pause_ms: 300 },
        What::Alive => LeaseAction::Alive { heard: 1 },
        What::Renew => LeaseAction::Renew { duration_ms: 150_000 },
        What::Release => LeaseAction::Release,
        What::Transfer(to) => LeaseAction::Transfer { to: name(CLIENTS[*to]) },
        What::Allow(client, revoke) => {
            LeaseAction::Allow { client: name(CLIENTS[*client]), revoke: *revoke }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, failure_persistence: None, ..Default::default() })]

    #[test]
    fn there_is_one_holder_nobody_else_is_let_in_no_lease_outlives_its_deadline_and_all_are_told(
        hook_before: bool,
        required: bool,
        steps in vec(step(), 1..80),
    ) {
        let mut world = World::new(hook_before, required);
        for step in steps {
            world.step(step);
        }
        world.everybody_is_served_or_told();
    }
}

#[test]
fn an_offer_is_held_no_longer_than_it_may() {
    let mut book = book();
    let offered = LeaseAction::Acquire(Acquire { wait_ms: 60_000, ..Acquire::default() });
    assert_eq!(hear(&mut book, "alice", 1, offered, 1000), Leased::Offered { left_ms: 10_000 });
    hear(&mut book, "bob", 2, wanted(60, 0), 1000);
    book.tick(secs(1000) + OFFER_HELD);
    assert!(matches!(hear(&mut book, "bob", 2, LeaseAction::Confirm, 1010), Leased::Held(_)));
    assert!(matches!(
        hear(&mut book, "alice", 1, LeaseAction::Confirm, 1010),
        Leased::Waiting { .. }
    ));
}
