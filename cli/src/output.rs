//! Where results go: the only place that writes to stdout. What is no result goes to stderr.

use std::{
    fmt,
    future::Future,
    io::{IsTerminal as _, Write as _},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{FileType, fstat},
};
use serde::Serialize;
use serde_json::Value as Json;
use tokio::{
    io::{AsyncWriteExt as _, Stdout},
    task::spawn_blocking,
};

use crate::{advice::CliError, args::Format};

/// The output of one command. Stdout is data: a table or plain text for people, JSON for programs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) format: Format,
    quiet: bool,
}

impl Output {
    pub(crate) fn new(format: Format, quiet: bool) -> Self {
        Self { format, quiet }
    }

    /// Whether people read it.
    pub(crate) fn is_for_people(self) -> bool {
        self.format != Format::Json
    }

    /// What a command found out: `text` for people, `data` as one JSON document.
    pub(crate) async fn document(
        self,
        data: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        match self.format {
            Format::Json => self.write(json_line(data)?.as_bytes()).await,
            Format::Table | Format::Raw => self.write(text().as_bytes()).await,
        }
    }

    /// A value that a driver gave, in JSON: one that stands alone, or one of many on a line each.
    pub(crate) async fn value(self, value: &Json, alone: bool) -> Result<(), CliError> {
        let line = |text: String| text + "\n";
        let bytes = match (self.format, value) {
            (Format::Json, value) => line(value.to_string()).into_bytes(),
            (_, Json::Null) if alone => return Ok(()),
            (Format::Raw, Json::String(text)) => text.clone().into_bytes(),
            (Format::Table, Json::String(text)) => line(text.clone()).into_bytes(),
            (Format::Raw, value) => match as_bytes(value) {
                Some(bytes) => bytes,
                None => line(value.to_string()).into_bytes(),
            },
            (Format::Table, value) => match as_bytes(value) {
                Some(bytes) if alone && !std::io::stdout().is_terminal() => bytes,
                _ if alone => line(serde_json::to_string_pretty(value)?).into_bytes(),
                _ => line(value.to_string()).into_bytes(),
            },
        };
        self.write(&bytes).await
    }

    /// Bytes as they are. They are out when this returns.
    pub(crate) async fn write(self, bytes: &[u8]) -> Result<(), CliError> {
        let mut stdout = self.pipe();
        let written = match stdout.write_all(bytes).await {
            Ok(()) => stdout.flush().await,
            Err(error) => Err(error),
        };
        written.map_err(CliError::stdout)
    }

    /// Stdout, for bytes that are copied. It never blocks: a reader that stands still must not
    /// keep this program from answering on the bus.
    #[expect(clippy::unused_self, reason = "who has no output has no stdout")]
    pub(crate) fn pipe(self) -> Stdout {
        tokio::io::stdout()
    }

    /// Runs what has nothing to do but to print: it ends when nobody reads it any more, even if it
    /// has nothing to say just then.
    pub(crate) async fn while_read(
        self,
        printing: impl Future<Output = Result<(), CliError>>,
    ) -> Result<(), CliError> {
        tokio::select! {
            ended = printing => ended,
            () = reader_gone() => Err(CliError::NobodyReads),
        }
    }

    /// A line for the process that started this one.
    #[expect(clippy::unused_self, reason = "who has no output has no stdout")]
    #[expect(clippy::print_stdout, reason = "this is where stdout is written")]
    pub(crate) fn line_now(self, text: &str) {
        println!("{text}");
    }

    /// Whether only results and errors are printed.
    pub(crate) fn is_quiet(self) -> bool {
        self.quiet
    }

    /// A line that is no result, for people, to stderr.
    pub(crate) fn note(self, text: impl fmt::Display) {
        if !self.quiet {
            tell(format_args!("jmp-bus: {text}\n"));
        }
    }
}

/// Writes to stderr, all at once.
pub(crate) fn tell(text: fmt::Arguments<'_>) {
    // Whoever read it may have left: that changes neither what happens nor the exit code.
    let _ = std::io::stderr().write_all(text.to_string().as_bytes());
}

/// Waits until the other end of the pipe that stdout is has been closed. For ever, if it is no pipe.
async fn reader_gone() {
    let is_pipe = fstat(std::io::stdout())
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
    // A thread, as the file is not ours alone to make it one that does not block. It goes with the
    // process.
    let gone = || poll(&mut [PollFd::new(&std::io::stdout(), PollFlags::empty())], None).is_ok();
    if !is_pipe || !spawn_blocking(gone).await.unwrap_or(false) {
        std::future::pending().await
    }
}

fn json_line(data: &impl Serialize) -> Result<String, CliError> {
    Ok(serde_json::to_string(data)? + "\n")
}

/// The JSON form of bytes that are no text.
fn as_bytes(value: &Json) -> Option<Vec<u8>> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    BASE64.decode(object.get("base64")?.as_str()?).ok()
}
