//! Leases: who holds a board uses it, and nobody else does.

use std::{path::PathBuf, time::Duration};

use bus_schema::{
    Address, BoardUnit, EventKind, Fault, LeaseEnd, Leased, Place, PlaceName, RefusalCode,
    UnitState, driver, message::ResetCode,
};
use bus_tests::{Events, Lab, TestDriverClient};
use runtime::{
    AccessRule, CallError, Client, Hook, HookFailure, Lease, LeaseError, LeaseRequest, Node, Since,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const GRACE: Duration = Duration::from_secs(10);
const EXPORTER: &str = env!("CARGO_BIN_EXE_test-exporter");

fn bench() -> Address {
    "bench".parse().expect("an address")
}

fn waiting() -> LeaseRequest {
    LeaseRequest { wait: Duration::from_secs(20), ..LeaseRequest::default() }
}

async fn lease(client: &Client) -> Result<Lease, LeaseError> {
    client.lease(&bench(), &LeaseRequest::default()).await
}

fn refused(error: CallError) -> bus_schema::Refusal {
    match error {
        CallError::Refused { refusal, .. } => refusal,
        other => panic!("not refused: {other}"),
    }
}

#[tokio::test]
async fn a_lease_turns_everybody_else_away_and_ends_with_its_value() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let exporter = lab.lend("bench", Node::of("test", lab.driver()), |_| ()).await?;
    let (alice, bob) = (lab.client("alice").await?, lab.client("bob").await?);
    lab.bench(&bob).count().await?; // nobody has it, and it needs none

    let held = lease(&alice).await?;
    let refusal = refused(lab.bench(&bob).count().await.unwrap_err());
    assert_eq!((refusal.code, refusal.holder), (RefusalCode::NotLeased, Some("alice".parse()?)));
    assert!(refusal.left_ms.is_some_and(|left| left > 1_000_000), "{:?}", refusal.left_ms);
    let taken = lease(&bob).await.unwrap_err();
    let LeaseError::Refused { refusal, .. } = &taken else { panic!("{taken}") };
    assert_eq!(refusal.code, RefusalCode::Busy);

    lab.bench(&alice).count().await?; // by her name
    TestDriverClient::new(held.driver(&bench())).count().await?; // and under its number
    held.allow("bob".parse()?).await?;
    lab.bench(&bob).count().await?;
    let old = held.driver(&bench());
    drop(held);
    let next = bob.lease(&bench(), &waiting()).await?;
    assert_eq!(
        refused(TestDriverClient::new(old).count().await.unwrap_err()).code,
        RefusalCode::NotLeased
    );
    next.release().await?;
    assert_eq!(lab.counted().len(), 4);
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn a_kick_cuts_streams_and_calls_and_what_waits_for_its_turn_never_begins()
-> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let driver = lab.driver();
    let events = driver.events.clone();
    let exporter = lab.lend("bench", Node::of("test", driver), |_| ()).await?;
    let (alice, admin) = (lab.client("alice").await?, lab.client("admin").await?);
    let held = lease(&alice).await?;
    let on = lab.bench(&alice);
    let mut stream = on.reflect().await?;
    stream.write_all(b"a").await?;
    assert_eq!(stream.read_u8().await?, b'a');
    let holding = on.hold("mine".to_owned());
    let later = async {
        events.happened("begin mine").await;
        on.count().await
    };
    let kick = async {
        events.happened("begin mine").await;
        admin.kick(&bench(), None, "fire".to_owned()).await
    };
    let (cut, never, kicked) = tokio::join!(holding, later, kick);
    kicked?;
    assert!(cut.is_err() || events.all().contains(&"cancelled mine".to_owned()));
    assert_eq!(refused(never.unwrap_err()).code, RefusalCode::NotLeased);
    let error = stream.read_u8().await.unwrap_err();
    let error = error.downcast::<runtime::StreamError>().expect("how it broke off");
    assert_eq!(error.code, ResetCode::LeaseEnded);
    let (why, text) = held.ended().await;
    assert_eq!((why, text.contains("fire")), (LeaseEnd::Kicked, true));
    assert_eq!(lab.counted(), Vec::<String>::new());
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn a_lease_survives_its_exporter_killed_and_its_registry_gone() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let (alice, bob) = (lab.client("alice").await?, lab.client("bob").await?);
    let exporter = lab.spawn(EXPORTER).await?;
    let held = lease(&alice).await?;
    TestDriverClient::new(held.driver(&bench())).count().await?;
    exporter.kill().await?;
    let exporter = lab.spawn(EXPORTER).await?;
    let refusal = refused(lab.bench(&bob).count().await.unwrap_err());
    assert_eq!(refusal.holder, Some("alice".parse()?));
    TestDriverClient::new(held.driver(&bench())).count().await?;
    let board = alice.board(&"bench".parse()?).await?;
    assert_eq!(board.units[0].lease.as_ref().map(|lease| lease.epoch), Some(held.epoch()));
    held.release().await?;
    let next = bob.lease(&bench(), &waiting()).await?;
    lab.bench(&bob).count().await?;
    drop(next);
    assert_eq!(lab.counted().len(), 3);
    exporter.kill().await?;
    Ok(())
}

