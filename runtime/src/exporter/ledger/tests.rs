//! No call is executed twice, whatever is lost, repeated, forgotten or restarted.

use proptest::prelude::*;

use super::{super::usage::Ended, *};

const DRIVERS: usize = 3;

/// What may happen. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    /// A client makes a new call; the message may be lost.
    Call {
        client: usize,
        driver: usize,
        deadline_s: u64,
        lost: bool,
    },
    /// A client sends one of its calls again, however long it was given up.
    Repeat(usize),
    /// A client no longer waits for a call.
    GiveUp(usize),
    /// A plain client sends a message without an id.
    Anonymous {
        client: usize,
        driver: usize,
    },
    Begin(usize),
    Open(usize),
    Settle {
        at: usize,
        bytes: usize,
    },
    Cancel(usize),
    Ask(usize),
    Wait(u64),
    Sweep,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let any = any::<usize>;
    prop_oneof![
        6 => (any(), any(), 0..400_u64, prop::bool::weighted(0.3)).prop_map(
            |(client, driver, deadline_s, lost)| Step::Call { client, driver, deadline_s, lost }
        ),
        6 => any().prop_map(Step::Repeat),
        3 => any().prop_map(Step::GiveUp),
        1 => (any(), any()).prop_map(|(client, driver)| Step::Anonymous { client, driver }),
        2 => any().prop_map(Step::Begin),
        1 => any().prop_map(Step::Open),
        5 => (any(), 0..(OUTCOME_BYTES_MAX / 2)).prop_map(|(at, bytes)| Step::Settle { at, bytes }),
        1 => any().prop_map(Step::Cancel),
        2 => any().prop_map(Step::Ask),
        3 => (0..3_u64).prop_map(Step::Wait),
        1 => (100..700_u64).prop_map(Step::Wait),
        2 => Just(Step::Sweep),
        1 => Just(Step::Restart),
    ]
}

/// A call as its client knows it.
struct Made {
    client: usize,
    id: CallId,
    driver: DriverId,
    deadline: Duration,
    first_sent: Duration,
    waited_for: bool,
    runs: u32,
}

/// Two clients and an exporter, on one clock.
#[derive(Default)]
struct World {
    ledger: Ledger,
    now: Duration,
    started: Duration,
    made: Vec<Made>,
    running: Vec<Receipt>,
}

