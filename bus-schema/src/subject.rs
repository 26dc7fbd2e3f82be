//! Subjects: the only place that spells one. Their `Display` form is the wire.
//!
//! ```text
//! <root>.v1.c.<client>.<verb>.<exporter>.<driver>.<method>   a client speaks to a driver
//! <root>.v1.c.<client>.<verb>.<exporter>._.<token>           a client speaks to the exporter
//! <root>.v1.x.<exporter>.<verb>.…                            an exporter speaks
//! <root>.v1.a.<record>.…                                    an admin has written it down
//! <root>.v1.f.<client>.m.<digest>, ….b.<digest>.<n>      a client stores a file
//! <root>.v1.i.<client>.<session>.<token>                     inbox of a client process
//! <root>.v1.ix.<exporter>.<incarnation>.<token>              inbox of an exporter process
//! ```
//!
//! The token behind `c` is the sender's identity: the broker's permissions make it true.

mod set;
pub mod system;

use std::fmt;

pub use self::set::{CLAIMANT, SubjectSet, covers};
use crate::{
    ClientName, DriverId, EventKind, ExporterName, Incarnation, InterfaceDigest, LogSource,
    MethodName, PlaceName, Root, Session, Sha256, StreamId, limits::NAME_BYTES_MAX,
};

/// The protocol's version as a token. Anything but an addition gets a new one.
pub const VERSION: &str = "v1";

/// What a client may ask of a driver: the verb of a subject that names one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DriverVerb {
    /// One request, one reply.
    Call,
    /// Open a stream or start a streaming call.
    Open,
}

/// What a client may ask of an exporter: the verb of a subject whose driver token is `_`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExporterVerb {
    /// How are these calls getting on?
    Ask,
    /// Stop these calls.
    Cancel,
    /// Are you there? Answered with the incarnation.
    Ping,
    /// Control of an open stream: acknowledgements and credit, resets, keep-alive.
    Ctl,
    /// Data of an open stream, or of large arguments.
    Up,
    /// Leases: acquire, confirm, renew, release and so on.
    Lease,
    /// What only an admin may ask; the broker keeps everybody else from it.
    Admin,
}

