//! Subjects read back what they write, and nothing else is read.

use super::*;
use crate::{
    ClientName, DriverId, EventKind, ExporterName, Incarnation, InterfaceDigest, LogSource,
    Session, Sha256, StreamId,
};

fn longest() -> (ClientName, ExporterName, DriverId) {
    let name = "n".repeat(64);
    (name.parse().unwrap(), name.parse().unwrap(), uuid::Uuid::max().into())
}

#[test]
fn the_longest_subject_is_within_what_nats_advises() {
    let (client, exporter, driver) = longest();
    let root: Root = "r".repeat(8).parse().unwrap();
    let record = OutRecord {
        exporter,
        caller: client,
        session: Session(1),
        driver,
        counter: u64::MAX,
        number: u64::from(u32::MAX),
    };
    let subject = FromExporter::Out(Box::new(record)).under(&root);
    assert!(subject.len() <= 256 && subject.split('.').count() <= 16, "{}", subject.len());
}

#[test]
fn every_subject_reads_back_what_it_writes() {
    let root = Root::default();
    let (client, exporter, driver) = longest();
    let to = [
        To::Driver(DriverVerb::Call, driver, "on".parse().unwrap()),
        To::Driver(DriverVerb::Open, driver, "connect".parse().unwrap()),
        To::Exporter(ExporterVerb::Ask),
        To::Exporter(ExporterVerb::Cancel),
        To::Exporter(ExporterVerb::Ping),
        To::Exporter(ExporterVerb::Lease),
        To::Exporter(ExporterVerb::Admin),
        To::Stream(ExporterVerb::Ctl, StreamId(7)),
        To::Stream(ExporterVerb::Up, StreamId(7)),
    ];
    for to in to {
        let subject = FromClient { client: client.clone(), exporter: exporter.clone(), to };
        assert_eq!(FromClient::read(&root, &subject.under(&root)), Ok(subject));
    }
    let place = FromAdmin::Place("rpi-1".parse().unwrap());
    assert_eq!(FromAdmin::read(&root, &place.under(&root)), Ok(place));
    let record = OutRecord {
        exporter: exporter.clone(),
        caller: client.clone(),
        session: Session(1),
        driver,
        counter: 3,
        number: 4,
    };
    let said = [
        FromExporter::Down(exporter.clone(), client.clone(), Session(1), StreamId(2)),
        FromExporter::Ctl(exporter.clone(), client.clone(), Session(1), StreamId(2)),
        FromExporter::Lease(exporter.clone(), client, Session(1)),
        FromExporter::Board(exporter.clone()),
        FromExporter::Out(Box::new(record)),
        FromExporter::Presence(exporter.clone()),
        FromExporter::Tree(exporter.clone(), 3),
        FromExporter::Interface(exporter.clone(), InterfaceDigest([7; 16])),
        FromExporter::Event(exporter.clone(), EventKind::DriverCrashed),
        FromExporter::Event(exporter.clone(), EventKind::Other("of-later".to_owned())),
        FromExporter::Log(exporter.clone(), LogSource::Exporter),
        FromExporter::Log(exporter, LogSource::Driver(driver)),
    ];
    for subject in said {
        assert_eq!(FromExporter::read(&root, &subject.under(&root)), Ok(subject));
    }
}

#[test]
fn what_a_client_stores_reads_back_and_nothing_else_does() {
    let root = Root::default();
    let (client, digest) = (longest().0, Sha256([0xa5; 32]));
    for piece in [Piece::Manifest(digest), Piece::Part(digest, u32::MAX)] {
        let stored = Stored { client: client.clone(), piece };
        let subject = stored.under(&root);
        assert!(subject.len() <= 256, "{}", subject.len());
        assert_eq!(Stored::read(&root, &subject), Ok(stored));
    }
    for bad in [
        format!("jmp.v1.f.*.m.{digest}"),
        format!("jmp.v1.f.alice.m.{digest}.0"),
        format!("jmp.v1.f.alice.b.{digest}"),
        format!("jmp.v1.f.alice.b.{digest}.01"),
        format!("jmp.v1.f.alice.b.{digest}.x"),
        "jmp.v1.f.alice.m.abc".to_owned(),
        format!("jmp.v1.c.alice.m.{digest}"),
    ] {
        assert_eq!(Stored::read(&root, &bad), Err(SubjectError::Foreign), "{bad}");
    }
    let word = Stored::read(&root, &format!("jmp.v1.f.alice.x.{digest}"));
    assert_eq!(word, Err(SubjectError::Verb));
}

