//! `jmp-bus call`: one call to one driver, or to many.

use std::time::Duration;

use bus_schema::{Method, MethodName, Selector, Target};
use bytes::Bytes;
use runtime::Client;
use serde_json::Value as Json;

use crate::{
    advice::CliError,
    fanout::{CommonStart, Fanout},
    lending::{Words, need_signature, signature},
    request::{Asked, deadline, not_found, words},
    session::Session,
};

/// Call a method of a driver, and print its result.
///
/// Words are read by the method's signature (see `describe`): `2s` where it takes a duration, JSON
/// where it takes a struct. `@file` is the contents of a file, `@-` those of stdin. Where it takes a
/// resource they are lent: a file is stored once, stdin is read as it comes, `@https://…` and
/// `@s3://bucket/key` are fetched by the exporter, and `@>file` or `@>s3://bucket/key` is written.
#[derive(Debug, clap::Args)]
#[command(override_usage = "jmp-bus call [OPTIONS] TARGET METHOD [WORD]...\n       \
                      jmp-bus call [OPTIONS] --selector SELECTOR --all METHOD [WORD]...")]
pub(crate) struct Cmd {
    /// TARGET METHOD [WORD]..., or METHOD [WORD]... with a selector. TARGET is `exporter/child`
    /// or a UUID. A word that begins with `-` and is no number goes behind `--`.
    #[arg(required = true, value_name = "TARGET METHOD WORD", allow_negative_numbers = true)]
    typed: Vec<String>,
    /// Give up after this time instead of the method's own: `10s`, `2m`.
    #[arg(long, value_name = "TIME", value_parser = deadline)]
    deadline: Option<Duration>,
    /// Every driver with these labels: `board=rpi4,rack!=3`.
    #[arg(short = 'l', long)]
    selector: Option<Selector>,
    /// Yes, all that the selector matches.
    #[arg(long, requires = "selector")]
    all: bool,
    /// Calls at the same time; with `--at`, as many as there are drivers.
    #[arg(long, requires = "selector", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Begin all of them together, this long after they were found: `+2s`.
    #[arg(long, requires = "selector", value_name = "+TIME")]
    at: Option<CommonStart>,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        match &self.selector {
            Some(selector) => self.many(session, selector).await,
            None => self.one(session).await,
        }
    }

    async fn one(&self, session: &Session) -> Result<(), CliError> {
        let [target, method, typed @ ..] = self.typed.as_slice() else {
            let text = format!("which method of {}? see `jmp-bus describe {0}`", self.typed[0]);
            return Err(CliError::Usage(text));
        };
        let target: Target =
            target.parse().map_err(|error| CliError::Usage(format!("{target:?}: {error}")))?;
        let asked = Asked { target, deadline: self.deadline };
        let client = session.client().await?;
        let result = match need_signature(typed) {
            true => lending(session, client, &asked, method, typed).await?,
            false => {
                let words = words(typed)?;
                asked.of(client, async |driver| driver.call_words(method, &words).await).await?
            }
        };
        session.out.value(&serde_json::from_slice::<Json>(&result)?, true).await
    }

    async fn many(&self, session: &Session, selector: &Selector) -> Result<(), CliError> {
        let (method, typed) = self.typed.split_first().expect("clap requires one");
        if !MethodName::is(method) {
            let text = format!(
                "{method:?} is no method: with a selector no driver is named, as in `call -l {selector} --all on`"
            );
            return Err(CliError::Usage(text));
        }
        let client = session.client().await?;
        let found = client.registry().select(selector).await?;
        if found.is_empty() {
            let instead = "see `jmp-bus list` for labels".to_owned();
            let what = format!("a driver with {selector}");
            return Err(CliError::NotFound { what, instead });
        }
        if !self.all && found.len() > 1 {
            let text = format!("{selector} matches {} drivers; add --all", found.len());
            return Err(CliError::Usage(text));
        }
        let signature = match need_signature(typed) {
            true => signature(client, &found[0], method).await?,
            false => None,
        };
        let declared = signature.as_ref().and_then(declared);
        let words = Words::new(typed, signature);
        if words.are_for_one()? && found.len() > 1 {
            let text = "stdin and files to be written can be lent to one driver only";
            return Err(CliError::Usage(text.to_owned()));
        }
        let first = client.driver_found(&found[0]);
        let ready = words.ready(&first, session.out).await?;
        let fanout = Fanout {
            method,
            words: &ready.values,
            deadline: self.deadline.or(declared),
            jobs: self.jobs.map(usize::from),
            at: self.at,
        };
        fanout.run(client, found, session.out).await
    }
}

/// A call that may lend something. Whether it does depends on the signature, which is looked up.
async fn lending(
    session: &Session,
    client: &Client,
    asked: &Asked,
    method: &str,
    typed: &[String],
) -> Result<Bytes, CliError> {
    let Some(found) = client.registry().resolve(&asked.target).await? else {
        return Err(not_found(client, &asked.target).await);
    };
    let signature = signature(client, &found, method).await?;
    let driver = client.driver_found(&found);
    let driver = match (asked.deadline, signature.as_ref().and_then(declared)) {
        (None, Some(declared)) => driver.with_deadline(declared),
        _ => asked.in_time(driver),
    };
    let ready = Words::new(typed, signature).ready(&driver, session.out).await?;
    Ok(driver.call_words_with(method, &ready.values, ready.loans).await?)
}

/// The deadline that a method declares.
fn declared(method: &Method) -> Option<Duration> {
    method.deadline_ms.map(Duration::from_millis)
}