macro_rules! verb {
    ($name:ident { $($variant:ident = $word:literal),* $(,)? }) => {
        impl $name {
            /// Every verb.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The token.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            fn read(token: &str) -> Option<Self> {
                match token { $($word => Some(Self::$variant),)* _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
verb!(DriverVerb { Call = "call", Open = "open" });
verb!(ExporterVerb {
    Ask = "ask",
    Cancel = "cancel",
    Ping = "ping",
    Ctl = "ctl",
    Up = "up",
    Lease = "lease",
    Admin = "admin",
});

/// The token in the driver's place where the exporter itself is meant.
const EXPORTER_ITSELF: &str = "_";

/// A subject that a client publishes on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FromClient {
    /// Who speaks.
    pub client: ClientName,
    /// The exporter spoken to.
    pub exporter: ExporterName,
    /// What is asked of whom.
    pub to: To,
}

/// The part of a [`FromClient`] subject that says what is asked of whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum To {
    /// An operation of a driver.
    Driver(DriverVerb, DriverId, MethodName),
    /// Something about calls, answered by the exporter itself.
    Exporter(ExporterVerb),
    /// A message of an open stream ([`ExporterVerb::Ctl`] or [`ExporterVerb::Up`]).
    Stream(ExporterVerb, StreamId),
}

/// A [`FromClient`] subject that is read where it is: every call passes here, and allocates
/// nothing. Names in it are names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spoken<'a> {
    /// Who speaks.
    pub client: &'a str,
    /// The exporter spoken to.
    pub exporter: &'a str,
    /// What is asked of whom.
    pub to: SpokenTo<'a>,
}

/// [`To`], of a [`Spoken`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpokenTo<'a> {
    /// An operation of a driver.
    Driver(DriverVerb, DriverId, &'a str),
    /// Something about calls, answered by the exporter itself.
    Exporter(ExporterVerb),
    /// A message of an open stream.
    Stream(ExporterVerb, StreamId),
}

impl<'a> Spoken<'a> {
    /// The subject under `root`.
    pub fn under(&self, root: &Root) -> String {
        let Self { client, exporter, to } = *self;
        let mut text = String::with_capacity(
            root.as_str().len() + client.len() + exporter.len() + NAME_BYTES_MAX + 64,
        );
        let begin =
            |verb| [root.as_str(), ".", VERSION, ".c.", client, ".", verb, ".", exporter, "."];
        match to {
            SpokenTo::Driver(verb, driver, method) => {
                text.extend(begin(verb.as_str()));
                text.extend([driver.text(&mut [0; 36]), ".", method]);
            }
            SpokenTo::Exporter(verb) => {
                text.extend(begin(verb.as_str()));
                text.extend([EXPORTER_ITSELF, ".", EXPORTER_ITSELF]);
            }
            SpokenTo::Stream(verb, id) => {
                text.extend(begin(verb.as_str()));
                text.extend([EXPORTER_ITSELF, ".", &id.to_string()]);
            }
        }
        text
    }

    /// Reads a subject under `root`.
    ///
    /// # Errors
    ///
    /// [`SubjectError`]; a literal `*` or `>` in a token is no name and therefore foreign.
    pub fn read(root: &Root, subject: &'a str) -> Result<Self, SubjectError> {
        const FOREIGN: SubjectError = SubjectError::Foreign;
        let mut tokens = subject.split('.');
        let mut next = || tokens.next().ok_or(FOREIGN);
        if next()? != root.as_str() || next()? != VERSION || next()? != "c" {
            return Err(FOREIGN);
        }
        let (client, verb, exporter) = (next()?, next()?, next()?);
        let (driver, last) = (next()?, next()?);
        if tokens.next().is_some() || !ClientName::is(client) || !ExporterName::is(exporter) {
            return Err(FOREIGN);
        }
        let to = if driver == EXPORTER_ITSELF {
            match ExporterVerb::read(verb).ok_or(SubjectError::Verb)? {
                verb @ (ExporterVerb::Ctl | ExporterVerb::Up) => {
                    SpokenTo::Stream(verb, last.parse().map_err(|_| FOREIGN)?)
                }
                verb if last == EXPORTER_ITSELF => SpokenTo::Exporter(verb),
                _ => return Err(FOREIGN),
            }
        } else {
            let id = driver.parse().map_err(|_| FOREIGN)?;
            if !MethodName::is(last) {
                return Err(FOREIGN);
            }
            SpokenTo::Driver(DriverVerb::read(verb).ok_or(SubjectError::Verb)?, id, last)
        };
        Ok(Self { client, exporter, to })
    }

    /// Who speaks on a subject whose [verb](SubjectError::Verb) means nothing here.
    pub fn speaker(root: &Root, subject: &'a str) -> Option<&'a str> {
        let rest = subject.strip_prefix(root.as_str())?.strip_prefix('.')?;
        let rest = rest.strip_prefix(VERSION)?.strip_prefix(".c.")?;
        rest.split('.').next().filter(|client| ClientName::is(client))
    }
}

/// Why a subject was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// It is not of the form that this place expects, or a token of it is no name or id.
    #[error("not a subject of this protocol")]
    Foreign,
    /// All is well but the verb.
    #[error("the verb means nothing here")]
    Verb,
}

impl FromClient {
    /// The subject under `root`.
    pub fn under(&self, root: &Root) -> String {
        let to = match &self.to {
            To::Driver(verb, driver, method) => SpokenTo::Driver(*verb, *driver, method.as_str()),
            To::Exporter(verb) => SpokenTo::Exporter(*verb),
            To::Stream(verb, id) => SpokenTo::Stream(*verb, *id),
        };
        Spoken { client: self.client.as_str(), exporter: self.exporter.as_str(), to }.under(root)
    }

    /// Reads a subject under `root`.
    ///
    /// # Errors
    ///
    /// As [`Spoken::read`].
    pub fn read(root: &Root, subject: &str) -> Result<Self, SubjectError> {
        let name = |_: crate::NameError| SubjectError::Foreign;
        let Spoken { client, exporter, to } = Spoken::read(root, subject)?;
        let to = match to {
            SpokenTo::Driver(verb, id, method) => {
                To::Driver(verb, id, method.parse().map_err(name)?)
            }
            SpokenTo::Exporter(verb) => To::Exporter(verb),
            SpokenTo::Stream(verb, id) => To::Stream(verb, id),
        };
        let (client, exporter) = (client.parse().map_err(name)?, exporter.parse().map_err(name)?);
        Ok(Self { client, exporter, to })
    }

    /// The wildcard that the actor of `driver` subscribes to: all clients, verbs and methods.
    pub fn driver_wildcard(root: &Root, exporter: &ExporterName, driver: DriverId) -> String {
        format!("{root}.{VERSION}.c.*.*.{exporter}.{driver}.*")
    }

    /// All that clients may ask of any driver of one exporter with one verb.
    pub fn verb_wildcard(root: &Root, exporter: &ExporterName, verb: DriverVerb) -> String {
        format!("{root}.{VERSION}.c.*.{verb}.{exporter}.*.*")
    }

    /// The wildcard of one exporter verb.
    pub fn exporter_wildcard(root: &Root, exporter: &ExporterName, verb: ExporterVerb) -> String {
        format!("{root}.{VERSION}.c.*.{verb}.{exporter}.{EXPORTER_ITSELF}.*")
    }
}

/// A subject that an exporter publishes on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FromExporter {
    /// Data of an open stream.
    Down(ExporterName, ClientName, Session, StreamId),
    /// Control of an open stream.
    Ctl(ExporterName, ClientName, Session, StreamId),
    /// Record number `.0.number` of a streaming call; captured by JetStream.
    Out(Box<OutRecord>),
    /// News of a lease or of a place in its queue, for the client process that asked.
    Lease(ExporterName, ClientName, Session),
    /// What can be leased, and who has it.
    Board(ExporterName),
    /// That the exporter is there.
    Presence(ExporterName),
    /// Part `n` of the exporter's tree.
    Tree(ExporterName, u32),
    /// An interface, by the digest of its description.
    Interface(ExporterName, InterfaceDigest),
    /// Something that happened; captured by JetStream.
    Event(ExporterName, EventKind),
    /// Lines of its log or of a driver's; captured by JetStream.
    Log(ExporterName, LogSource),
}

