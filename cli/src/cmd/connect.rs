//! `jmp-bus connect`: a raw stream to stdin and stdout.

use std::io::{self, IsTerminal as _};

use bus_schema::{Value, message::Form};
use runtime::{ByteStream, DriverRef};
use tokio::io::{AsyncWriteExt as _, copy, split, stdin};

use crate::{
    advice::CliError,
    output::Output,
    request::{Asked, packed, words},
    session::Session,
};

/// Connect stdin and stdout to a stream of a driver.
///
/// The end of stdin ends that half only: the answer is read to its end.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    #[command(flatten)]
    asked: Asked,
    /// The method.
    #[arg(default_value = "connect")]
    method: String,
    /// Words for it, as for `call`.
    #[arg(value_name = "WORD", allow_negative_numbers = true)]
    words: Vec<String>,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let words = words(&self.words)?;
        let stream = open(session, &self.asked, &self.method, &words).await?;
        let ended = pipe(stream, session.out).await;
        ended.map_err(|error| self.asked.cut(error))
    }
}

/// Opens a stream.
pub(crate) async fn open(
    session: &Session,
    asked: &Asked,
    method: &str,
    words: &[Value],
) -> Result<ByteStream, CliError> {
    let args = packed(words)?;
    let client = session.client().await?;
    let open =
        async |driver: DriverRef| driver.open_stream(method, Form::Words, args.clone(), None).await;
    asked.of(client, open).await
}

/// Copies both ways. A person at a terminal who is hung up on has nothing more to say; a pipe is
/// copied to its end.
pub(crate) async fn pipe(stream: ByteStream, out: Output) -> io::Result<()> {
    let (mut from, mut to) = split(stream);
    let send = async {
        copy(&mut stdin(), &mut to).await?;
        to.shutdown().await
    };
    let receive = async {
        let mut stdout = out.pipe();
        copy(&mut from, &mut stdout).await?;
        stdout.flush().await
    };
    match io::stdin().is_terminal() {
        true => tokio::select! {
            received = receive => received,
            Err(error) = send => Err(error),
        },
        false => tokio::try_join!(send, receive).map(|_| ()),
    }
}
