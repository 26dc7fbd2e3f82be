//! Who may say and hear what: one table, from which the broker's permissions are made.
//!
//! The broker makes the names in subjects true by these permissions, and nothing else does: an
//! exporter believes the token and keeps no list of who is what. PROTOCOL.md §3.1 is the same
//! table; a test compares them.

use std::{fmt, str::FromStr};

use serde_json::{Value as Json, json};

use crate::{
    Root,
    subject::{SubjectSet, covers},
};

/// What somebody is to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Uses drivers.
    Client,
    /// Sees what everybody does and what consoles say, and does nothing.
    Observer,
    /// A client that may also end what others do, and keep the broker's streams.
    Admin,
    /// Serves drivers.
    Exporter,
    /// A broker at another site, for all who are connected there: it is trusted to know them.
    Leaf,
}

impl Role {
    /// Every role.
    pub const ALL: &[Self] =
        &[Self::Client, Self::Observer, Self::Admin, Self::Exporter, Self::Leaf];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Observer => "observer",
            Self::Admin => "admin",
            Self::Exporter => "exporter",
            Self::Leaf => "leaf",
        }
    }

    /// What it may say and hear under `root` as `name`.
    pub fn permissions(self, root: &Root, name: &str) -> Permissions {
        let chosen = |roles: fn(&Grant) -> &'static [Self]| {
            let rows = TABLE.iter().filter(|grant| roles(grant).contains(&self));
            rows.map(|grant| grant.subjects.pattern(root, name)).collect()
        };
        Permissions {
            publish: chosen(|grant| grant.publish),
            never_publish: chosen(|grant| grant.never_publish),
            subscribe: chosen(|grant| grant.subscribe),
        }
    }

    /// The same for everybody of this role: the broker puts the name in that a user's JWT has.
    pub fn template(self, root: &Root) -> Permissions {
        self.permissions(root, NAME_TEMPLATE)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no role: a role is client, observer, admin, exporter or leaf")]
pub struct RoleError(String);

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        let found = Self::ALL.iter().find(|role| role.as_str() == text);
        found.copied().ok_or_else(|| RoleError(text.chars().take(80).collect()))
    }
}

/// Stands for the user's name in the permissions of a scoped signing key.
pub const NAME_TEMPLATE: &str = "{{name()}}";

/// A row of the table. What no row grants is denied.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    /// What it is about.
    pub subjects: SubjectSet,
    /// Who may publish there.
    pub publish: &'static [Role],
    /// Who may not, whatever another row says.
    pub never_publish: &'static [Role],
    /// Who may subscribe there.
    pub subscribe: &'static [Role],
}

const NOBODY: &[Role] = &[];

const fn publish(subjects: SubjectSet, publish: &'static [Role]) -> Grant {
    Grant { subjects, publish, never_publish: NOBODY, subscribe: NOBODY }
}

const fn subscribe(subjects: SubjectSet, subscribe: &'static [Role]) -> Grant {
    Grant { subjects, publish: NOBODY, never_publish: NOBODY, subscribe }
}

const fn both(subjects: SubjectSet, publish: &'static [Role], subscribe: &'static [Role]) -> Grant {
    Grant { subjects, publish, never_publish: NOBODY, subscribe }
}

const fn never(subjects: SubjectSet, never_publish: &'static [Role]) -> Grant {
    Grant { subjects, publish: NOBODY, never_publish, subscribe: NOBODY }
}

use Role::{Admin, Client, Exporter, Leaf, Observer};

/// Everybody who is no exporter.
const PEOPLE: &[Role] = &[Client, Observer, Admin];