/// A subject that only admins publish on; captured by JetStream, one message for each.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FromAdmin {
    /// What a place is.
    Place(PlaceName),
}

impl FromAdmin {
    /// The subject under `root`.
    pub fn under(&self, root: &Root) -> String {
        match self {
            Self::Place(name) => format!("{root}.{VERSION}.a.place.{name}"),
        }
    }

    /// Reads a subject under `root`.
    ///
    /// # Errors
    ///
    /// [`SubjectError`], as [`FromClient::read`].
    pub fn read(root: &Root, subject: &str) -> Result<Self, SubjectError> {
        const FOREIGN: SubjectError = SubjectError::Foreign;
        let rest = subject.strip_prefix(root.as_str()).and_then(|s| s.strip_prefix('.'));
        let rest = rest.and_then(|s| s.strip_prefix(VERSION)).and_then(|s| s.strip_prefix(".a."));
        match rest.ok_or(FOREIGN)?.split_once('.') {
            Some(("place", name)) => name.parse().map(Self::Place).map_err(|_| FOREIGN),
            _ => Err(SubjectError::Verb),
        }
    }

    /// Every place.
    pub fn places(root: &Root) -> String {
        format!("{root}.{VERSION}.a.place.*")
    }

    /// All that admins write down.
    pub fn all(root: &Root) -> String {
        format!("{root}.{VERSION}.a.>")
    }
}

/// The subject of one record of a streaming call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OutRecord {
    /// Who publishes it.
    pub exporter: ExporterName,
    /// For whom. Third, so that permissions can name it.
    pub caller: ClientName,
    /// The caller's process.
    pub session: Session,
    /// The driver.
    pub driver: DriverId,
    /// The call's counter within the session.
    pub counter: u64,
    /// The record, counted from 0.
    pub number: u64,
}

