//! What holds for every message and every value: nothing is lost between the two codecs.

#![expect(clippy::unwrap_used, reason = "a helper of a test may, as a test may")]

#[path = "support/typed.rs"]
mod typed;

use bus_schema::{
    Acquire, AdminAction, AdminAsk, Administered, Board, BoardUnit, CallId, ClientName, DriverId,
    DriverRecord, Event, EventKind, Fault, FaultKind, Field, Held, Incarnation, Interface,
    InterfaceDigest, Kind, LeaseAction, LeaseAsk, LeaseEnd, LeaseNews, Leased, Level, LogLine,
    LogLines, Method, Path, Place, PlaceName, Presence, Refusal, RefusalCode, Session, State,
    StreamId, TicketId, TreeRecord, Type, UnitState, Value, Waiter,
    codec::{self, DATA_HEAD_BYTES, Message},
    message::{
        Ack, Ask, Begin, Call, Calls, Cancel, Data, End, Form, Open, Opened, Outcome, Parts, Ping,
        Pong, Progress, Replies, Reply, Reset, ResetCode, Told, Unknown,
    },
};
use bytes::Bytes;
use proptest::{
    collection::{btree_map, vec},
    option::of,
    prelude::*,
    sample::select,
    test_runner::TestCaseResult,
};
use typed::{anything, text, types, value_of};

