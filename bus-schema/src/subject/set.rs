//! Sets of subjects: what a permission of the broker names.

use super::{DriverVerb, ExporterVerb, FromAdmin, FromExporter, Inbox, Streams, VERSION};
use crate::Root;

/// The client that an exporter is to itself: when it asks whether its name is taken, and in its
/// hooks. Nobody else may have this name.
pub const CLAIMANT: &str = "exporter";

/// A set of subjects, or of JetStream's requests. Some have the name of whoever is permitted in
/// them: written C as a client's, E as an exporter's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SubjectSet {
    /// All that client C says.
    OfClient,
    /// What client C says that is for admins.
    OfClientAsAdmin,
    /// The question of C whether an exporter is there.
    OfClientPing,
    /// The wish of C to read along at a console.
    OfClientWatch,
    /// The wish of C to read what a console said.
    OfClientCapture,
    /// The question of C how far back that reaches.
    OfClientCaptureInfo,
    /// What C says of streams that it has opened, whichever they are: by its control …
    OfClientCtl,
    /// … by its data …
    OfClientUp,
    /// … by asking about them …
    OfClientAsk,
    /// … and by cancelling them.
    OfClientCancel,
    /// All that anybody says to exporter E.
    ToExporter,
    /// What exporter E says to itself: whether its name is taken, and what its hooks want.
    Itself,
    /// What exporter E answers itself.
    ToItself,
    /// All that exporter E says.
    OfExporter,
    /// All that any exporter says.
    OfExporters,
    /// Control of the streams of client C.
    CtlTo,
    /// Data of the streams of client C.
    DownTo,
    /// Items of the streaming calls of client C.
    OutTo,
    /// News of a client's leases.
    LeaseTo,
    /// That exporters are there.
    Presence,
    /// Who has leased what, at every exporter.
    Board,
    /// What happens at exporters.
    Events,
    /// What exporters and their drivers say while they work.
    Logs,
    /// What admins write down.
    OfAdmins,
    /// The inbox of client C.
    Inbox,
    /// The inboxes of all clients.
    Inboxes,
    /// The inbox of exporter E.
    ExporterInbox,
    /// Reading the registry.
    ReadRegistry,
    /// Reading the last record of a subject in the registry.
    ReadRegistryLast,
    /// Reading the records of exporter E in the registry.
    ReadRegistryOf,
    /// Reading the records of the streaming calls of client C.
    ReadOutOf,
    /// Reading the records of all streaming calls.
    ReadOut,
    /// Reading any one record of a streaming call.
    ReadOutLast,
    /// Files that client C stores.
    Files,
    /// Parts of files that go to exporter E while clients store them.
    FilesTo,
    /// Reading the files of all clients.
    ReadFiles,
    /// Reading events.
    ReadEvents,
    /// Reading logs.
    ReadLogs,
    /// Reading what admins wrote down.
    ReadAdmin,
    /// Reading one record of it.
    ReadAdminLast,
    /// All that JetStream can be asked for.
    JetStream,
    /// The service API.
    Services,
    /// Everything of the protocol.
    All,
}

