//! `jmp-bus console`: a terminal on a serial port.

use std::{fs::File, io::Write as _, path::PathBuf};

use bus_schema::{Value, message::Form};
use runtime::{ByteStream, CallError, DriverRef};
use tokio::io::{AsyncReadExt as _, ReadHalf, split};

use super::connect::open;
use crate::{
    advice::CliError,
    console::{End, Escape, Key, RawMode, type_to},
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
    /// The stream to open.
    #[arg(long, default_value = "connect", conflicts_with = "watch")]
    method: String,
    /// Cut off whoever has the console now.
    #[arg(long, conflicts_with = "watch")]
    force: bool,
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
        let shown_to = match self.replay {
            true => self.replay(session, &mut screen).await?,
            false => None,
        };
        let word = |word: String| vec![Value::Text(word)];
        let (method, words) = match (self.watch, shown_to) {
            // From where the replay ended, so that nothing falls between.
            (true, shown_to) => ("watch", shown_to.map(|at| word(at.to_string()))),
            (false, _) => (self.method.as_str(), self.force.then(|| word("true".to_owned()))),
        };
        let words = words.unwrap_or_default();
        let (mut from, mut to) = split(open(session, &self.asked, method, &words).await?);
        let connected = format!("connected to {}", self.asked.target);
        if self.watch {
            session.out.note(connected);
            return self.show(&mut from, &mut screen).await; // Ctrl-C ends it
        }
        let raw = RawMode::enter().map_err(|source| CliError::io("use the terminal", source))?;
        match &raw {
            Some(_) => session.out.note(format_args!("{connected}; {} and . leave\r", self.escape)),
            None => session.out.note(connected),
        }
        let ended = tokio::select! {
            shown = self.show(&mut from, &mut screen) => shown,
            typed = type_to(&mut to, Escape::new(self.escape)) => match typed {
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

    /// Shows what was kept, and says how far that goes.
    async fn replay(
        &self,
        session: &Session,
        screen: &mut Screen,
    ) -> Result<Option<u64>, CliError> {
        let client = session.client().await?;
        let args = packed(&[])?;
        let start = async |driver: DriverRef| {
            driver.start("capture", Form::Words, args.clone(), None, false).await
        };
        let mut started = self.asked.of(client, start).await?;
        let mut shown_to = None;
        while let Some(item) = started.items.next().await {
            let value =
                Value::from_msgpack(&item?).map_err(|e| CallError::Garbled(e.to_string()))?;
            let said = said(&value);
            if let Some(&Value::U64(at)) = value.get("at") {
                let lost = at.saturating_sub(shown_to.unwrap_or(at));
                if lost > 0 {
                    screen.show(format!("[{lost} bytes lost]").as_bytes()).await?;
                }
                shown_to = Some(at.saturating_add(said.len() as u64));
            }
            if let Some(Value::Text(note)) = value.get("note") {
                screen.show(format!("\r\n[{note}]\r\n").as_bytes()).await?;
            }
            screen.show(&said).await?;
        }
        Ok(shown_to)
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
