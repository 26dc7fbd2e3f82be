//! `jmp-bus console`: a terminal on a serial port.

use std::{fs::File, io, io::Write as _, path::PathBuf};

use bus_schema::{Value, message::Form};
use runtime::{ByteStream, CallError, DriverRef};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split, stdin};

use super::connect::open;
use crate::{
    advice::CliError,
    console::{Escape, Key, RawMode, Typed},
    output::Output,
    request::{Asked, packed},
    session::Session,
};

/// Bytes that are read at once.
const READ_BYTES: usize = 16 << 10;

/// Open a console. `Ctrl-]` and `.` leave it.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    #[command(flatten)]
    asked: Asked,
    /// Look on; send nothing.
    #[arg(long)]
    watch: bool,
    /// Begin with what the exporter has kept of what was said before.
    #[arg(long)]
    replay: bool,
    /// Append what the device says to this file, too.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// The key that, before `.`, leaves.
    #[arg(long, value_name = "KEY", default_value = "ctrl-]")]
    escape: Key,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let mut screen = Screen { out: session.out, log: self.open_log()? };
        let method = if self.watch { "watch" } else { "connect" };
        if self.replay {
            self.replay(session, &mut screen).await?;
        }
        let stream = open(session, &self.asked, method, &[]).await?;
        let (mut from, mut to) = split(stream);
        let raw = RawMode::enter().map_err(|source| CliError::io("use the terminal", source))?;
        if raw.is_some() {
            session.out.note(format_args!("{} and . leave\r", self.escape));
        }
        let typing = type_to(&mut to, Escape::new(self.escape), self.watch);
        let ended = tokio::select! {
            shown = self.show(&mut from, &mut screen) => shown,
            typed = typing => match typed {
                Ok(End::Left) => Ok(()),
                Ok(End::NoMoreKeys) => self.show(&mut from, &mut screen).await,
                Err(error) => Err(self.asked.cut(error)),
            },
        };
        drop(raw);
        ended
    }

    fn open_log(&self) -> Result<Option<File>, CliError> {
        let open = |path: &PathBuf| {
            let file = File::options().create(true).append(true).open(path);
            file.map_err(|source| CliError::io(format!("write {}", path.display()), source))
        };
        self.log.as_ref().map(open).transpose()
    }

    /// Shows what the device says, to its end.
    async fn show(
        &self,
        from: &mut ReadHalf<ByteStream>,
        screen: &mut Screen,
    ) -> Result<(), CliError> {
        let mut bytes = vec![0; READ_BYTES];
        loop {
            match from.read(&mut bytes).await {
                Ok(0) => return Ok(()),
                Ok(read) => screen.show(&bytes[..read]).await?,
                Err(error) => return Err(self.asked.cut(error)),
            }
        }
    }

    async fn replay(&self, session: &Session, screen: &mut Screen) -> Result<(), CliError> {
        let client = session.client().await?;
        let args = packed(&[])?;
        let start = async |driver: DriverRef| {
            driver.start("capture", Form::Words, args.clone(), None, false).await
        };
        let mut started = self.asked.of(client, start).await?;
        while let Some(item) = started.items.next().await {
            let value =
                Value::from_msgpack(&item?).map_err(|e| CallError::Garbled(e.to_string()))?;
            screen.show(&said(&value)).await?;
        }
        Ok(())
    }
}

/// What the device said, of an item of `capture`: bytes, text, or a record that has them as `data`.
fn said(value: &Value) -> Vec<u8> {
    match value {
        Value::Bytes(bytes) => bytes.to_vec(),
        Value::Text(text) => text.clone().into_bytes(),
        Value::Map(_) => value.get("data").map(said).unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// Where it is shown.
struct Screen {
    out: Output,
    log: Option<File>,
}

impl Screen {
    async fn show(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        if let Some(log) = &mut self.log {
            log.write_all(bytes).map_err(|source| CliError::io("write the log", source))?;
        }
        self.out.write(bytes).await
    }
}

/// Why nothing is typed any more.
enum End {
    /// The escape key.
    Left,
    /// Stdin has ended; what the device says is still of interest.
    NoMoreKeys,
}

async fn type_to(
    to: &mut WriteHalf<ByteStream>,
    mut escape: Escape,
    watch: bool,
) -> io::Result<End> {
    let mut stdin = stdin();
    let mut typed = vec![0; 1024];
    loop {
        let read = stdin.read(&mut typed).await?;
        let (keys, leaves) = match escape.read(&typed[..read]) {
            Typed::Keys(keys) => (keys, false),
            Typed::Leave(keys) => (keys, true),
        };
        if !watch {
            to.write_all(&keys).await?;
        }
        match (leaves, read) {
            (true, _) => return to.shutdown().await.map(|()| End::Left),
            (false, 0) => return to.shutdown().await.map(|()| End::NoMoreKeys),
            (false, _) => {}
        }
    }
}