#[tokio::test]
async fn a_waiter_is_next_and_one_that_vanishes_is_not_waited_for() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let exporter = lab.lend("bench", Node::of("test", lab.driver()), |_| ()).await?;
    let (alice, bob, carol) =
        (lab.client("alice").await?, lab.client("bob").await?, lab.client("carol").await?);
    let held = lease(&alice).await?;
    let gives_up = LeaseRequest { priority: 9, ..waiting() };
    let (at, request) = (bench(), waiting());
    let mut first = Box::pin(bob.lease(&at, &gives_up));
    let mut second = Box::pin(carol.lease(&at, &request));
    let waits = async |count: u64| {
        while alice.board(&"bench".parse().unwrap()).await.unwrap().units[0].waiting != count {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        ended = &mut first => panic!("{ended:?}"),
        ended = &mut second => panic!("{ended:?}"),
        () = waits(2) => {}
    }
    drop(first);
    tokio::select! {
        ended = &mut second => panic!("{ended:?}"),
        () = waits(1) => {}
    }
    held.release().await?;
    second.await?.release().await?;
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn two_sets_that_want_the_same_boards_in_opposite_order_are_both_served() -> anyhow::Result<()>
{
    let lab = Lab::new().await?;
    let mut exporters = Vec::new();
    let mut boards: Vec<Address> = Vec::new();
    for number in 0..10 {
        let name = format!("board-{number}");
        boards.push(name.parse()?);
        exporters.push(lab.lend(&name, Node::of("test", lab.driver()), |_| ()).await?);
    }
    let backwards: Vec<_> = boards.iter().rev().cloned().collect();
    let (alice, bob) = (lab.client("alice").await?, lab.client("bob").await?);
    let set = async |client: &Client, boards: &[Address]| -> anyhow::Result<()> {
        let leases = client.leases(boards, boards.len(), &waiting()).await?;
        assert_eq!(leases.len(), 10);
        for lease in leases {
            lease.release().await?;
        }
        Ok(())
    };
    let (first, second) = tokio::join!(set(&alice, &boards), set(&bob, &backwards));
    first?;
    second?;
    for exporter in exporters {
        exporter.shutdown(GRACE).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_set_that_cannot_be_had_holds_nothing() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let exporter = lab.lend("bench", Node::of("test", lab.driver()), |_| ()).await?;
    let other = lab.lend("other", Node::of("test", lab.driver()), |_| ()).await?;
    let (alice, bob) = (lab.client("alice").await?, lab.client("bob").await?);
    let held = lease(&alice).await?;
    let set = ["other".parse()?, bench()];
    let error = bob.leases(&set, 2, &LeaseRequest::default()).await.unwrap_err();
    assert!(matches!(error, LeaseError::Refused { .. }), "{error}");
    alice.lease(&"other".parse()?, &waiting()).await?.release().await?;
    drop(held);
    exporter.shutdown(GRACE).await?;
    other.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn a_place_is_a_value_whose_roles_are_used_under_its_leases() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let node = Node::of("test", lab.driver())
        .with_child("a", Node::of("test", lab.driver()))
        .with_child("b", Node::of("test", lab.driver()));
    let rules = |config: &mut runtime::ExporterConfig| {
        config.leases.subtrees = vec!["a".parse().unwrap(), "b".parse().unwrap()];
    };
    let bench = lab.lend("bench", node, rules).await?;
    let other = lab.lend("other", Node::of("test", lab.driver()), |_| ()).await?;
    let (alice, bob) = (lab.client("alice").await?, lab.client("bob").await?);
    let name: PlaceName = "rpi".parse()?;
    let roles = [("power", "bench/a"), ("serial", "other"), ("usb", "other")];
    let roles = roles.map(|(role, at)| (role.parse().unwrap(), at.parse().unwrap()));
    let (labels, description) = Default::default();
    let roles = roles.into_iter().collect();
    let place = Place { name: name.clone(), roles, labels, description, removed: false };
    alice.write_place(&place).await?;

    let held = alice.lease_place(&name, &LeaseRequest::default()).await?;
    assert_eq!(held.leases().len(), 2, "two roles are of one board");
    assert_eq!(held.leases()[0].place(), Some(name.clone()));
    TestDriverClient::new(held.driver(&"power".parse()?).unwrap()).count().await?;
    let usb = TestDriverClient::new(held.driver(&"usb".parse()?).unwrap());
    usb.count().await?;
    assert!(held.driver(&"screen".parse()?).is_none());
    let b: Address = "bench/b".parse()?;
    bob.lease(&b, &LeaseRequest::default()).await?.release().await?; // no part of it
    let error = bob.lease_place(&name, &LeaseRequest::default()).await.unwrap_err();
    assert!(matches!(error, LeaseError::Refused { .. }), "{error}");

    bob.kick(&"other".parse()?, None, "fire".to_owned()).await?;
    let (at, why, _) = held.ended().await;
    assert_eq!((at.to_string().as_str(), why), ("other", LeaseEnd::Kicked));
    assert_eq!(refused(usb.count().await.unwrap_err()).code, RefusalCode::NotLeased);
    drop(held);
    bob.lease_place(&name, &waiting()).await?.release().await?;
    bench.shutdown(GRACE).await?;
    let error = bob.lease_place(&name, &LeaseRequest::default()).await.unwrap_err();
    assert!(error.to_string().starts_with("@rpi/power: no exporter bench"), "{error}");
    alice.lease(&"other".parse()?, &LeaseRequest::default()).await?.release().await?;
    other.shutdown(GRACE).await?;
    Ok(())
}

fn hook(script: &str, on_failure: HookFailure) -> Option<Hook> {
    Some(Hook {
        script: script.to_owned(),
        exec: PathBuf::from("/bin/sh"),
        timeout: Duration::from_secs(1),
        on_failure,
    })
}

#[tokio::test]
async fn a_hook_that_hangs_ends_the_lease_and_not_the_exporter() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let rules = |config: &mut runtime::ExporterConfig| {
        config.hooks.before = hook("echo here; sleep 600 & sleep 600", HookFailure::EndLease);
    };
    let exporter = lab.lend("bench", Node::of("test", lab.driver()), rules).await?;
    let alice = lab.client("alice").await?;
    let error = lease(&alice).await.unwrap_err();
    let LeaseError::Ended { why, text, .. } = &error else { panic!("{error}") };
    assert_eq!(*why, LeaseEnd::Hook);
    assert!(text.contains("it took more than 1s"), "{text}");
    // What it said is a streaming call that can be read again.
    let id = text.split("its output is call ").nth(1).unwrap().split(' ').next().unwrap();
    let mut said = alice.attach(&"alice".parse()?, id.parse()?, false).await?;
    let item = said.next().await.expect("an item")?;
    assert!(item.windows(4).any(|part| part == b"here"), "{item:?}");
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn a_hook_whose_lease_ends_meanwhile_is_ended_before_the_next_begins() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let log = lab.dir.path().join("log");
    let script = format!(
        "echo $CLIENT_NAME begins >> {0}; trap 'echo $CLIENT_NAME ended >> {0}; exit 1' TERM; \
         [ $CLIENT_NAME = bob ] || while :; do sleep 0.05; done",
        log.display()
    );
    let rules = |config: &mut runtime::ExporterConfig| {
        let long =
            Hook { timeout: Duration::from_secs(60), ..hook(&script, HookFailure::Exit).unwrap() };
        config.hooks.before = Some(long);
    };
    let exporter = lab.lend("bench", Node::of("test", lab.driver()), rules).await?;
    let (alice, bob) = (lab.client("alice").await?, lab.client("bob").await?);
    let (at, request) = (bench(), LeaseRequest::default());
    let begins = async {
        while std::fs::read_to_string(&log).unwrap_or_default().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        early = alice.lease(&at, &request) => panic!("{early:?}"),
        () = begins => {} // she changes her mind
    }
    bob.lease(&bench(), &waiting()).await?.release().await?;
    assert_eq!(std::fs::read_to_string(&log)?, "alice begins\nalice ended\nbob begins\n");
    exporter.shutdown(GRACE).await?;
    Ok(())
}

/// A device that cannot always be made safe.
struct Stubborn(Events);

#[driver]
impl Stubborn {
    #[export]
    async fn on(&self) {
        self.0.note("on");
    }

    #[safe]
    async fn safe(&self) -> Result<(), Fault> {
        let first = !self.0.all().contains(&"tried".to_owned());
        self.0.note(if first { "tried" } else { "safe" });
        match first {
            true => Err(Fault::device("the relay is stuck")),
            false => Ok(()),
        }
    }
}

#[tokio::test]
async fn a_board_that_will_not_become_safe_is_shown_and_not_granted() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let events = Events::default();
    let node = Node::of("stubborn", Stubborn(events.clone()));
    let exporter = lab.lend("bench", node, |_| ()).await?;
    let (alice, admin) = (lab.client("alice").await?, lab.client("admin").await?);
    lease(&alice).await?.release().await?;
    let state = async || -> anyhow::Result<UnitState> {
        Ok(alice.board(&"bench".parse()?).await?.units[0].state.clone())
    };
    while state().await? != UnitState::Unsafe {
        tokio::task::yield_now().await;
    }
    let error = lease(&alice).await.unwrap_err();
    assert!(error.to_string().contains("not safe"), "{error}");
    admin.kick(&bench(), None, "mended".to_owned()).await?;
    alice.lease(&bench(), &waiting()).await?.release().await?;
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn a_board_that_fails_its_health_check_is_not_granted_until_it_passes() -> anyhow::Result<()>
{
    let lab = Lab::new().await?;
    let dir = tempfile::tempdir()?;
    let (well, diary) = (dir.path().join("well"), dir.path().join("diary"));
    let check = format!("echo looked; test -e {}", well.display());
    let after = format!("echo after >> {}", diary.display());
    let exporter = lab
        .lend("bench", Node::of("test", lab.driver()), |config| {
            config.hooks.health = hook(&check, HookFailure::EndLease);
            config.hooks.after = hook(&after, HookFailure::Warn);
        })
        .await?;
    let (alice, admin) = (lab.client("alice").await?, lab.client("admin").await?);
    let unit = async || -> anyhow::Result<BoardUnit> {
        Ok(alice.board(&"bench".parse()?).await?.units.remove(0))
    };
    let until_unsafe = async || -> anyhow::Result<BoardUnit> {
        loop {
            match unit().await? {
                unit if unit.state == UnitState::Unsafe => return Ok(unit),
                _ => tokio::task::yield_now().await,
            }
        }
    };
    lease(&alice).await?.release().await?;
    let ill = until_unsafe().await?;
    assert!(ill.why.starts_with("healthCheck: it failed: exit status: 1"), "{}", ill.why);
    let error = lease(&alice).await.unwrap_err();
    assert!(error.to_string().contains("is not ready: healthCheck"), "{error}");
    admin.kick(&bench(), None, "look again".to_owned()).await?;
    until_unsafe().await?;

    std::fs::write(&well, "")?;
    admin.kick(&bench(), None, "mended".to_owned()).await?;
    let held = alice.lease(&bench(), &waiting()).await?;
    assert_eq!(std::fs::read_to_string(&diary)?, "after\n", "it runs once for a lease");
    held.release().await?;
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn subtrees_are_leased_apart_and_access_is_refused_by_name() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let node = Node::of("test", lab.driver())
        .with_child("a", Node::of("test", lab.driver()))
        .with_child("b", Node::of("test", lab.driver()));
    let rules = |config: &mut runtime::ExporterConfig| {
        config.leases.subtrees = vec!["a".parse().unwrap(), "b".parse().unwrap()];
        config.leases.required = true;
        let rule = |clients: &[&str], subtree: &str| AccessRule {
            clients: clients.iter().map(ToString::to_string).collect(),
            subtrees: vec![subtree.parse().unwrap()],
            duration_max: None,
            priority_max: None,
            leases_max: None,
        };
        config.leases.access = vec![rule(&["alice"], "a"), rule(&["bob"], "b")];
    };
    let exporter = lab.lend("bench", node, rules).await?;
    let (alice, bob) = (lab.client("alice").await?, lab.client("bob").await?);
    let (a, b): (Address, Address) = ("bench/a".parse()?, "bench/b".parse()?);
    let on = |client: &Client, at: &Address| TestDriverClient::new(client.driver(at));
    assert_eq!(refused(on(&alice, &a).count().await.unwrap_err()).code, RefusalCode::NotLeased);
    let one = alice.lease(&a, &LeaseRequest::default()).await?;
    let two = bob.lease(&b, &LeaseRequest::default()).await?;
    on(&alice, &a).count().await?;
    on(&bob, &b).count().await?;
    assert_eq!(refused(on(&alice, &b).count().await.unwrap_err()).code, RefusalCode::NotLeased);
    let error = alice.lease(&b, &LeaseRequest::default()).await.unwrap_err();
    assert!(error.to_string().contains("no rule of `access` for alice names it"), "{error}");
    drop((one, two));
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn what_happens_to_leases_is_an_event() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let exporter = lab.lend("bench", Node::of("test", lab.driver()), |_| ()).await?;
    let (alice, bob) = (lab.client("alice").await?, lab.client("bob").await?);
    let held = lease(&alice).await?;
    let _ = lab.bench(&bob).count().await;
    let _ = lease(&bob).await;
    let gone = held.release().await;
    gone?;
    let mut told = alice.follow_events(None, Since::Ever).await?;
    let mut kinds = Vec::new();
    while !kinds.contains(&EventKind::LeaseReleased) {
        kinds.push(told.next().await?.expect("it is followed").message.kind);
    }
    for kind in [EventKind::LeaseGranted, EventKind::CallFenced, EventKind::LeaseRefused] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn a_lease_without_signs_of_life_ends_and_its_holder_is_refused_on_return()
-> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let rules = |config: &mut runtime::ExporterConfig| {
        config.leases.keep_alive = Duration::from_secs(1);
    };
    let exporter = lab.lend("bench", Node::of("test", lab.driver()), rules).await?;
    let (alice, bob) = (lab.client("alice").await?, lab.client("bob").await?);
    let held = lease(&alice).await?;
    let old = TestDriverClient::new(held.driver(&bench()));
    held.keep(); // lets go of what gives signs of life, as a process that is stopped does
    let next = bob.lease(&bench(), &waiting()).await?;
    assert_eq!(refused(old.count().await.unwrap_err()).code, RefusalCode::NotLeased);
    let stands = next.stands();
    assert!(matches!(stands, Leased::Held(_)), "{stands:?}");
    drop(next);
    exporter.shutdown(GRACE).await?;
    Ok(())
}
