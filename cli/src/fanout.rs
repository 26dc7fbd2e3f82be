//! One call to many drivers.

use std::{str::FromStr, time::Duration};

use bus_schema::Value;
use futures_util::{StreamExt as _, stream};
use runtime::{CallError, Client, Found};
use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep_until};

use crate::{
    advice::{CliError, as_json},
    held::HeldLeases,
    output::Output,
};

/// Calls at the same time, unless told otherwise.
const JOBS: usize = 64;
/// Calls at the same time with a common start: each waits for the broker alone by then.
const JOBS_AT_ONCE_MAX: usize = 10_000;

/// A common start is at most this far away: more is a slip of the finger.
const AT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A start for all together, this long from now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommonStart(Duration);

impl FromStr for CommonStart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let span = text.strip_prefix('+').and_then(|span| humantime::parse_duration(span).ok());
        let span = span.filter(|span| *span <= AT_MAX);
        span.map(Self)
            .ok_or_else(|| format!("{text:?} is no time within a day from now: write +2s"))
    }
}

/// A call to many drivers.
#[derive(Debug)]
pub(crate) struct Fanout<'a> {
    pub(crate) method: &'a str,
    pub(crate) words: &'a [Value],
    pub(crate) deadline: Option<Duration>,
    pub(crate) jobs: Option<usize>,
    pub(crate) at: Option<CommonStart>,
}

impl Fanout<'_> {
    /// Calls all of them and prints each end as it comes. Dropping it cancels what is open.
    pub(crate) async fn run(
        &self,
        client: &Client,
        found: Vec<Found>,
        out: Output,
    ) -> Result<(), CliError> {
        let all = found.len();
        let jobs = match self.at {
            Some(_) => all.min(JOBS_AT_ONCE_MAX),
            None => JOBS,
        };
        let start = Instant::now() + self.at.map_or(Duration::ZERO, |CommonStart(span)| span);
        if let Some(CommonStart(span)) = self.at {
            out.note(format_args!("{all} drivers begin in {}", humantime::format_duration(span)));
        }
        sleep_until(start).await;
        let calls = stream::iter(found).map(|found| self.call(client, found));
        let mut calls = Box::pin(calls.buffer_unordered(self.jobs.unwrap_or(jobs)));
        let mut tally = Tally { all, ..Tally::default() };
        while let Some((address, ended)) = calls.next().await {
            tally.add(&ended);
            show(out, &address, &ended).await?;
        }
        out.note(format_args!("{tally} in {:.1} s", start.elapsed().as_secs_f64()));
        tally.conclude()
    }

    async fn call(&self, client: &Client, found: Found) -> (String, Result<Json, CliError>) {
        let record = &found.record;
        let address = match record.path.is_empty() {
            true => found.exporter.to_string(),
            false => format!("{}/{}", found.exporter, record.path),
        };
        let held = found.address().ok().and_then(|of| HeldLeases::of_environment().epoch_at(&of));
        let driver = client.driver_found(&found);
        let driver = match held {
            Some(epoch) => driver.under(epoch),
            None => driver,
        };
        let driver = match self.deadline {
            Some(deadline) => driver.with_deadline(deadline),
            None => driver,
        };
        let ended = driver.call_words(self.method, self.words).await;
        let read = |result: bytes::Bytes| {
            serde_json::from_slice(&result).map_err(|e| CallError::Garbled(e.to_string()))
        };
        (address, ended.and_then(read).map_err(CliError::from))
    }
}

async fn show(out: Output, address: &str, ended: &Result<Json, CliError>) -> Result<(), CliError> {
    let line = match (ended, out.is_for_people()) {
        (Ok(result), false) => json!({ "address": address, "ok": true, "result": result }),
        (Err(error), false) => json!({ "address": address, "ok": false, "error": as_json(error) }),
        (Ok(Json::Null), true) => format!("{address}: ok").into(),
        (Ok(Json::String(text)), true) => format!("{address}: {text}").into(),
        (Ok(result), true) => format!("{address}: {result}").into(),
        (Err(error), true) => format!("{address}: FAILED: {}", problem(address, error)).into(),
    };
    let line = match line {
        Json::String(text) => text,
        line => line.to_string(),
    };
    out.write((line + "\n").as_bytes()).await
}

/// What is wrong, without saying once more with whom.
fn problem(address: &str, error: &CliError) -> String {
    let said = error.to_string();
    match said.strip_prefix(address) {
        Some(rest) => rest.trim_start_matches([':', ' ']).to_owned(),
        None => said,
    }
}

/// How the calls ended.
#[derive(Debug, Default)]
struct Tally {
    all: usize,
    succeeded: usize,
    failed: usize,
}

impl Tally {
    fn add(&mut self, ended: &Result<Json, CliError>) {
        match ended {
            Ok(_) => self.succeeded += 1,
            Err(_) => self.failed += 1,
        }
    }

    fn conclude(&self) -> Result<(), CliError> {
        match self.failed {
            0 => Ok(()),
            failed => Err(CliError::Some { failed, all: self.all }),
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} succeeded", self.succeeded, self.all)
    }
}