fn id() -> impl Strategy<Value = CallId> {
    (any::<u64>(), 1..=u64::MAX)
        .prop_map(|(session, counter)| CallId { session: Session(session), counter })
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

fn incarnation() -> impl Strategy<Value = Incarnation> {
    any::<u64>().prop_map(Incarnation)
}

fn stream() -> impl Strategy<Value = StreamId> {
    any::<u128>().prop_map(StreamId)
}

fn parts() -> impl Strategy<Value = Parts> {
    (stream(), any::<u64>()).prop_map(|(stream, bytes)| Parts { stream, bytes })
}

fn form() -> impl Strategy<Value = Form> {
    select(&[Form::Typed, Form::Words][..])
}

fn fault() -> impl Strategy<Value = Fault> {
    (select(FaultKind::KNOWN), text()).prop_map(|(kind, text)| Fault { kind, text })
}

fn refusal() -> impl Strategy<Value = Refusal> {
    let numbers = (of(any::<u64>()), of(any::<u64>()), of(any::<u64>()));
    (select(RefusalCode::KNOWN), text(), of(client()), numbers).prop_map(
        |(code, text, holder, (limit, since_ms, left_ms))| Refusal {
            code,
            text,
            limit,
            since_ms,
            holder,
            left_ms,
        },
    )
}

fn client() -> impl Strategy<Value = ClientName> {
    "[a-z0-9][a-z0-9_-]{0,63}".prop_map(|name| name.parse().unwrap())
}

fn place_name() -> impl Strategy<Value = PlaceName> {
    "[a-z0-9][a-z0-9_-]{0,63}".prop_map(|name| name.parse().unwrap())
}

fn ticket() -> impl Strategy<Value = TicketId> {
    any::<u128>().prop_map(TicketId)
}

fn path() -> impl Strategy<Value = Path> {
    "(([A-Za-z0-9_.-]{1,8}/){0,3}[A-Za-z0-9_.-]{1,8})?".prop_map(|path| path.parse().unwrap())
}

fn uuid() -> impl Strategy<Value = DriverId> {
    any::<u128>().prop_map(|n| DriverId::from(uuid::Uuid::from_u128(n)))
}

fn acquire() -> impl Strategy<Value = Acquire> {
    (any::<[u64; 3]>(), any::<[bool; 2]>(), of(place_name())).prop_map(
        |([duration_ms, wait_ms, priority], [confirm, detached], place)| Acquire {
            duration_ms,
            wait_ms,
            priority,
            confirm,
            detached,
            place,
        },
    )
}

fn lease_action() -> impl Strategy<Value = LeaseAction> {
    prop_oneof![
        acquire().prop_map(LeaseAction::Acquire),
        Just(LeaseAction::Confirm),
        any::<u64>().prop_map(|pause_ms| LeaseAction::Decline { pause_ms }),
        any::<u64>().prop_map(|heard| LeaseAction::Alive { heard }),
        any::<u64>().prop_map(|duration_ms| LeaseAction::Renew { duration_ms }),
        Just(LeaseAction::Release),
        client().prop_map(|to| LeaseAction::Transfer { to }),
        (client(), any::<bool>())
            .prop_map(|(client, revoke)| LeaseAction::Allow { client, revoke }),
        Just(LeaseAction::Status),
    ]
}

fn held() -> impl Strategy<Value = Held> {
    let numbers = (any::<u64>(), any::<u64>(), of(any::<u64>()), any::<bool>());
    (path(), client(), vec(client(), 0..3), numbers, of(place_name())).prop_map(
        |(path, holder, allowed, (epoch, left_ms, keep_alive_ms, starting), place)| Held {
            epoch,
            path,
            holder,
            allowed,
            left_ms,
            keep_alive_ms,
            starting,
            place,
        },
    )
}

fn leased() -> impl Strategy<Value = Leased> {
    prop_oneof![
        (any::<u64>(), of(client()), of(any::<u64>()))
            .prop_map(|(before, holder, left_ms)| Leased::Waiting { before, holder, left_ms }),
        any::<u64>().prop_map(|left_ms| Leased::Offered { left_ms }),
        held().prop_map(Leased::Held),
        (select(LeaseEnd::KNOWN), text()).prop_map(|(why, text)| Leased::Ended { why, text }),
        refusal().prop_map(Leased::Refused),
    ]
}

fn waiter() -> impl Strategy<Value = Waiter> {
    (client(), any::<u64>(), any::<u64>(), ticket()).prop_map(
        |(client, priority, since_ms, ticket)| Waiter { client, priority, since_ms, ticket },
    )
}

fn unit() -> impl Strategy<Value = BoardUnit> {
    let numbers = (of(any::<u64>()), any::<u64>());
    let state = select(UnitState::KNOWN);
    (path(), state, text(), of(held()), of(ticket()), numbers, vec(waiter(), 0..3)).prop_map(
        |(path, state, why, lease, ticket, (until_ms, waiting), queue)| BoardUnit {
            path,
            state,
            why,
            lease,
            ticket,
            until_ms,
            queue,
            waiting,
        },
    )
}

fn unknown() -> impl Strategy<Value = Unknown> {
    select(&[Unknown::Forgotten, Unknown::Dropped][..])
}

/// attempt, age, deadline, done_below, epoch
fn timing() -> impl Strategy<Value = (u32, u64, u64, u64, Option<u64>)> {
    (any::<u32>(), any::<u64>(), any::<u64>(), any::<u64>(), of(any::<u64>()))
}

fn call() -> impl Strategy<Value = Call> {
    (of(id()), timing(), form(), any::<bool>(), bytes(), of(parts())).prop_map(
        |(id, timing, form, together, args, parts)| {
            let (attempt, age_ms, deadline_ms, done_below, epoch) = timing;
            let when = Call { attempt, age_ms, deadline_ms, done_below, ..Call::default() };
            Call { id, epoch, form, together, args, parts, ..when }
        },
    )
}

fn replies() -> impl Strategy<Value = Replies> {
    vec((text(), bytes()), 0..4).prop_map(|replies| Replies { replies })
}

fn together() -> impl Strategy<Value = Calls> {
    vec((text(), text(), bytes()), 0..4).prop_map(|calls| Calls { calls })
}

fn open() -> impl Strategy<Value = Open> {
    (id(), stream(), any::<u64>(), timing(), form(), bytes(), any::<bool>()).prop_map(
        |(id, stream, credit, timing, form, args, detached)| {
            let (attempt, age_ms, deadline_ms, done_below, epoch) = timing;
            Open {
                id,
                stream,
                credit,
                attempt,
                age_ms,
                deadline_ms,
                done_below,
                epoch,
                form,
                args,
                detached,
            }
        },
    )
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        bytes().prop_map(Outcome::Result),
        parts().prop_map(Outcome::Parts),
        fault().prop_map(Outcome::Fault),
        refusal().prop_map(Outcome::Refused),
        unknown().prop_map(Outcome::Unknown),
    ]
}

fn progress() -> impl Strategy<Value = Progress> {
    prop_oneof![
        any::<u64>().prop_map(Progress::Queued),
        any::<u64>().prop_map(Progress::Running),
        Just(Progress::Done),
        Just(Progress::Unknown),
    ]
}

fn opened() -> impl Strategy<Value = Opened> {
    prop_oneof![
        (incarnation(), any::<u64>(), of(types()))
            .prop_map(|(incarnation, credit, item)| Opened::Open { incarnation, credit, item }),
        fault().prop_map(Opened::Fault),
        refusal().prop_map(Opened::Refused),
        unknown().prop_map(Opened::Unknown),
    ]
}

fn ack() -> impl Strategy<Value = Ack> {
    (any::<[u64; 3]>(), any::<[bool; 3]>()).prop_map(
        |([received, limit, sent], [ended, finished, again])| Ack {
            received,
            limit,
            ended,
            sent,
            finished,
            again,
        },
    )
}

fn begin() -> impl Strategy<Value = Begin> {
    (text(), text(), types(), any::<u64>()).prop_map(|(address, method, item, began_ms)| Begin {
        address,
        method,
        item,
        began_ms,
    })
}