impl FromExporter {
    /// The subject under `root`.
    pub fn under(&self, root: &Root) -> String {
        match self {
            Self::Down(exporter, client, session, stream) => {
                format!("{root}.{VERSION}.x.{exporter}.down.{client}.{session}.{stream}")
            }
            Self::Ctl(exporter, client, session, stream) => {
                format!("{root}.{VERSION}.x.{exporter}.ctl.{client}.{session}.{stream}")
            }
            Self::Out(record) => {
                let OutRecord { exporter, caller, session, driver, counter, number } = &**record;
                format!(
                    "{root}.{VERSION}.x.{exporter}.out.{caller}.{session}.{driver}.{counter}.{number}"
                )
            }
            Self::Lease(exporter, client, session) => {
                format!("{root}.{VERSION}.x.{exporter}.lease.{client}.{session}")
            }
            Self::Board(exporter) => format!("{root}.{VERSION}.x.{exporter}.board"),
            Self::Presence(exporter) => format!("{root}.{VERSION}.x.{exporter}.presence"),
            Self::Tree(exporter, part) => format!("{root}.{VERSION}.x.{exporter}.tree.{part}"),
            Self::Interface(exporter, digest) => {
                format!("{root}.{VERSION}.x.{exporter}.interface.{digest}")
            }
            Self::Event(exporter, kind) => format!("{root}.{VERSION}.x.{exporter}.event.{kind}"),
            Self::Log(exporter, source) => format!("{root}.{VERSION}.x.{exporter}.log.{source}"),
        }
    }

    /// Reads a subject under `root`.
    ///
    /// # Errors
    ///
    /// [`SubjectError`], as [`FromClient::read`].
    pub fn read(root: &Root, subject: &str) -> Result<Self, SubjectError> {
        const FOREIGN: SubjectError = SubjectError::Foreign;
        let rest = subject.strip_prefix(root.as_str()).and_then(|s| s.strip_prefix('.'));
        let rest = rest.and_then(|s| s.strip_prefix(VERSION)).and_then(|s| s.strip_prefix(".x."));
        let tokens: Vec<_> = rest.ok_or(FOREIGN)?.splitn(9, '.').collect();
        let exporter = tokens[0].parse().map_err(|_| FOREIGN)?;
        let read = match tokens[1..] {
            ["down", client, session, stream] => (client.parse().ok())
                .zip(session.parse().ok().zip(stream.parse().ok()))
                .map(|(client, (session, stream))| Self::Down(exporter, client, session, stream)),
            ["ctl", client, session, stream] => (client.parse().ok())
                .zip(session.parse().ok().zip(stream.parse().ok()))
                .map(|(client, (session, stream))| Self::Ctl(exporter, client, session, stream)),
            ["out", caller, session, driver, counter, number] => {
                OutRecord::read(exporter, caller, session, driver, counter, number)
                    .map(|record| Self::Out(Box::new(record)))
            }
            ["lease", client, session] => (client.parse().ok())
                .zip(session.parse().ok())
                .map(|(client, session)| Self::Lease(exporter, client, session)),
            ["board"] => Some(Self::Board(exporter)),
            ["presence"] => Some(Self::Presence(exporter)),
            ["tree", part] => part.parse().ok().map(|part| Self::Tree(exporter, part)),
            ["interface", digest] => {
                digest.parse().ok().map(|digest| Self::Interface(exporter, digest))
            }
            ["event", kind] => EventKind::read(kind).map(|kind| Self::Event(exporter, kind)),
            ["log", source] => source.parse().ok().map(|source| Self::Log(exporter, source)),
            [
                "down" | "ctl" | "out" | "lease" | "board" | "presence" | "tree" | "interface"
                | "event" | "log",
                ..,
            ] => None,
            _ => return Err(SubjectError::Verb),
        };
        read.ok_or(FOREIGN)
    }

    /// What a client process subscribes to for the data of its streams.
    pub fn down_wildcard(
        root: &Root,
        from: Option<&ExporterName>,
        client: &ClientName,
        session: Session,
    ) -> String {
        let from = from.map_or("*", ExporterName::as_str);
        format!("{root}.{VERSION}.x.{from}.down.{client}.{session}.*")
    }

