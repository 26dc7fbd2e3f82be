//! What can be seen only by somebody with credentials: what they are good for, and whether the
//! clocks agree.

use std::time::{Duration, SystemTime};

use bus_schema::{limits::PRESENCE_EVERY, permission::Role};
use runtime::{Checkup, Client, Identity};

use super::Check;
use crate::session::Session;

/// Clocks that differ by this much make credentials end early and logs hard to read.
const CLOCKS_DIFFER_MAX: Duration = Duration::from_secs(2);

/// Tries what the role is for, and looks for the streams that it reads.
pub(super) async fn permissions(
    session: &Session,
    identity: &Identity,
    role: Role,
    checks: &mut Vec<Check>,
) {
    let tried = async {
        let settings = session.settings()?;
        Ok::<_, crate::advice::CliError>(
            settings.check_up(&session.root(), role, &identity.name).await?,
        )
    };
    let Checkup { tried, denied, missing_streams } = match tried.await {
        Ok(checkup) => checkup,
        Err(error) => return checks.push(Check::failed("permissions", error)),
    };
    checks.push(match denied.is_empty() {
        true => Check::ok("permissions", format!("the {tried} of the role {role}, all tried")),
        false => Check::bad(
            "permissions",
            format!("the broker denied: {}", denied.join("; ")),
            "its permissions are of another version, or the root is another: the operator runs `jmp-bus admin upgrade`",
        ),
    });
    let reads = "the streams that it reads are there";
    checks.push(match (denied.is_empty(), missing_streams.is_empty()) {
        (false, _) => return,
        (true, true) => Check::ok("streams", reads),
        (true, false) => Check::bad(
            "streams",
            format!("not there: {}", missing_streams.join(", ")),
            "the operator runs `jmp-bus admin streams`",
        ),
    });
}

/// Compares clocks by the newest heartbeat, which the broker has stamped.
pub(super) async fn clock(client: &Client, checks: &mut Vec<Check>) {
    const WHAT: &str = "clock";
    let Ok(Some(newest)) = client.registry().newest().await else {
        return checks.push(Check::ok(WHAT, "not compared, as no exporter is up"));
    };
    checks.push(match SystemTime::now().duration_since(newest) {
        Err(ahead) if ahead.duration() > CLOCKS_DIFFER_MAX => differs(ahead.duration(), "behind"),
        Ok(age) if age > PRESENCE_EVERY * 2 + CLOCKS_DIFFER_MAX => differs(age, "ahead of"),
        _ => Check::ok(WHAT, "as the broker's, to a heartbeat"),
    });
}

fn differs(by: Duration, how: &str) -> Check {
    let found = format!("this host's is {} s {how} the broker's", by.as_secs());
    Check::bad("clock", found, "set both by NTP (`timedatectl set-ntp true`)")
}