impl SubjectSet {
    /// The set under `root` as a pattern, with `name` for C or E.
    pub fn pattern(self, root: &Root, name: &str) -> String {
        let Streams { out, registry, events, logs, files, admin } = Streams::of(root);
        let under = |rest: String| format!("{root}.{VERSION}.{rest}");
        match self {
            Self::OfClient => under(format!("c.{name}.>")),
            Self::OfClientAsAdmin => under(format!("c.{name}.admin.>")),
            Self::OfClientPing => under(format!("c.{name}.{}.>", ExporterVerb::Ping)),
            Self::OfClientWatch => under(format!("c.{name}.{}.*.*.watch", DriverVerb::Open)),
            Self::OfClientCapture => under(format!("c.{name}.{}.*.*.capture", DriverVerb::Open)),
            Self::OfClientCaptureInfo => {
                under(format!("c.{name}.{}.*.*.capture_info", DriverVerb::Call))
            }
            Self::OfClientCtl => under(format!("c.{name}.{}.>", ExporterVerb::Ctl)),
            Self::OfClientUp => under(format!("c.{name}.{}.>", ExporterVerb::Up)),
            Self::OfClientAsk => under(format!("c.{name}.{}.>", ExporterVerb::Ask)),
            Self::OfClientCancel => under(format!("c.{name}.{}.>", ExporterVerb::Cancel)),
            Self::ToExporter => under(format!("c.*.*.{name}.>")),
            Self::Itself => under(format!("c.{CLAIMANT}.*.{name}.>")),
            Self::ToItself => under(format!("x.{name}.*.{CLAIMANT}.>")),
            Self::OfExporter => under(format!("x.{name}.>")),
            Self::OfExporters => under("x.>".to_owned()),
            Self::CtlTo => under(format!("x.*.ctl.{name}.>")),
            Self::DownTo => under(format!("x.*.down.{name}.>")),
            Self::OutTo => under(format!("x.*.out.{name}.>")),
            Self::LeaseTo => under(format!("x.*.lease.{name}.>")),
            Self::Presence => under("x.*.presence".to_owned()),
            Self::Board => under("x.*.board".to_owned()),
            Self::Events => FromExporter::events(root, None),
            Self::Logs => FromExporter::logs(root, None, None),
            Self::OfAdmins => FromAdmin::all(root),
            Self::Inbox => Inbox::all_of_client(root, name),
            Self::Inboxes => Inbox::all_of_client(root, "*"),
            Self::ExporterInbox => Inbox::all_of_exporter(root, name),
            Self::ReadRegistry => Streams::direct_get_many(&registry),
            Self::ReadRegistryLast => Streams::direct_get(&registry, ">"),
            Self::ReadRegistryOf => {
                Streams::direct_get(&registry, &Self::OfExporter.pattern(root, name))
            }
            Self::ReadOutOf => Streams::direct_get(&out, &Self::OutTo.pattern(root, name)),
            Self::ReadOut => Streams::direct_get_many(&out),
            Self::ReadOutLast => Streams::direct_get(&out, ">"),
            Self::Files => under(format!("f.{name}.>")),
            Self::FilesTo => under(format!("f.*.to.{name}.>")),
            Self::ReadFiles => Streams::direct_get(&files, &under("f.>".to_owned())),
            Self::ReadEvents => Streams::direct_get_many(&events),
            Self::ReadLogs => Streams::direct_get_many(&logs),
            Self::ReadAdmin => Streams::direct_get_many(&admin),
            Self::ReadAdminLast => Streams::direct_get(&admin, ">"),
            Self::JetStream => "$JS.API.>".to_owned(),
            Self::Services => "$SRV.>".to_owned(),
            Self::All => under(">".to_owned()),
        }
    }
}

/// Whether every subject of the pattern `asked` is one of the pattern `allowed`, as NATS sees it.
pub fn covers(allowed: &str, asked: &str) -> bool {
    let (mut allowed, mut asked) = (allowed.split('.'), asked.split('.'));
    loop {
        match (allowed.next(), asked.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(one), Some(other)) if one == other && one != ">" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_pattern_covers_what_lies_within_it() {
        for (allowed, asked) in [
            ("a.>", "a.b"),
            ("a.>", "a.b.*"),
            ("a.>", "a.>"),
            ("a.*.c", "a.b.c"),
            ("a.*.c", "a.*.c"),
            (">", "$JS.x"),
            ("a", "a"),
        ] {
            assert!(covers(allowed, asked), "{allowed} {asked}");
        }
        for (allowed, asked) in [
            ("a.>", "a"),
            ("a.>", ">"),
            ("a.>", "*.b"),
            ("a.*", "a.>"),
            ("a.*", "a.b.c"),
            ("a.*.c", "a.b"),
            ("a.b", "a.*"),
            ("a.b", "a.b.c"),
            ("*", ">"),
        ] {
            assert!(!covers(allowed, asked), "{allowed} {asked}");
        }
    }
}