impl World {
    fn uptime(&self) -> Duration {
        self.now - self.started
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Call { client, driver, deadline_s, lost } => {
                let counter = self.made.len() as u64 + 1;
                self.made.push(Made {
                    client: client % 2,
                    id: CallId { session: Session(client as u64 % 2), counter },
                    driver: driver_id(driver),
                    deadline: Duration::from_secs(deadline_s),
                    first_sent: self.now,
                    waited_for: true,
                    runs: 0,
                });
                if !lost {
                    self.send(self.made.len() - 1, false)?;
                }
            }
            Step::Repeat(at) if !self.made.is_empty() => self.send(at % self.made.len(), true)?,
            Step::GiveUp(at) if !self.made.is_empty() => {
                let at = at % self.made.len();
                self.made[at].waited_for = false;
            }
            Step::Anonymous { client, driver } => {
                let arrival = arrival(client % 2, None, driver_id(driver));
                if let Admission::Run(receipt) = self.ledger.admit(arrival, self.uptime()) {
                    self.running.push(receipt);
                }
            }
            Step::Begin(at) if !self.running.is_empty() => {
                let now = self.uptime();
                self.ledger.begin(&self.running[at % self.running.len()], now);
            }
            Step::Open(at) if !self.running.is_empty() => {
                self.ledger.opened(&self.running[at % self.running.len()], &answer(9));
            }
            Step::Settle { at, bytes } if !self.running.is_empty() => {
                let receipt = self.running.swap_remove(at % self.running.len());
                self.ledger.settle(&receipt, &answer(bytes), self.uptime());
            }
            Step::Cancel(at) if !self.made.is_empty() => {
                let call = &self.made[at % self.made.len()];
                self.ledger.cancel(&name(call.client), call.id);
            }
            Step::Ask(at) if !self.made.is_empty() => {
                let call = &self.made[at % self.made.len()];
                let (progress, _) = self.ledger.ask(&name(call.client), call.id, self.uptime());
                let runs = call.runs > 0;
                prop_assert!(runs || progress == Progress::Unknown, "{:?}", progress);
            }
            Step::Wait(secs) => self.now += Duration::from_secs(secs),
            Step::Sweep => self.ledger.sweep(self.uptime()),
            Step::Restart => {
                self.ledger = Ledger::default();
                self.started = self.now;
                self.running.clear();
                self.now += Duration::from_millis(1);
            }
            _ => {}
        }
        Ok(())
    }

    /// Sends a call, and sees to it that it is executed at most once.
    fn send(&mut self, at: usize, repeated: bool) -> Result<(), TestCaseError> {
        let call = &self.made[at];
        let waited = self.made.iter().filter(|made| made.client == call.client && made.waited_for);
        let done_below = waited.map(|made| made.id.counter).min().unwrap_or(u64::MAX);
        let arrival = Arrival {
            age: if repeated { self.now - call.first_sent } else { Duration::ZERO },
            repeated,
            deadline: call.deadline,
            done_below: done_below.min(call.id.counter),
            ..arrival(call.client, Some(call.id), call.driver)
        };
        if let Admission::Run(receipt) = self.ledger.admit(arrival, self.uptime()) {
            self.running.push(receipt);
            self.made[at].runs += 1;
            prop_assert_eq!(self.made[at].runs, 1, "{} was executed twice", self.made[at].id);
        }
        Ok(())
    }

    /// The sums that the table keeps are those of what is in it.
    fn check_sums(&self) -> Result<(), TestCaseError> {
        let open = self.running.len();
        prop_assert_eq!(self.ledger.per_driver.values().sum::<usize>(), open);
        let of_clients: usize = self.ledger.clients.values().map(|client| client.open).sum();
        prop_assert_eq!(of_clients, open);
        prop_assert_eq!(
            self.ledger.queued_bytes,
            self.running.iter().map(|r| r.bytes).sum::<usize>()
        );
        let (mut ended, mut ended_bytes) = (0, 0);
        let sessions = self.ledger.clients.values().flat_map(|client| client.sessions.values());
        for entry in
            sessions.flat_map(|session| session.calls.values().chain(session.streams.values()))
        {
            if let EntryState::Ended { bytes, .. } = &entry.state {
                ended += 1;
                ended_bytes += bytes;
            }
        }
        prop_assert_eq!(&self.ledger.kept, &Kept { calls: ended, bytes: ended_bytes });
        prop_assert!(ended_bytes <= OUTCOME_BYTES_MAX);
        let sessions = self.ledger.clients.values().map(|client| client.sessions.len());
        prop_assert_eq!(self.ledger.sessions, sessions.sum::<usize>());
        Ok(())
    }
}

fn name(client: usize) -> ClientName {
    ["alice", "bob"][client].parse().unwrap()
}

fn driver_id(driver: usize) -> DriverId {
    uuid::Uuid::from_u128((driver % DRIVERS) as u128).into()
}

fn arrival(client: usize, id: Option<CallId>, driver: DriverId) -> Arrival {
    Arrival {
        client: name(client),
        id,
        driver,
        fingerprint: 7,
        age: Duration::ZERO,
        repeated: false,
        deadline: Duration::from_secs(30),
        done_below: 0,
        bytes: 10,
        pass: None,
        reply_to: ReplyTo { subject: "inbox".into(), together: false },
        begins: false,
    }
}

/// An answer that counts as `bytes` without taking them.
fn answer(bytes: usize) -> Answer {
    static ZEROS: std::sync::LazyLock<bytes::Bytes> =
        std::sync::LazyLock::new(|| vec![0; OUTCOME_BYTES_MAX].into());
    let (message, ended) = (ZEROS.slice(..bytes), Ended::Well);
    Answer { message, error: None, large: None, ended }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_call_is_executed_twice(steps in prop::collection::vec(step(), 0..150)) {
        let mut world = World::default();
        for step in &steps {
            world.take(step)?;
            world.check_sums()?;
        }
        let now = world.uptime();
        for receipt in std::mem::take(&mut world.running) {
            world.ledger.settle(&receipt, &answer(1), now);
        }
        prop_assert_eq!(world.ledger.open(), 0);
        prop_assert!(world.ledger.clients.values().all(|client| client.open == 0));
        prop_assert!(world.ledger.per_driver.is_empty());
        prop_assert_eq!(world.ledger.queued_bytes, 0);
    }
}

