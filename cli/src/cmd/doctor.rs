//! `jmp-bus doctor`: whether all is well, seen from here.

mod expiry;
mod seat;

use std::time::{Duration, Instant};

use bus_schema::permission::Role;
use runtime::{
    CallError, Client, Keep, NATS_SERVER_MIN, ServerInfo, Settings, StreamsKeep, Version,
};

use crate::{
    advice::{CliError, advice},
    session::Session,
    told::keep,
};

/// The protocol's chunks are 64 KiB and a little.
const MAX_PAYLOAD_MIN: usize = 128 << 10;
/// An exporter that is well answers much sooner.
const PATIENCE: Duration = Duration::from_secs(2);

/// Check the broker and the exporters from here; say what to do about what is wrong.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    /// Make the JetStream streams that are missing. It takes an admin's rights.
    #[arg(long)]
    make_streams: bool,
    /// With --make-streams: keep events so long, and so much: `30d`, `30d,256MiB`.
    #[arg(long, value_name = "AGE[,SIZE]", requires = "make_streams")]
    keep_events: Option<String>,
    /// With --make-streams: keep logs so long, and so much: `3d`, `3d,1GiB`.
    #[arg(long, value_name = "AGE[,SIZE]", requires = "make_streams")]
    keep_logs: Option<String>,
    /// With --make-streams: keep files that are lent so long, and so much: `7d`, `7d,8GiB`.
    #[arg(long, value_name = "AGE[,SIZE]", requires = "make_streams")]
    keep_files: Option<String>,
}

/// One check.
#[derive(Debug, serde::Serialize)]
struct Check {
    check: String,
    /// False if something does not work.
    ok: bool,
    /// It works, and will not for long.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    warning: bool,
    found: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    what_to_do: String,
}

impl Check {
    fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        let (check, found) = (check.into(), found.into());
        Self { check, ok: true, warning: false, found, what_to_do: String::new() }
    }

    fn warning(check: &str, found: impl Into<String>, what_to_do: impl Into<String>) -> Self {
        Self { warning: true, what_to_do: what_to_do.into(), ..Self::ok(check, found) }
    }

    fn bad(check: &str, found: impl Into<String>, what_to_do: impl Into<String>) -> Self {
        let (check, found, what_to_do) = (check.to_owned(), found.into(), what_to_do.into());
        Self { check, ok: false, warning: false, found, what_to_do }
    }

    fn failed(check: &str, error: impl Into<CliError>) -> Self {
        let error = error.into();
        let (_, hint) = advice(&error);
        Self::bad(check, error.to_string(), hint)
    }
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let mut checks = Vec::new();
        let keep = self.keep()?;
        let settings = session.settings()?;
        let identity = settings.identity()?;
        let known = identity.as_ref().and_then(|identity| Some((identity, identity.role?)));
        checks.extend(identity.as_ref().map(expiry::credentials));
        expiry::certificates(&settings, &mut checks).await;
        match known {
            Some((identity, Role::Exporter)) => match settings.server().await {
                Ok(info) => {
                    let found = format!("reached as exporter {}", identity.name);
                    checks.push(Check::ok("broker", found));
                    server(&settings, &info, true, &mut checks);
                    seat::permissions(session, identity, Role::Exporter, &mut checks).await;
                }
                Err(error) => checks.push(Check::failed("broker", error)),
            },
            _ => match session.client().await {
                Ok(client) => {
                    let found = format!("reached as client {}", client.name());
                    checks.push(Check::ok("broker", found));
                    match settings.server().await {
                        Ok(info) => server(&settings, &info, known.is_some(), &mut checks),
                        Err(error) => checks.push(Check::failed("version", error)),
                    }
                    vouched(client, &mut checks);
                    if let Some((identity, role)) = known {
                        seat::permissions(session, identity, role, &mut checks).await;
                    }
                    let sees_streams = known.is_none_or(|(_, role)| role == Role::Admin);
                    if sees_streams || self.make_streams {
                        self.streams(session, keep, &mut checks).await;
                    }
                    exporters(client, &mut checks).await;
                    seat::clock(client, &mut checks).await;
                }
                Err(error @ (CliError::Usage(_) | CliError::NotYours { .. })) => return Err(error),
                Err(error) => checks.push(Check::failed("broker", error)),
            },
        }
        let text = || checks.iter().map(line).collect();
        session.out.document(&checks, text).await?;
        match checks.iter().filter(|check| !check.ok).count() {
            0 => Ok(()),
            bad => Err(CliError::Checks(bad)),
        }
    }

    /// What the streams shall keep, if that was said.
    fn keep(&self) -> Result<Option<StreamsKeep>, CliError> {
        let Self { keep_events, keep_logs, keep_files, .. } = self;
        let usual = StreamsKeep::default();
        let of = |typed: &Option<String>, option, usual: Keep| match typed {
            None => Ok(usual),
            Some(typed) => keep(typed, usual)
                .map_err(|problem| CliError::Usage(format!("{option} {typed}: {problem}"))),
        };
        let events = of(keep_events, "--keep-events", usual.events)?;
        let logs = of(keep_logs, "--keep-logs", usual.logs)?;
        let files = of(keep_files, "--keep-files", usual.files)?;
        let said = keep_events.is_some() || keep_logs.is_some() || keep_files.is_some();
        Ok(said.then_some(StreamsKeep { events, logs, files, ..usual }))
    }

    async fn streams(&self, session: &Session, keep: Option<StreamsKeep>, checks: &mut Vec<Check>) {
        const WHAT: &str = "streams";
        let (Ok(settings), root) = (session.settings(), session.root()) else { return };
        let made = match (self.make_streams, keep) {
            (false, _) => Ok(()),
            (true, None) => settings.make_streams(&root).await,
            (true, Some(keep)) => settings.keep_in_streams(&root, keep).await,
        };
        if let Err(error) = made {
            return checks.push(Check::failed(WHAT, error));
        }
        match settings.check_streams(&session.root()).await {
            Ok(problems) if problems.is_empty() => {
                checks.push(Check::ok(WHAT, format!("as they must be under {}", session.root())));
            }
            Ok(problems) => checks.push(Check::bad(
                WHAT,
                problems.join("; "),
                "have an admin run `jmp-bus doctor --make-streams`",
            )),
            Err(error) => checks.push(Check::failed(WHAT, error)),
        }
    }
}