#[test]
fn what_goes_to_an_exporter_while_it_is_stored_reads_back_and_nothing_else_does() {
    let root = Root::default();
    let (client, exporter, _) = longest();
    let block = Sha256([0xa5; 32]);
    let to = StoredTo { client, exporter, block, part: u32::MAX };
    let subject = to.under(&root);
    assert!(subject.len() <= 256, "{}", subject.len());
    let wildcard = StoredTo::parts_of(&root, &to.client, &to.exporter, block);
    let permission = SubjectSet::FilesTo.pattern(&root, to.exporter.as_str());
    for pattern in [wildcard, permission, StoredTo::captured(&root).0, Stored::all(&root)] {
        assert!(covers(&pattern, &subject), "{pattern}");
    }
    assert_eq!(StoredTo::read(&root, &subject), Ok(to));
    assert!(Stored::read(&root, &subject).is_err());
    for bad in [
        format!("jmp.v1.f.*.to.bench.{block}.0"),
        format!("jmp.v1.f.alice.to.*.{block}.0"),
        format!("jmp.v1.f.alice.to.bench.{block}.00"),
        format!("jmp.v1.f.alice.to.bench.{block}.0.0"),
        format!("jmp.v1.f.alice.to.bench.{block}"),
        format!("jmp.v1.f.alice.b.bench.{block}.0"),
        "jmp.v1.f.alice.to.bench.abc.0".to_owned(),
    ] {
        assert_eq!(StoredTo::read(&root, &bad), Err(SubjectError::Foreign), "{bad}");
    }
}

#[test]
fn a_wildcard_in_a_published_subject_is_nobody() {
    let root = Root::default();
    let (_, _, driver) = longest();
    for subject in [
        format!("jmp.v1.c.*.call.bench.{driver}.on"),
        format!("jmp.v1.c.alice.call.*.{driver}.on"),
        "jmp.v1.c.alice.call.bench.*.on".to_owned(),
        format!("jmp.v1.c.alice.call.bench.{driver}.*"),
        format!("jmp.v1.c.alice.call.bench.{driver}.on.x"),
        "jmp.v1.c.alice.up.bench._._".to_owned(),
        "jmp.v1.c.alice.ask.bench._.x".to_owned(),
        "jmp.v2.c.alice.ask.bench._._".to_owned(),
    ] {
        assert_eq!(FromClient::read(&root, &subject), Err(SubjectError::Foreign), "{subject}");
    }
    let subject = format!("jmp.v1.c.alice.shout.bench.{driver}.on");
    let verb = FromClient::read(&root, &subject);
    assert_eq!(verb, Err(SubjectError::Verb));
    let speaker = Spoken::speaker(&root, &subject);
    assert_eq!(speaker, Some("alice"));
}

#[test]
fn an_answer_goes_to_the_client_that_the_subject_names_and_to_no_other() {
    let root = Root::default();
    let alice: ClientName = "alice".parse().unwrap();
    let good = Inbox::of_client(&root, &alice, Session(1)).token(2);
    assert!(Inbox::belongs_to(&good, &root, &alice));
    for bad in [
        "",
        "_INBOX.x",
        "jmp.v1.i.bob.1.2",
        "jmp.v1.i.alice",
        "jmp.v1.i.alice.",
        "jmp.v1.i.alicex.1",
        "jmp.v1.i.alice.*",
        "jmp.v1.c.bob.call.b.d.m",
    ] {
        assert!(!Inbox::belongs_to(bad, &root, &alice), "{bad}");
    }
    let bench: ExporterName = "bench".parse().unwrap();
    let own = Inbox::of_exporter(&root, &bench, Incarnation(1)).token(2);
    assert!(Inbox::is_of_exporter(&own, &root, &bench));
    assert!(!Inbox::is_of_exporter("jmp.v1.i.bench.1.2", &root, &bench));
    assert!(!Inbox::is_of_exporter("jmp.v1.ix.bench2.1.2", &root, &bench));
}
