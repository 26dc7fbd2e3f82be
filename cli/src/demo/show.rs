//! What the demo tells of itself: a line for each step, or one document.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;

use super::board::Board;
use crate::{
    advice::{CliError, as_json},
    output::Output,
};

/// The most time of a step. The first may have to fetch a broker.
const STEP_WITHIN: Duration = Duration::from_secs(300);

/// The steps so far.
#[derive(Debug)]
pub(crate) struct Show {
    out: Output,
    board: &'static Board,
    started: Instant,
    steps: Vec<Step>,
}

#[derive(Debug, Serialize)]
struct Step {
    step: &'static str,
    ok: bool,
    /// Since the start of the demo, when it had ended.
    at_ms: u64,
    took_ms: u64,
    seen: String,
}

impl Show {
    pub(crate) fn new(out: Output, board: &'static Board) -> Self {
        Self { out, board, started: Instant::now(), steps: Vec::new() }
    }

    /// Says which board it is, and how to get the other.
    pub(crate) async fn about(&self) -> Result<(), CliError> {
        let Board { about, hint, .. } = self.board;
        let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
        self.line(&format!("the board is {about}{hint}\n")).await
    }

    /// Takes a step, and tells of it. It gives something, and words on what was seen.
    pub(crate) async fn step<T>(
        &mut self,
        step: &'static str,
        take: impl Future<Output = anyhow::Result<(T, String)>>,
    ) -> Result<T, CliError> {
        let started = Instant::now();
        let taken = match tokio::time::timeout(STEP_WITHIN, take).await {
            Ok(taken) => taken,
            Err(_) => Err(anyhow::anyhow!("it takes longer than {STEP_WITHIN:?}")),
        };
        let seen = match &taken {
            Ok((_, seen)) => seen.clone(),
            Err(why) => format!("{why:#}"),
        };
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let (at_ms, took_ms) = (ms(self.started.elapsed()), ms(started.elapsed()));
        let ok = taken.is_ok();
        let shown = if ok { seen.as_str() } else { "FAILED" };
        let gap = if shown.is_empty() { "" } else { ": " };
        let seconds = self.started.elapsed().as_secs_f64();
        self.line(&format!("{seconds:6.2} s  {took_ms:5} ms  {step}{gap}{shown}\n")).await?;
        self.steps.push(Step { step, ok, at_ms, took_ms, seen });
        match taken {
            Ok((given, _)) => Ok(given),
            Err(why) => Err(CliError::Demo { step, why }),
        }
    }

    /// Says something to people.
    pub(crate) async fn line(&self, text: &str) -> Result<(), CliError> {
        match self.out.is_for_people() {
            true => self.out.write(text.as_bytes()).await,
            false => Ok(()),
        }
    }

    /// The last line, or the document.
    pub(crate) async fn end(&self, error: Option<&CliError>) -> Result<(), CliError> {
        let data = json!({
            "ok": error.is_none(),
            "board": self.board.name,
            "steps": self.steps,
            "error": error.map(as_json),
        });
        let steps = self.steps.len();
        let text = || match error {
            None => format!("all of it happened: {steps} steps\n"),
            Some(_) => String::new(),
        };
        self.out.document(&data, text).await
    }
}
