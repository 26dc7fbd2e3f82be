//! Words for what exporters tell: when it was, and without what a terminal would obey.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use runtime::{Keep, Since};

/// A time of an exporter's clock, as people and programs read it.
pub(crate) fn moment(at_ms: u64) -> String {
    // Past the year 9999 there is no such form.
    const LAST_MS: u64 = 253_402_300_799_999;
    let time = UNIX_EPOCH + Duration::from_millis(at_ms.min(LAST_MS));
    humantime::format_rfc3339_millis(time).to_string()
}

/// `text` on one line, without control characters: a driver may say anything.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// A span of time that somebody typed.
pub(crate) fn time(typed: &str) -> Result<Duration, String> {
    humantime::parse_duration(typed).map_err(|_| "expected a time: 10s, 2m, 1h30m".to_owned())
}

/// `2h` ago, a moment, or `now`.
pub(crate) fn since(typed: &str) -> Result<Since, String> {
    if typed == "now" {
        return Ok(Since::Now);
    }
    if let Ok(ago) = humantime::parse_duration(typed) {
        return Ok(SystemTime::now().checked_sub(ago).map_or(Since::Ever, Since::Time));
    }
    humantime::parse_rfc3339_weak(typed).map(Since::Time).map_err(|_| {
        "expected a time ago (90s, 2h, 3days), a moment (2026-11-25T08:00:00Z), or now".to_owned()
    })
}

/// How long something is kept, and how much of it: `30d`, `30d,256MiB`.
pub(crate) fn keep(typed: &str, usual: Keep) -> Result<Keep, String> {
    let (age, bytes) = match typed.split_once(',') {
        Some((age, bytes)) => (age, Some(bytes)),
        None => (typed, None),
    };
    let age = time(age.trim())?;
    let bytes = bytes.map_or(Ok(usual.bytes), |typed| size(typed.trim()))?;
    match age < Duration::from_secs(1) || bytes < 1 << 20 {
        true => Err("keep at least 1s, and 1MiB".to_owned()),
        false => Ok(Keep { age, bytes }),
    }
}

fn size(typed: &str) -> Result<u64, String> {
    const UNITS: [(&str, u32); 3] = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let found = UNITS.iter().find_map(|(unit, shift)| Some((typed.strip_suffix(unit)?, shift)));
    let bytes = found.and_then(|(number, shift)| {
        number.trim().parse::<u32>().ok().map(|number| u64::from(number) << shift)
    });
    bytes.ok_or_else(|| format!("expected a size such as 256MiB or 4GiB, got {typed:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(since("now"), Ok(Since::Now));
        assert_eq!(
            since("1970-01-01T00:00:01Z"),
            Ok(Since::Time(UNIX_EPOCH + Duration::from_secs(1)))
        );
        assert!(matches!(since("2h"), Ok(Since::Time(_))));
        assert!(since("tomorrow").unwrap_err().contains("a time ago"));
        assert_eq!(moment(1_795_554_000_000), "2026-11-24T21:00:00.000Z");
        assert_eq!(moment(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn what_a_terminal_would_obey_is_not_printed() {
        assert_eq!(printable("a\u{1b}[2J\tb\n"), "a\u{fffd}[2J\tb\u{fffd}");
    }

    #[test]
    fn what_is_kept_has_an_age_and_a_size() {
        let usual = Keep { age: Duration::from_secs(1), bytes: 5 << 20 };
        let day = Duration::from_secs(86_400);
        assert_eq!(keep("1d", usual), Ok(Keep { age: day, bytes: 5 << 20 }));
        assert_eq!(keep("1d, 2GiB", usual), Ok(Keep { age: day, bytes: 2 << 30 }));
        for bad in ["", "1d,", "1d,9", "1d,2TB", "1d,99999999999GiB", "0s", "1d,1KiB"] {
            assert!(keep(bad, usual).is_err(), "{bad}");
        }
    }
}