fn end() -> impl Strategy<Value = End> {
    (any::<u64>(), any::<u64>(), of(fault()), of(any::<u64>()))
        .prop_map(|(bytes, items, fault, recorded)| End { bytes, items, fault, recorded })
}

fn labels() -> impl Strategy<Value = std::collections::BTreeMap<String, String>> {
    btree_map(text(), text(), 0..3)
}

fn digest() -> impl Strategy<Value = InterfaceDigest> {
    any::<[u8; 16]>().prop_map(InterfaceDigest)
}

fn presence() -> impl Strategy<Value = Presence> {
    let state = select(&[State::Up, State::Draining, State::Left][..]);
    let numbers = (any::<u64>(), any::<u64>(), any::<u32>());
    ("[a-z0-9][a-z0-9_-]{0,63}", incarnation(), state, text(), text(), numbers, labels(), digest())
        .prop_map(|(exporter, incarnation, state, host, version, numbers, labels, tree)| {
            let (started_ms, beat, drivers) = numbers;
            Presence {
                exporter: exporter.parse().unwrap(),
                incarnation,
                state,
                host,
                version,
                started_ms,
                beat,
                labels,
                drivers,
                tree,
            }
        })
}

fn driver() -> impl Strategy<Value = DriverRecord> {
    let uuid = any::<u128>().prop_map(|n| DriverId::from(uuid::Uuid::from_u128(n)));
    let interfaces = vec((text(), digest()), 0..3);
    (uuid, text(), text(), labels(), text(), labels(), interfaces, of(text())).prop_map(
        |(id, path, kind, labels, description, methods_description, interfaces, alias_of)| {
            DriverRecord {
                id,
                path,
                kind,
                labels,
                description,
                methods_description,
                interfaces,
                alias_of,
            }
        },
    )
}

fn field() -> impl Strategy<Value = Field> {
    (text(), types(), text(), any::<bool>(), of(anything()))
        .prop_map(|(name, ty, help, optional, default)| Field { name, ty, help, optional, default })
}

fn method() -> impl Strategy<Value = Method> {
    let kind = select(&[Kind::Call, Kind::StreamingCall, Kind::Stream][..]);
    let marks = any::<[bool; 3]>();
    (text(), kind, text(), vec(field(), 0..3), types(), marks, of(any::<u64>())).prop_map(
        |(name, kind, help, params, result, [concurrent, uncancellable, observe], deadline_ms)| {
            Method {
                name,
                kind,
                help,
                params,
                result,
                concurrent,
                uncancellable,
                observe,
                deadline_ms,
            }
        },
    )
}

fn interface() -> impl Strategy<Value = Interface> {
    (text(), any::<u32>(), text(), vec(method(), 0..3))
        .prop_map(|(name, version, help, methods)| Interface { name, version, help, methods })
}

fn survives<M: Message + PartialEq + std::fmt::Debug>(message: &M) -> TestCaseResult {
    let bytes = codec::encode(message);
    let read = codec::decode::<M>(&bytes);
    prop_assert_eq!(&read.unwrap(), message);
    // Whatever a peer leaves out at the end is an error or a default, and no panic.
    for len in 0..bytes.len() {
        prop_assert!(codec::decode::<M>(&bytes[..len]).is_err());
    }
    Ok(())
}