    /// What a client process subscribes to for the control of its streams.
    pub fn ctl_wildcard(
        root: &Root,
        from: Option<&ExporterName>,
        client: &ClientName,
        session: Session,
    ) -> String {
        let from = from.map_or("*", ExporterName::as_str);
        format!("{root}.{VERSION}.x.{from}.ctl.{client}.{session}.*")
    }

    /// What a client process subscribes to for news of its leases.
    pub fn lease_wildcard(
        root: &Root,
        from: Option<&ExporterName>,
        client: &ClientName,
        session: Session,
    ) -> String {
        let from = from.map_or("*", ExporterName::as_str);
        format!("{root}.{VERSION}.x.{from}.lease.{client}.{session}")
    }

    /// Every exporter's board of leases.
    pub fn board_all(root: &Root) -> String {
        format!("{root}.{VERSION}.x.*.board")
    }

    /// What a client process subscribes to for the items of its streaming calls.
    pub fn out_wildcard(
        root: &Root,
        from: Option<&ExporterName>,
        client: &ClientName,
        session: Session,
    ) -> String {
        let from = from.map_or("*", ExporterName::as_str);
        format!("{root}.{VERSION}.x.{from}.out.{client}.{session}.*.*.*")
    }

    /// Every record of one streaming call, whichever exporter and driver run it.
    pub fn out_of_call(root: &Root, client: &ClientName, session: Session, counter: u64) -> String {
        format!("{root}.{VERSION}.x.*.out.{client}.{session}.*.{counter}.*")
    }

    /// Record `number` of one streaming call, whichever exporter and driver run it. As the tail
    /// of a direct get it finds the record when only the call's id is known.
    pub fn out_number(
        root: &Root,
        client: &ClientName,
        session: Session,
        counter: u64,
        number: u64,
    ) -> String {
        format!("{root}.{VERSION}.x.*.out.{client}.{session}.*.{counter}.{number}")
    }

    /// Every streaming call's records: what JetStream captures.
    pub fn out_all(root: &Root) -> String {
        format!("{root}.{VERSION}.x.*.out.>")
    }

    /// Every exporter's presence.
    pub fn presence_all(root: &Root) -> String {
        format!("{root}.{VERSION}.x.*.presence")
    }

    /// Every exporter's trees and interfaces, and those of one exporter.
    pub fn tree_all(root: &Root) -> String {
        format!("{root}.{VERSION}.x.*.tree.*")
    }

    /// All parts of one exporter's tree.
    pub fn tree_of(root: &Root, exporter: &ExporterName) -> String {
        format!("{root}.{VERSION}.x.{exporter}.tree.*")
    }

    /// Every interface that anybody has published.
    pub fn interface_all(root: &Root) -> String {
        format!("{root}.{VERSION}.x.*.interface.*")
    }

    /// Every event of one exporter, or of all.
    pub fn events(root: &Root, exporter: Option<&ExporterName>) -> String {
        format!("{root}.{VERSION}.x.{}.event.*", one_or_all(exporter))
    }

    /// Every log of one exporter, or of all; or that of one source.
    pub fn logs(root: &Root, exporter: Option<&ExporterName>, source: Option<LogSource>) -> String {
        let source = source.map_or("*".to_owned(), |source| source.to_string());
        format!("{root}.{VERSION}.x.{}.log.{source}", one_or_all(exporter))
    }

    /// All interfaces of one exporter.
    pub fn interface_of(root: &Root, exporter: &ExporterName) -> String {
        format!("{root}.{VERSION}.x.{exporter}.interface.*")
    }
}

fn one_or_all(exporter: Option<&ExporterName>) -> &str {
    exporter.map_or("*", ExporterName::as_str)
}

impl OutRecord {
    fn read(
        exporter: ExporterName,
        caller: &str,
        session: &str,
        driver: &str,
        counter: &str,
        number: &str,
    ) -> Option<Self> {
        Some(Self {
            exporter,
            caller: caller.parse().ok()?,
            session: session.parse().ok()?,
            driver: driver.parse().ok()?,
            counter: counter.parse().ok()?,
            number: number.parse().ok()?,
        })
    }
}

/// A piece of a file that a client stores; captured by JetStream. The client in it is as true as
/// that of a request, so nobody can put anything in the place of another's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stored {
    /// Who stores it.
    pub client: ClientName,
    /// Which piece.
    pub piece: Piece,
}

