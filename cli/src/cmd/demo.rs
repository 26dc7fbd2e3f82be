//! `jmp-bus demo`: the whole of it, on a virtual board, as separate processes.

use std::path::PathBuf;

use runtime::{BrokerOptions, OnProgress, Progress};

use crate::{
    advice::CliError,
    demo::{Board, BoardAsked, Show, Stage, play, trial},
    desk,
    interrupt::Interrupt,
    session::Session,
};

/// Show what jmp-bus does: a broker, an exporter and a virtual board of one's own.
///
/// Everything is a process of its own and talks over the bus. Each step checks that it really
/// happened; the exit code says whether all of them did. Nothing is left behind.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    /// The virtual board: U-Boot in QEMU, or a shell on a terminal.
    #[arg(long, value_enum, default_value_t)]
    board: BoardAsked,
    /// Stay up until Ctrl-C, and print commands to try.
    #[arg(long)]
    keep: bool,
    /// This nats-server and no other.
    #[arg(long, value_name = "FILE")]
    nats_server: Option<PathBuf>,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let mut interrupt = Interrupt::listen()?;
        let board = Board::choose(self.board)?;
        let stage = Stage::set(board, self.broker(session), session.root())?;
        let mut show = Show::new(session.out, board);
        show.about().await?;
        let outcome = self.perform(&stage, &mut show, &mut interrupt).await;
        let struck = show.step("clean up", stage.strike()).await;
        let outcome = outcome.and(struck);
        show.end(outcome.as_ref().err()).await?;
        outcome
    }

    async fn perform(
        &self,
        stage: &Stage,
        show: &mut Show,
        interrupt: &mut Interrupt,
    ) -> Result<(), CliError> {
        let mut exporter = tokio::select! {
            biased;
            signal = interrupt.next() => return Err(CliError::Interrupted(signal)),
            played = Box::pin(play(stage, show)) => played?,
        };
        if self.keep {
            let broker = stage.broker().await?;
            let announced = desk::announce(broker)?;
            show.line(&trial(stage.board, broker, announced.is_some())).await?;
            tokio::select! {
                biased;
                _ = interrupt.next() => {}
                () = exporter.gone() => {} // it did not end well, which is seen below
            }
        }
        tokio::select! {
            biased;
            signal = interrupt.next() => Err(CliError::Interrupted(signal)),
            stopped = show.step("stop the exporter", async { Ok(((), exporter.stopped().await?)) }) => {
                stopped
            }
        }
    }

    fn broker(&self, session: &Session) -> BrokerOptions {
        let out = session.out;
        let progress = OnProgress::new(move |progress| {
            if let Progress::Fetching { package, version } = progress {
                out.note(format_args!("fetching {package} {version}"));
            }
        });
        BrokerOptions { server: self.nats_server.clone(), progress, ..BrokerOptions::default() }
    }
}
