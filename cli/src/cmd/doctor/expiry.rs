//! What is good until some day: one's credentials and the broker's certificate.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use runtime::{Certificate, Identity, Settings};

use super::Check;
use crate::cmd::admin::date;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Enough for an operator to come back from a holiday.
const ENDS_SOON: Duration = Duration::from_secs(30 * 24 * 3600);
/// What is made for a short time is warned of when this part of it is left.
const ENDS_SOON_PART: u32 = 3;

/// How near an end is.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Past,
    Soon { days: u64 },
    Far,
}

impl End {
    fn of(begins: SystemTime, ends: SystemTime, now: SystemTime) -> Self {
        let Some(left) = ends.duration_since(now).ok().filter(|left| !left.is_zero()) else {
            return Self::Past;
        };
        let whole = ends.duration_since(begins).unwrap_or_default();
        match left < ENDS_SOON.min(whole / ENDS_SOON_PART) {
            true => Self::Soon { days: left.as_secs() / DAY.as_secs() },
            false => Self::Far,
        }
    }
}

/// Whether the credentials are good by this host's clock.
pub(super) fn credentials(identity: &Identity) -> Check {
    const WHAT: &str = "credentials";
    const WHAT_TO_DO: &str = "ask whoever runs the broker for new ones (`jmp-bus admin add`)";
    let shown = match identity.role {
        Some(role) => format!("{role} {}", identity.name),
        None => identity.name.clone(),
    };
    let Some(at) = identity.expires else { return Check::ok(WHAT, shown) };
    // Files that say more were not written by us.
    let time = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds.min(u64::from(u32::MAX)));
    match End::of(time(identity.issued), time(at), SystemTime::now()) {
        End::Past => Check::bad(WHAT, format!("{shown}, expired on {}", date(at)), WHAT_TO_DO),
        End::Soon { days } => {
            Check::warning(WHAT, format!("{shown}, until {}{}", date(at), left(days)), WHAT_TO_DO)
        }
        End::Far => Check::ok(WHAT, format!("{shown}, until {}", date(at))),
    }
}

/// Until when the certificates of all brokers are good, whoever signed them.
pub(super) async fn certificates(settings: &Settings, checks: &mut Vec<Check>) {
    let seen = settings.certificates().await;
    let are_several = seen.len() > 1;
    for (server, certificate) in seen {
        let what = match are_several {
            true => format!("certificate of {server}"),
            false => "certificate".to_owned(),
        };
        match certificate {
            Ok(Some(certificate)) => checks.push(one(&what, certificate)),
            // "tls" says so.
            Ok(None) => {}
            // "broker" says so, unless there is another.
            Err(error) if are_several => {
                checks.push(Check::bad(
                    &what,
                    error.to_string(),
                    "is it up, and is its URL right?",
                ));
            }
            Err(_) => {}
        }
    }
}

fn one(what: &str, Certificate { begins, ends }: Certificate) -> Check {
    const RENEW: &str =
        "the operator runs `jmp-bus admin renew-certificate`, or asks whoever signed it";
    let day = |at: SystemTime| date(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
    let now = SystemTime::now();
    if begins > now {
        let found = format!("good from {} on", day(begins));
        return Check::bad(what, found, "is this host's clock right? (`timedatectl set-ntp true`)");
    }
    match End::of(begins, ends, now) {
        End::Past => Check::bad(what, format!("expired on {}", day(ends)), RENEW),
        End::Soon { days } => {
            Check::warning(what, format!("until {}{}", day(ends), left(days)), RENEW)
        }
        End::Far => Check::ok(what, format!("until {}", day(ends))),
    }
}

fn left(days: u64) -> String {
    match days {
        0 => ", less than a day".to_owned(),
        1 => ", a day from now".to_owned(),
        days => format!(", {days} days from now"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(lasts_days: u32, left_days: f64) -> End {
        let begins = UNIX_EPOCH + DAY * 1000;
        let ends = begins + DAY * lasts_days;
        let now =
            begins.checked_add((DAY * lasts_days).mul_f64(1.0 - left_days / f64::from(lasts_days)));
        End::of(begins, ends, now.unwrap())
    }

    #[test]
    fn an_end_is_near_a_month_before_or_when_a_third_is_left() {
        assert_eq!(end(825, 31.0), End::Far);
        assert_eq!(end(825, 29.5), End::Soon { days: 29 });
        assert_eq!(end(825, 0.5), End::Soon { days: 0 });
        assert_eq!(end(825, 0.0), End::Past);
        assert_eq!(end(6, 2.5), End::Far, "certificates of six days are renewed by a program");
        assert_eq!(end(6, 1.5), End::Soon { days: 1 });
    }
}
