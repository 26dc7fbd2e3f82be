//! What clients say: to a driver, and to an exporter.

use std::fmt;

use super::{EXPORTER_ITSELF, SubjectError, VERSION, behind};
use crate::{
    ClientName, DriverId, ExporterName, MethodName, Root, StreamId, limits::NAME_BYTES_MAX,
};

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

    /// The driver and the method of a call that comes with others: the end of its subject.
    pub fn driver_and_method(to: &str) -> Option<(DriverId, &str)> {
        let (driver, method) = to.split_once('.')?;
        MethodName::is(method).then_some((driver.parse().ok()?, method))
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
        let rest = behind(root, "c", subject)?;
        rest.split('.').next().filter(|client| ClientName::is(client))
    }
}

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
    /// Calls of drivers, many in one message.
    Calls,
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
    Calls = "calls",
    Ping = "ping",
    Ctl = "ctl",
    Up = "up",
    Lease = "lease",
    Admin = "admin",
});