/// The piece of a file that a [`Stored`] subject names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Piece {
    /// The manifest whose message has this SHA-256.
    Manifest(Sha256),
    /// Part `n` of the block with this SHA-256.
    Part(Sha256, u32),
}

impl Stored {
    /// The subject under `root`.
    pub fn under(&self, root: &Root) -> String {
        let client = &self.client;
        match self.piece {
            Piece::Manifest(digest) => format!("{root}.{VERSION}.f.{client}.m.{digest}"),
            Piece::Part(digest, n) => format!("{root}.{VERSION}.f.{client}.b.{digest}.{n}"),
        }
    }

    /// Reads a subject under `root`.
    ///
    /// # Errors
    ///
    /// [`SubjectError`], as [`FromClient::read`].
    pub fn read(root: &Root, subject: &str) -> Result<Self, SubjectError> {
        const FOREIGN: SubjectError = SubjectError::Foreign;
        let rest = subject.strip_prefix(root.as_str()).and_then(|s| s.strip_prefix('.'));
        let rest = rest.and_then(|s| s.strip_prefix(VERSION)).and_then(|s| s.strip_prefix(".f."));
        let tokens: Vec<_> = rest.ok_or(FOREIGN)?.splitn(5, '.').collect();
        let client = tokens[0].parse().map_err(|_| FOREIGN)?;
        let piece = match tokens[1..] {
            ["m", digest] => digest.parse().ok().map(Piece::Manifest),
            ["b", digest, n] => {
                let canonical = n.parse().ok().filter(|n: &u32| n.to_string() == tokens[3]);
                digest.parse().ok().zip(canonical).map(|(digest, n)| Piece::Part(digest, n))
            }
            ["m" | "b", ..] => None,
            _ => return Err(SubjectError::Verb),
        };
        piece.map(|piece| Self { client, piece }).ok_or(FOREIGN)
    }

    /// Everything that clients store: what JetStream captures.
    pub fn all(root: &Root) -> String {
        format!("{root}.{VERSION}.f.>")
    }

    /// All that one client stores.
    pub fn all_of(root: &Root, client: &ClientName) -> String {
        format!("{root}.{VERSION}.f.{client}.>")
    }

    /// All parts of one block of one client.
    pub fn parts_of(root: &Root, client: &ClientName, digest: Sha256) -> String {
        format!("{root}.{VERSION}.f.{client}.b.{digest}.*")
    }
}

/// Inboxes: where answers go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbox(String);

impl Inbox {
    /// The inbox of a client process.
    pub fn of_client(root: &Root, client: &ClientName, session: Session) -> Self {
        Self(format!("{root}.{VERSION}.i.{client}.{session}"))
    }

    /// The inbox of an exporter process.
    pub fn of_exporter(root: &Root, exporter: &ExporterName, incarnation: Incarnation) -> Self {
        Self(format!("{root}.{VERSION}.ix.{exporter}.{incarnation}"))
    }

    /// The inboxes of all processes of one client.
    fn all_of_client(root: &Root, client: &str) -> String {
        format!("{root}.{VERSION}.i.{client}.>")
    }

    /// The inboxes of all runs of one exporter.
    fn all_of_exporter(root: &Root, exporter: &str) -> String {
        format!("{root}.{VERSION}.ix.{exporter}.>")
    }

    /// The subject for one answer. `token` is fresh and random: a guessable one can be forged.
    pub fn token(&self, token: u64) -> String {
        let mut subject = String::with_capacity(self.0.len() + 1 + 16);
        subject.extend([&self.0, ".", Session(token).text(&mut [0; 16])]);
        subject
    }

    /// The subscription for all answers.
    pub fn wildcard(&self) -> String {
        format!("{}.*", self.0)
    }

    /// The token of a subject in this inbox.
    pub fn read(&self, subject: &str) -> Option<u64> {
        Self::token_in(subject.strip_prefix(&self.0)?.strip_prefix('.')?)
    }

    /// A reply subject, as the inbox that it is in and its token.
    pub fn split(reply: &str) -> Option<(&str, &str)> {
        reply.rsplit_once('.')
    }