fn line(check: &Check) -> String {
    let Check { check, ok, warning, found, what_to_do } = check;
    let ok = match (ok, warning) {
        (true, false) => "ok ",
        (true, true) => "!! ",
        (false, _) => "BAD",
    };
    let mut line = format!("{ok}  {check}: {found}\n");
    if !what_to_do.is_empty() {
        line += &format!("     {what_to_do}\n");
    }
    line
}

/// The oldest nats-server that keeps apart whom it knows: an older one publishes what it traces of
/// a message (`Nats-Trace-Dest`) wherever its sender likes. 2.12.5 does, by a test of ours.
const ENFORCES_SINCE: [u32; 3] = [2, 12, 6];

/// `2.12.6` or `2.15.0-dev`; `None` if it is something else, such as a build of one's own.
fn numbers(version: &str) -> Option<[u32; 3]> {
    let mut numbers = version.split(['.', '-']).map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some([next()?, next()?, next()?])
}

/// Whether the broker is new enough, for one that knows its users or for one that does not.
fn version(found: &str, knows_users: bool) -> Check {
    let shown = format!("nats-server {found}");
    let Some([major, minor, patch]) = numbers(found) else { return Check::ok("version", shown) };
    let of = |numbers: [u32; 3]| numbers.map(|number| number.to_string()).join(".");
    if (Version { major, minor }) < NATS_SERVER_MIN {
        let newer = format!("install nats-server {NATS_SERVER_MIN} or later");
        Check::bad("version", shown, newer)
    } else if knows_users && [major, minor, patch] < ENFORCES_SINCE {
        let newer = format!("have the operator install nats-server {}", of(ENFORCES_SINCE));
        Check::bad(
            "version",
            format!("{shown} lets anybody publish what it traces anywhere"),
            newer,
        )
    } else {
        Check::ok("version", shown)
    }
}

/// What the broker says of itself. Whoever `is_known` looks for the streams, too.
fn server(settings: &Settings, info: &ServerInfo, is_known: bool, checks: &mut Vec<Check>) {
    let ServerInfo { version, jetstream, asks_for_tls, max_payload: max, .. } = info;
    let is_private = settings.is_loopback();
    checks.push(match (asks_for_tls, is_private) {
        (true, _) => Check::ok("tls", "every connection is encrypted"),
        (false, true) => Check::ok("tls", "none, on this machine"),
        (false, false) => Check::bad(
            "tls",
            "the broker takes connections that are not encrypted",
            "give it a `tls` block, as `jmp-bus admin init` writes it",
        ),
    });
    checks.push(self::version(version, is_known));
    checks.push(match (jetstream, is_known) {
        (true, _) => Check::ok("jetstream", "on"),
        (false, true) => Check::ok("jetstream", "not here: a leaf node's is the hub's"),
        (false, false) => Check::bad("jetstream", "off", "start nats-server with -js"),
    });
    checks.push(match *max < MAX_PAYLOAD_MIN {
        true => Check::bad(
            "max_payload",
            format!("{max} bytes"),
            format!("set max_payload to {MAX_PAYLOAD_MIN} or more"),
        ),
        false => Check::ok("max_payload", format!("{max} bytes")),
    });
}

/// Whether the broker knows its users apart.
fn vouched(client: &Client, checks: &mut Vec<Check>) {
    checks.push(match (client.is_vouched_for(), client.is_authenticated()) {
        (true, _) => Check::ok("identity", "the broker asks who one is"),
        (_, true) => Check::ok("identity", "one token for all: its holders may say to be anybody"),
        (_, false) => {
            Check::ok("identity", "the broker asks nobody: anybody may say to be anybody")
        }
    });
}

/// Whether those who say that they are there answer.
async fn exporters(client: &Client, checks: &mut Vec<Check>) {
    let exporters = match client.registry().exporters().await {
        Ok(exporters) => exporters,
        Err(error) => return checks.push(Check::failed("registry", error)),
    };
    if exporters.is_empty() {
        checks.push(Check::ok("exporters", "none is up"));
    }
    for presence in exporters {
        let (name, asked) = (&presence.exporter, Instant::now());
        let check = format!("exporter {name}");
        let answer: Result<_, CallError> = client.ping(name, PATIENCE).await;
        checks.push(match answer {
            Ok(pong) => {
                let ms = asked.elapsed().as_secs_f64() * 1000.0;
                Check::ok(check, format!("answers in {ms:.1} ms, on {}", pong.host))
            }
            Err(error) => Check::bad(
                &check,
                error.to_string(),
                format!("look at `jmp-bus serve` on {}", presence.host),
            ),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn an_old_broker_is_told_of_and_one_that_knows_its_users_must_be_newer() {
        for (found, anybodys, ours) in [
            ("2.10.29", false, false),
            ("2.11.0", true, false),
            ("2.12.5", true, false),
            ("2.12.6", true, true),
            ("2.15.0-dev", true, true),
            ("3.0.0", true, true),
            ("own", true, true),
        ] {
            assert_eq!(version(found, false).ok, anybodys, "{found}");
            assert_eq!(version(found, true).ok, ours, "{found}");
        }
    }
}