fn takes_any_word(ty: &Type) -> bool {
    match ty {
        Type::Text | Type::Bytes => true,
        Type::Optional(inner) => takes_any_word(inner),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() })]

    #[test]
    fn calls_survive(
        call in call(),
        outcome in outcome(),
        replies in replies(),
        together in together(),
        ids in vec(id(), 0..4),
        incarnation in incarnation(),
        calls in vec(progress(), 0..4),
        host in text(),
        uptime_ms: u64,
    ) {
        survives(&call)?;
        prop_assert_eq!(call.encode(), codec::encode(&call));
        let reply = Reply { outcome };
        survives(&reply)?;
        prop_assert_eq!(&Reply::decode(&codec::encode(&reply)).unwrap(), &reply);
        if let Outcome::Result(result) = &reply.outcome {
            prop_assert_eq!(Reply::encode_result(result), codec::encode(&reply));
        }
        survives(&replies)?;
        let pairs = replies.replies.iter().map(|(token, reply)| (&**token, &**reply));
        prop_assert_eq!(Replies::encode(pairs), codec::encode(&replies));
        survives(&together)?;
        survives(&Ask { ids: ids.clone() })?;
        survives(&Cancel { ids })?;
        survives(&Told { incarnation, uptime_ms, calls })?;
        survives(&Ping {})?;
        survives(&Pong { incarnation, host, uptime_ms })?;
    }

    #[test]
    fn streams_survive(
        open in open(),
        opened in opened(),
        ack in ack(),
        code in select(&[ResetCode::Cancelled, ResetCode::Fault, ResetCode::NoStream,
            ResetCode::Protocol, ResetCode::ShuttingDown, ResetCode::LeaseEnded,
            ResetCode::Silent, ResetCode::Other][..]),
        text in text(),
    ) {
        survives(&open)?;
        survives(&opened)?;
        survives(&ack)?;
        survives(&Reset { code, text })?;
    }

    #[test]
    fn leases_survive(
        about in (of(ticket()), path(), of(uuid()), lease_action()),
        leased in leased(),
        news in (ticket(), any::<u64>(), leased()),
        kick in (path(), of(uuid()), text(), of(ticket())),
        administered in prop_oneof![
            text().prop_map(|text| Administered::Done { text }),
            refusal().prop_map(Administered::Refused),
        ],
        board in (incarnation(), any::<bool>(), vec(unit(), 0..3), any::<u64>()),
    ) {
        let (ticket, path, driver, action) = about;
        survives(&LeaseAsk { ticket, path, driver, action })?;
        survives(&leased)?;
        let (ticket, number, now) = news;
        survives(&LeaseNews { ticket, number, now })?;
        let (path, driver, reason, ticket) = kick;
        for action in [
            AdminAction::Kick { reason: reason.clone(), ticket },
            AdminAction::Drain { reason, maintenance: ticket.is_some() },
            AdminAction::Resume,
            AdminAction::Reload,
        ] {
            survives(&AdminAsk { path: path.clone(), driver, action })?;
        }
        survives(&administered)?;
        let (incarnation, required, units, more) = board;
        let at = units.first().map(|unit: &BoardUnit| unit.path.clone());
        survives(&Board { incarnation, required, units, at, more })?;
    }

    #[test]
    fn records_survive(
        presence in presence(),
        tree in (digest(), any::<u32>(), vec(driver(), 0..3)),
        interface in interface(),
    ) {
        survives(&presence)?;
        let (tree, parts, drivers) = tree;
        survives(&TreeRecord { tree, parts, drivers })?;
        survives(&interface)?;
    }

    #[test]
    fn what_is_told_survives(
        kind in select(EventKind::KNOWN),
        incarnation in incarnation(),
        numbers: [u64; 2],
        path in text(),
        client in of("[a-z0-9][a-z0-9_-]{0,63}"),
        epoch in of(any::<u64>()),
        said in vec((any::<u64>(), select(Level::ALL), text()), 0..3),
        roles in btree_map("[a-z0-9][a-z0-9_-]{0,63}", "[a-z0-9]{1,9}(/[A-Za-z0-9_.-]{1,9}){0,3}", 0..4),
    ) {
        let ([at_ms, number], reason) = (numbers, path.clone());
        let client = client.map(|client| client.parse().unwrap());
        let event =
            Event { kind, at_ms, incarnation, number, path: path.clone(), client, epoch, reason };
        survives(&event)?;
        let line = |(at_ms, level, text)| LogLine { at_ms, level, text };
        let lines = said.into_iter().map(line).collect();
        survives(&LogLines { incarnation, first: number, path: path.clone(), lines })?;
        let roles = roles.into_iter().map(|(role, address)| {
            (role.parse().unwrap(), address.parse::<bus_schema::Address>().unwrap())
        });
        let (roles, labels) = (roles.collect(), [(path.clone(), path.clone())].into());
        let name = "rpi-1".parse().unwrap();
        survives(&Place { name, roles, labels, description: path, removed: number % 2 == 0 })?;
    }

    #[test]
    fn data_survives(at: u64, data in bytes(), begin in of(begin()), end in of(end())) {
        let plain = Data { at, data: data.clone(), begin: None, end: None };
        let head = Data::head(at, data.len() as u32);
        prop_assert_eq!(plain.encode(), [&head[..], &data].concat());
        prop_assert_eq!(head.len(), DATA_HEAD_BYTES);
        let whole = Data { begin, end, ..plain };
        prop_assert_eq!(Data::decode(&whole.encode()).unwrap(), whole);
    }

    #[test]
    fn a_value_survives_both_codecs(
        (ty, value) in types().prop_flat_map(|ty| (Just(ty.clone()), value_of(&ty))),
    ) {
        let msgpack = rmp_serde::to_vec_named(&value).unwrap();
        prop_assert_eq!(&Value::from_msgpack(&msgpack).unwrap(), &value);
        let json = value.to_json(&ty).to_string();
        let read = Value::from_json(&ty, &serde_json::from_str(&json).unwrap());
        prop_assert_eq!(read.as_ref(), Ok(&value), "by way of {}", json);
        // A person may type it too, where a word is not taken as it stands.
        if !takes_any_word(&ty) {
            prop_assert_eq!(Value::from_word(&ty, &json), Ok(value), "by way of {}", json);
        }
    }
}