    /// The token of a reply subject's last part, as it is written.
    pub fn token_in(text: &str) -> Option<u64> {
        (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten()
    }

    /// Whether `reply` lies under the inbox of `client`, so that an answer there reaches nobody
    /// but the client that the subject names. Allocates nothing: every request passes here.
    pub fn belongs_to(reply: &str, root: &Root, client: &ClientName) -> bool {
        lies_under(reply, root, ".i.", client.as_str())
    }

    /// Whether `reply` lies under the inbox of `exporter`.
    pub fn is_of_exporter(reply: &str, root: &Root, exporter: &ExporterName) -> bool {
        lies_under(reply, root, ".ix.", exporter.as_str())
    }
}

fn lies_under(reply: &str, root: &Root, class: &str, name: &str) -> bool {
    let rest = reply.strip_prefix(root.as_str()).and_then(|s| s.strip_prefix('.'));
    let rest = rest.and_then(|s| s.strip_prefix(VERSION)).and_then(|s| s.strip_prefix(class));
    let rest = rest.and_then(|s| s.strip_prefix(name)).and_then(|s| s.strip_prefix('.'));
    rest.is_some_and(|token| !token.is_empty() && !token.contains(['*', '>', ' ']))
}

/// The names of the JetStream streams of one root. PROTOCOL.md lists their configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streams {
    /// Records of streaming calls.
    pub out: String,
    /// Presence, trees and interfaces.
    pub registry: String,
    /// Files that clients lend.
    pub files: String,
    /// Events.
    pub events: String,
    /// Logs.
    pub logs: String,
    /// What admins write down: places.
    pub admin: String,
}

impl Streams {
    /// The streams of `root`.
    pub fn of(root: &Root) -> Self {
        Self {
            out: format!("{root}_out"),
            registry: format!("{root}_registry"),
            files: format!("{root}_files"),
            events: format!("{root}_events"),
            logs: format!("{root}_logs"),
            admin: format!("{root}_admin"),
        }
    }

    /// The request that reads the last message of `subject` from `stream`: the one read of
    /// JetStream that permissions can scope (ADR-31).
    pub fn direct_get(stream: &str, subject: &str) -> String {
        format!("$JS.API.DIRECT.GET.{stream}.{subject}")
    }

    /// The request that reads many subjects of `stream` at once (`multi_last` of ADR-31).
    pub fn direct_get_many(stream: &str) -> String {
        format!("$JS.API.DIRECT.GET.{stream}")
    }

    /// The request that creates `stream`.
    pub fn create(stream: &str) -> String {
        format!("$JS.API.STREAM.CREATE.{stream}")
    }

    /// The request that changes `stream`.
    pub fn update(stream: &str) -> String {
        format!("$JS.API.STREAM.UPDATE.{stream}")
    }

    /// The request that describes `stream`.
    pub fn info(stream: &str) -> String {
        format!("$JS.API.STREAM.INFO.{stream}")
    }

    /// The request that removes messages of `stream` for good.
    pub fn purge(stream: &str) -> String {
        format!("$JS.API.STREAM.PURGE.{stream}")
    }

    /// Whether a reply subject is JetStream's own, so that the message was a delivery.
    pub fn is_delivery(reply: &str) -> bool {
        reply.starts_with("$JS.")
    }
}

/// The subjects of the NATS service API (ADR-32) that an exporter answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceVerb {
    /// Who is there?
    Ping,
    /// What do you serve?
    Info,
    /// How much have you served?
    Stats,
}

impl ServiceVerb {
    /// Every verb.
    pub const ALL: &[Self] = &[Self::Ping, Self::Info, Self::Stats];

    /// The name of the service that every exporter is an instance of.
    pub const SERVICE: &str = "jmp-exporter";

    /// The three subjects on which instance `id` answers this verb.
    pub fn subjects(self, id: Incarnation) -> [String; 3] {
        let verb = match self {
            Self::Ping => "PING",
            Self::Info => "INFO",
            Self::Stats => "STATS",
        };
        let service = Self::SERVICE;
        [
            format!("$SRV.{verb}"),
            format!("$SRV.{verb}.{service}"),
            format!("$SRV.{verb}.{service}.{id}"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