/// All permissions of all roles.
///
/// No role has an empty list: the broker takes that for "everything". Nobody has the right to
/// answer whoever asks (`allow_responses`): a caller could lure an exporter to any subject.
pub const TABLE: &[Grant] = &[
    publish(SubjectSet::OfClient, &[Client, Admin]),
    never(SubjectSet::OfClientAsAdmin, &[Client]),
    publish(SubjectSet::OfClientPing, &[Observer]),
    publish(SubjectSet::OfClientWatch, &[Observer]),
    publish(SubjectSet::OfClientCapture, &[Observer]),
    publish(SubjectSet::OfClientCaptureInfo, &[Observer]),
    publish(SubjectSet::OfClientCtl, &[Observer]),
    publish(SubjectSet::OfClientUp, &[Observer]),
    publish(SubjectSet::OfClientAsk, &[Observer]),
    publish(SubjectSet::OfClientCancel, &[Observer]),
    subscribe(SubjectSet::ToExporter, &[Exporter]),
    publish(SubjectSet::Itself, &[Exporter]),
    subscribe(SubjectSet::ToItself, &[Exporter]),
    publish(SubjectSet::OfExporter, &[Exporter]),
    subscribe(SubjectSet::OfExporters, &[Observer, Admin]),
    subscribe(SubjectSet::CtlTo, &[Client]),
    subscribe(SubjectSet::DownTo, &[Client]),
    subscribe(SubjectSet::OutTo, &[Client]),
    subscribe(SubjectSet::LeaseTo, &[Client]),
    subscribe(SubjectSet::Presence, &[Client]),
    subscribe(SubjectSet::Board, &[Client]),
    subscribe(SubjectSet::Events, &[Client]),
    subscribe(SubjectSet::Logs, &[Client]),
    both(SubjectSet::OfAdmins, &[Admin], PEOPLE),
    both(SubjectSet::Inbox, PEOPLE, PEOPLE),
    publish(SubjectSet::Inboxes, &[Exporter]),
    both(SubjectSet::ExporterInbox, &[Exporter], &[Exporter]),
    publish(SubjectSet::ReadRegistry, PEOPLE),
    publish(SubjectSet::ReadRegistryLast, PEOPLE),
    publish(SubjectSet::ReadRegistryOf, &[Exporter]),
    publish(SubjectSet::ReadOutOf, &[Client]),
    publish(SubjectSet::ReadOut, &[Observer]),
    publish(SubjectSet::ReadOutLast, &[Observer]),
    publish(SubjectSet::Files, &[Client, Admin]),
    subscribe(SubjectSet::FilesTo, &[Exporter]),
    publish(SubjectSet::ReadFiles, &[Exporter]),
    publish(SubjectSet::ReadEvents, &[Client, Observer]),
    publish(SubjectSet::ReadLogs, &[Client, Observer]),
    publish(SubjectSet::ReadAdmin, &[Client, Observer]),
    publish(SubjectSet::ReadAdminLast, &[Client, Observer]),
    publish(SubjectSet::JetStream, &[Admin, Leaf]),
    both(SubjectSet::Services, &[Client, Observer, Admin, Leaf], &[Exporter, Leaf]),
    both(SubjectSet::All, &[Leaf], &[Leaf]),
];

/// What one user may say and hear: lists of patterns, as the broker takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// Where it may publish …
    pub publish: Vec<String>,
    /// … but not here.
    pub never_publish: Vec<String>,
    /// Where it may subscribe.
    pub subscribe: Vec<String>,
}

impl Permissions {
    /// Whether the broker lets it publish on `subject`.
    pub fn may_publish(&self, subject: &str) -> bool {
        let within = |list: &[String]| list.iter().any(|allowed| covers(allowed, subject));
        within(&self.publish) && !within(&self.never_publish)
    }

    /// Whether the broker lets it subscribe to all of `pattern`.
    pub fn may_subscribe(&self, pattern: &str) -> bool {
        self.subscribe.iter().any(|allowed| covers(allowed, pattern))
    }

    /// As the template of a JWT has it.
    pub fn to_jwt(&self) -> Json {
        let mut publish = json!({ "allow": self.publish });
        if !self.never_publish.is_empty() {
            publish["deny"] = json!(self.never_publish);
        }
        json!({ "pub": publish, "sub": { "allow": self.subscribe } })
    }