#[test]
fn an_open_stream_is_not_cancelled_by_the_next_call_of_its_client() {
    let mut ledger = Ledger::default();
    let id = |counter| Some(CallId { session: Session(1), counter });
    let now = Duration::ZERO;
    let Admission::Run(open) = ledger.admit(arrival(0, id(1), driver_id(0)), now) else {
        panic!("a first call is admitted")
    };
    ledger.begin(&open, now);
    ledger.opened(&open, &answer(9));
    let (progress, again) = ledger.ask(&name(0), id(1).unwrap(), now);
    assert!(matches!(progress, Progress::Running(0)) && again.is_some());
    let again = ledger.admit(arrival(0, id(1), driver_id(0)), now);
    assert!(matches!(again, Admission::Ended(answer) if answer.bytes() == 9));

    let next = Arrival { done_below: 2, ..arrival(0, id(2), driver_id(0)) };
    assert!(matches!(ledger.admit(next, now), Admission::Run(_)));
    assert!(!open.cancel.is_raised());
    assert_eq!(ledger.settle(&open, &answer(9), now), None);
}

#[test]
fn one_id_is_one_call_at_one_driver() {
    let mut ledger = Ledger::default();
    let id = Some(CallId { session: Session(1), counter: 1 });
    let admitted = ledger.admit(arrival(0, id, driver_id(0)), Duration::ZERO);
    assert!(matches!(admitted, Admission::Run(_)));
    let elsewhere = ledger.admit(arrival(0, id, driver_id(1)), Duration::ZERO);
    assert!(
        matches!(elsewhere, Admission::Refused(refusal) if refusal.code == RefusalCode::IdReused)
    );
}

#[test]
fn a_client_that_invents_sessions_makes_nobody_but_itself_be_forgotten() {
    let mut ledger = Ledger::default();
    let second = Duration::from_secs;
    let id = |session| CallId { session: Session(session), counter: 1 };
    let mut call = |client, session, repeated, now| {
        let (id, age) = (id(session), if repeated { second(2) } else { Duration::ZERO });
        let call = Arrival { repeated, age, ..arrival(client, Some(id), driver_id(0)) };
        let admission = ledger.admit(call, now);
        if let Admission::Run(receipt) = &admission {
            ledger.settle(receipt, &answer(1), now);
        }
        let sessions = ledger.clients.values().map(|client| client.sessions.len());
        assert_eq!(ledger.sessions, sessions.sum::<usize>());
        let sessions = ledger.clients.values().flat_map(|client| client.sessions.values());
        let with_calls = sessions.filter(|session| !session.is_empty()).count();
        assert_eq!(ledger.kept.calls, with_calls, "each has one that has ended");
        assert!(ledger.sessions <= SESSIONS_PER_CLIENT_MAX + 1);
        admission
    };
    let held = call(1, 7, false, second(100));
    assert!(matches!(held, Admission::Run(_)), "{held:?}");
    for session in 0..=SESSIONS_PER_CLIENT_MAX as u64 {
        let admission = call(0, session, false, second(100) + Duration::from_micros(session));
        assert!(matches!(admission, Admission::Run(_)), "{admission:?}");
    }
    let soon = second(101);
    let forgotten = call(0, 3, true, soon);
    assert!(matches!(forgotten, Admission::Unknown(Unknown::Forgotten)), "{forgotten:?}");
    let newest = call(0, SESSIONS_PER_CLIENT_MAX as u64, true, soon);
    assert!(matches!(newest, Admission::Ended(_)), "{newest:?}");
    let other = call(1, 7, true, soon);
    assert!(matches!(other, Admission::Ended(_)), "{other:?}");
}
