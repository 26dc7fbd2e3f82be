//! What exporters say: to clients, and for the record.

use super::{SubjectError, VERSION};
use crate::{
    ClientName, DriverId, EventKind, ExporterName, InterfaceDigest, LogSource, Root, Session,
    StreamId,
};

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
    /// [`SubjectError`], as [`FromClient::read`](super::FromClient::read).
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

    /// What a client process subscribes to, at one exporter or all, for the data of its streams.
    pub fn down_wildcard(
        root: &Root,
        from: Option<&ExporterName>,
        client: &ClientName,
        session: Session,
    ) -> String {
        let from = from.map_or("*", ExporterName::as_str);
        format!("{root}.{VERSION}.x.{from}.down.{client}.{session}.*")
    }

    /// What a client process subscribes to, at one exporter or all, for the control of its streams.
    pub fn ctl_wildcard(
        root: &Root,
        from: Option<&ExporterName>,
        client: &ClientName,
        session: Session,
    ) -> String {
        let from = from.map_or("*", ExporterName::as_str);
        format!("{root}.{VERSION}.x.{from}.ctl.{client}.{session}.*")
    }

    /// What a client process subscribes to, at one exporter or all, for news of its leases.
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

    /// What a client process subscribes to, at one exporter or all, for the items of its streaming calls.
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