    /// As the configuration of a broker has it, for one without JWTs.
    pub fn to_config(&self) -> Json {
        let mut publish = json!({ "allow": self.publish });
        if !self.never_publish.is_empty() {
            publish["deny"] = json!(self.never_publish);
        }
        json!({ "publish": publish, "subscribe": { "allow": self.subscribe } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(role: Role, name: &str) -> Permissions {
        role.permissions(&Root::default(), name)
    }

    #[test]
    fn no_role_has_an_empty_list_as_that_would_allow_everything() {
        for role in Role::ALL {
            let Permissions { publish, subscribe, .. } = of(*role, "x");
            assert!(!publish.is_empty() && !subscribe.is_empty(), "{role}");
        }
    }

    #[test]
    fn every_role_has_its_word() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(*role));
        }
        assert!("root".parse::<Role>().unwrap_err().to_string().contains("observer"));
    }

    #[test]
    fn a_namesake_of_another_class_is_nobody() {
        let client = of(Role::Client, "lab1");
        assert!(client.may_publish("jmp.v1.c.lab1.call.lab2.d.on"));
        for subject in ["jmp.v1.x.lab1.presence", "jmp.v1.ix.lab1.1.2", "jmp.v1.i.bob.1.2"] {
            assert!(!client.may_publish(subject), "{subject}");
        }
        assert!(!client.may_subscribe("jmp.v1.c.*.*.lab1.>"));
        let exporter = of(Role::Exporter, "lab1");
        assert!(exporter.may_publish("jmp.v1.x.lab1.presence"));
        assert!(!exporter.may_publish("jmp.v1.c.lab1.call.lab2.d.on"));
        assert!(!exporter.may_subscribe("jmp.v1.i.lab1.>"));
        assert!(exporter.may_publish("jmp.v1.c.exporter.call.lab1.d.on"), "to itself");
        assert!(!exporter.may_publish("jmp.v1.c.exporter.call.lab2.d.on"));
        assert!(exporter.may_subscribe("jmp.v1.x.lab1.ctl.exporter.00000000000000ab.*"));
        assert!(!exporter.may_subscribe("jmp.v1.x.*.ctl.exporter.00000000000000ab.*"));
    }

    #[test]
    fn an_observer_reads_along_at_consoles_and_calls_nothing() {
        let observer = of(Role::Observer, "eve");
        for method in ["watch", "capture"] {
            assert!(observer.may_publish(&format!("jmp.v1.c.eve.open.bench.d.{method}")));
            assert!(!observer.may_publish(&format!("jmp.v1.c.bob.open.bench.d.{method}")));
        }
        for said in
            ["open.bench.d.connect", "call.bench.d.on", "call.bench.d.watch", "lease.bench._._"]
        {
            assert!(!observer.may_publish(&format!("jmp.v1.c.eve.{said}")), "{said}");
        }
    }

    #[test]
    fn what_is_for_admins_is_denied_to_clients() {
        let subject = "jmp.v1.c.alice.admin.bench._._";
        assert!(!of(Role::Client, "alice").may_publish(subject));
        assert!(of(Role::Admin, "alice").may_publish(subject));
        let client = of(Role::Client, "alice");
        assert!(client.may_publish("jmp.v1.c.alice.ask.admin._._"), "an exporter may be so named");
    }

    #[test]
    fn a_template_has_the_name_where_the_broker_puts_it() {
        let template = Role::Client.template(&Root::default()).to_jwt();
        assert_eq!(template["pub"]["allow"][0], "jmp.v1.c.{{name()}}.>");
        assert_eq!(template["pub"]["deny"][0], "jmp.v1.c.{{name()}}.admin.>");
        assert_eq!(template["sub"]["allow"][0], "jmp.v1.x.*.ctl.{{name()}}.>");
    }
}
