//! `jmp-bus expect`: a script at a console.

use std::{collections::BTreeMap, io::Read as _, path::PathBuf, time::Duration};

use actors::{ExpectAdapter, ExpectScript, SCRIPT_HELP, StepDone, StreamMethod, WhyFailed};
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;

use crate::{
    advice::CliError,
    request::{Asked, words},
    session::Session,
};

/// Largest script: more is no script.
const SCRIPT_BYTES_MAX: u64 = 1 << 20;
/// Pieces of what the device says that wait to be shown. The device waits when there are more.
const SHOWN_MAX: usize = 256;

/// Run a script at a console: wait for what the device says, and type.
///
/// What the device says is shown on stdout, or, with --output json, a line for each `expect`.
/// The exit code is 20 if something expected did not come.
#[derive(Debug, clap::Args)]
#[command(after_help = SCRIPT_HELP)]
pub(crate) struct Cmd {
    #[command(flatten)]
    asked: Asked,
    /// The script's file; `-` is stdin.
    script: PathBuf,
    /// The stream to open.
    #[arg(long, default_value = "connect")]
    method: String,
    /// A word for it, as for `call`; may be given again.
    #[arg(long = "word", value_name = "WORD", allow_hyphen_values = true)]
    words: Vec<String>,
    /// What ${NAME} in the script means; may be given again.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// How long each pattern may take to come, unless the script says so.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = crate::told::time)]
    timeout: Duration,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let name = self.script.display().to_string();
        let text = self.text(&name)?;
        let script = ExpectScript::parse(&text, &self.variables()?);
        let script = script.map_err(|error| CliError::Script { file: name.clone(), error })?;
        let words = words(&self.words)?;
        let client = session.client().await?;
        let driver = self.asked.driver(client).await?;
        let mut stream = StreamMethod::named(driver, &self.method);
        if !words.is_empty() {
            stream = stream.with_words(&words)?;
        }
        let mut expect = stream.adapt(ExpectAdapter { timeout: self.timeout }).await?;
        let (show, mut shown) = mpsc::channel::<Vec<u8>>(SHOWN_MAX);
        let for_people = session.out.is_for_people();
        let told = show.clone();
        if for_people {
            // Who looks on must not keep the device waiting, so what is too much is not shown.
            expect.set_watch(move |bytes| drop(show.try_send(bytes.to_vec())));
        } else {
            drop(show);
        }
        let running = async {
            let done = |step: StepDone| {
                if !for_people {
                    let line = as_json(&step).to_string() + "\n";
                    let _ = told.try_send(line.into_bytes());
                }
            };
            let ran = script.run(&mut expect, done).await;
            drop((expect, told));
            ran
        };
        let showing = async {
            while let Some(bytes) = shown.recv().await {
                session.out.write(&bytes).await?;
            }
            Ok::<_, CliError>(())
        };
        let (ran, showed) = tokio::join!(running, showing);
        showed?;
        ran.map_err(|failure| match failure.why {
            WhyFailed::Expect(actors::ExpectError::Failed { source, .. }) => self.asked.cut(source),
            _ => CliError::Expect { file: name, failure: Box::new(failure) },
        })
    }

    fn text(&self, name: &str) -> Result<String, CliError> {
        let mut text = String::new();
        let read = match name {
            "-" => std::io::stdin().lock().take(SCRIPT_BYTES_MAX + 1).read_to_string(&mut text),
            name => std::fs::File::open(name)
                .and_then(|file| file.take(SCRIPT_BYTES_MAX + 1).read_to_string(&mut text)),
        };
        let size = read.map_err(|source| CliError::io(format!("read {name}"), source))?;
        match size as u64 > SCRIPT_BYTES_MAX {
            true => Err(CliError::Usage(format!("{name} is larger than 1 MiB: it is no script"))),
            false => Ok(text),
        }
    }

    fn variables(&self) -> Result<BTreeMap<String, String>, CliError> {
        let pair = |set: &String| match set.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(CliError::Usage(format!("--set takes NAME=VALUE, not {set:?}"))),
        };
        self.set.iter().map(pair).collect()
    }
}

/// What is told of an `expect` that came true.
fn as_json(step: &StepDone) -> Json {
    let groups: Vec<_> = (1..=step.found.groups.len()).map(|at| step.found.group(at)).collect();
    json!({
        "line": step.line,
        "expected": step.expected,
        "matched": step.found.text(),
        "groups": groups,
        "before": step.found.before_text(),
        "ms": u64::try_from(step.took.as_millis()).unwrap_or(u64::MAX),
    })
}
