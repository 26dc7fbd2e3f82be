//! `jmp-bus flash`: an image onto one board, or onto many.

mod image;

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use actors::{FlasherClient, StorageClient, StorageMuxClient, StorageProgress, Written};
use bus_schema::{Packing, Selector, Target};
use futures_util::{StreamExt as _, stream};
use runtime::{Client, DriverRef, Found, ItemStream, Put};
use serde_json::{Value as Json, json};

use self::image::Image;
use crate::{
    advice::{CliError, as_json},
    lending::Lent,
    progress::{Progress, size, speed},
    request::not_found,
    session::Session,
    table::table,
};

/// Boards at the same time, unless told otherwise.
const JOBS: usize = 64;

/// Write an image to a flasher, a storage or a storage multiplexer.
///
/// The image is stored at the broker once, whatever the number of boards, and not at all if it is
/// there; boards begin with what is there while the rest is on its way. If it is removed or ages
/// out before every board has it, it is stored again. gzip, xz, bzip2 and zstd are unpacked on the
/// exporter. `-` is stdin; `https://…` and `s3://…` are fetched by the exporter.
#[derive(Debug, clap::Args)]
#[command(override_usage = "jmp-bus flash [OPTIONS] TARGET IMAGE\n       \
                      jmp-bus flash [OPTIONS] --selector SELECTOR --all IMAGE")]
pub(crate) struct Cmd {
    /// TARGET IMAGE, or IMAGE with a selector.
    #[arg(required = true, num_args = 1..=2, value_name = "TARGET IMAGE")]
    typed: Vec<String>,
    /// Every driver with these labels that takes images: `board=rpi4,rack!=3`.
    #[arg(short = 'l', long)]
    selector: Option<Selector>,
    /// Yes, all that the selector matches.
    #[arg(long, requires = "selector")]
    all: bool,
    /// Read back what was written, and compare.
    #[arg(long)]
    verify: bool,
    /// The target of a flasher that has several.
    #[arg(long, value_name = "NAME")]
    partition: Option<String>,
    /// How the image is compressed, if its first bytes do not say it: gzip, xz, bzip2, zstd, none.
    #[arg(long, value_name = "PACKING")]
    packing: Option<String>,
    /// Boards at the same time.
    #[arg(long, requires = "selector", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Give up on a board after this time: `10m`.
    #[arg(long, value_name = "TIME", value_parser = crate::request::deadline)]
    deadline: Option<Duration>,
}

/// What takes an image, by the interface that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taker {
    Flasher,
    Storage,
    Mux,
}

/// A board that is flashed.
struct Board {
    address: String,
    driver: DriverRef,
    taker: Taker,
}

/// How it ended.
struct Flashed {
    address: String,
    spent: Duration,
    ended: Result<Written, CliError>,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let image = self.typed.last().expect("clap requires one").clone();
        let client = session.client().await?;
        let found = self.found(client).await?;
        let mut boards = Vec::new();
        for found in found {
            boards.extend(self.board(client, found)?);
        }
        if boards.is_empty() {
            let instead = "`jmp-bus list` shows what there is".to_owned();
            let what = "a driver that takes images (flasher, storage, storage-mux)".to_owned();
            return Err(CliError::NotFound { what, instead });
        }
        let progress = Progress::new(session.out);
        let image = self.image(session, client, &image, boards.len(), &progress).await?;
        self.flash(session, client, &image, boards, &progress).await
    }

    async fn found(&self, client: &Client) -> Result<Vec<Found>, CliError> {
        match (&self.selector, self.typed.as_slice()) {
            (None, [target, _image]) => {
                let target: Target = target
                    .parse()
                    .map_err(|error| CliError::Usage(format!("{target:?}: {error}")))?;
                match client.registry().resolve(&target).await? {
                    Some(found) => Ok(vec![found]),
                    None => Err(not_found(client, &target).await),
                }
            }
            (None, _) => Err(CliError::Usage("which image? jmp-bus flash TARGET IMAGE".to_owned())),
            (Some(_), [_, _]) => {
                Err(CliError::Usage("a TARGET, or a selector: not both".to_owned()))
            }
            (Some(selector), _) => Ok(client.registry().select(selector).await?),
        }
    }

    /// The driver as something that takes images; none if it is not, and was not named itself.
    fn board(&self, client: &Client, found: Found) -> Result<Option<Board>, CliError> {
        let interfaces = found.record.interfaces.iter().map(|(name, _)| name.as_str());
        let taker = interfaces.filter_map(Taker::of).next();
        let address = format!("{}/{}", found.exporter, found.record.path);
        let address = address.trim_end_matches('/').to_owned();
        let Some(taker) = taker else {
            return match self.selector {
                Some(_) => Ok(None),
                None => {
                    let text = format!(
                        "{address} takes no images: it has none of flasher, storage, storage-mux"
                    );
                    Err(CliError::Usage(text))
                }
            };
        };
        if self.partition.is_some() && taker != Taker::Flasher {
            let text = format!("{address} is no flasher: it has no partitions");
            return Err(CliError::Usage(text));
        }
        let driver = client.driver_found(&found);
        let driver = match self.deadline {
            Some(deadline) => driver.with_deadline(deadline),
            None => driver,
        };
        Ok(Some(Board { address, driver, taker }))
    }

    async fn image(
        &self,
        session: &Session,
        client: &Client,
        word: &str,
        boards: usize,
        progress: &Progress,
    ) -> Result<Image, CliError> {
        if boards > 1 && !self.all {
            let text = format!("the selector matches {boards} drivers; add --all");
            return Err(CliError::Usage(text));
        }
        match Lent::read(word)? {
            Lent::File(path) => Image::put(client, Put::new(path), progress).await,
            Lent::Url(url) => Ok(Image::Url(url)),
            Lent::Object(object) => Ok(Image::Object(object)),
            lent if boards == 1 => {
                let lend = lent.lend(session.out).await?;
                Ok(Image::Once(std::sync::Mutex::new(Some(lend))))
            }
            _ => {
                Err(CliError::Usage("stdin can be lent to one board only: name a file".to_owned()))
            }
        }
    }

    async fn flash(
        &self,
        session: &Session,
        client: &Client,
        image: &Image,
        boards: Vec<Board>,
        progress: &Progress,
    ) -> Result<(), CliError> {
        let all = boards.len();
        let jobs = self.jobs.map_or(JOBS, usize::from);
        let flashing = stream::iter(boards).map(|board| self.one(client, image, board, progress));
        let mut flashing = Box::pin(flashing.buffer_unordered(jobs));
        let mut flashed = Vec::new();
        while let Some(one) = flashing.next().await {
            if all > 1 {
                let how = match &one.ended {
                    Ok(_) => "done".to_owned(),
                    Err(error) => format!("FAILED: {error}"),
                };
                progress.ended(&one.address, &how);
            }
            flashed.push(one);
        }
        progress.clear_all();
        flashed.sort_by(|a, b| a.address.cmp(&b.address));
        report(session, &flashed).await?;
        let failed = flashed.iter().filter(|one| one.ended.is_err()).count();
        if failed == 0 {
            image.settle().await;
            return Ok(());
        }
        match (image.trouble().await, all) {
            (Some(trouble), _) => Err(trouble),
            (None, 1) => flashed.remove(0).ended.map(drop),
            (None, _) => Err(CliError::Some { failed, all }),
        }
    }

    async fn one(
        &self,
        client: &Client,
        image: &Image,
        board: Board,
        progress: &Progress,
    ) -> Flashed {
        let began = Instant::now();
        let seen = match image {
            Image::Stored(file) => file.again().await,
            _ => 0,
        };
        let mut ended = Box::pin(self.attempt(image, &board, progress)).await;
        if let (Image::Stored(file), true) = (image, is_gone(&ended)) {
            ended = match file.restore(client, seen, progress).await {
                Ok(()) => Box::pin(self.attempt(image, &board, progress)).await,
                Err(error) => Err(error),
            };
        }
        Flashed { address: board.address, spent: began.elapsed(), ended }
    }

    async fn attempt(
        &self,
        image: &Image,
        board: &Board,
        progress: &Progress,
    ) -> Result<Written, CliError> {
        let lend = image.lend().await?;
        let lend = match &self.packing {
            Some(word) => lend.packed(packing(word)?),
            None => lend,
        };
        let driver = board.driver.clone();
        let (verify, partition) = (self.verify, self.partition.clone());
        let writing = async {
            match board.taker {
                Taker::Flasher => FlasherClient::new(driver).flash(lend, partition, verify).await,
                Taker::Storage => StorageClient::new(driver).write(lend, 0, verify).await,
                Taker::Mux => StorageMuxClient::new(driver).write(lend, verify).await,
            }
        };
        tokio::select! {
            biased;
            written = writing => Ok(written?),
            never = watch(board, progress) => match never {},
        }
    }
}

impl Taker {
    fn of(interface: &str) -> Option<Self> {
        match interface {
            "flasher" => Some(Self::Flasher),
            "storage" => Some(Self::Storage),
            "storage-mux" => Some(Self::Mux),
            _ => None,
        }
    }
}

fn packing(word: &str) -> Result<Packing, CliError> {
    let found = Packing::KNOWN.iter().find(|packing| packing.as_str() == word);
    found.cloned().ok_or_else(|| {
        let known: Vec<_> = Packing::KNOWN.iter().map(Packing::as_str).collect();
        CliError::Usage(format!("no packing {word:?}: there are {}", known.join(", ")))
    })
}

fn is_gone(ended: &Result<Written, CliError>) -> bool {
    matches!(ended, Err(CliError::Call(error)) if error.lacks_file())
}

/// Shows how far a board is, for ever. A board that does not say is shown as silent.
async fn watch(board: &Board, progress: &Progress) -> Infallible {
    progress.at(&board.address, "waits", 0, None);
    let driver = board.driver.clone();
    let told = match board.taker {
        Taker::Flasher => FlasherClient::new(driver).progress().await,
        Taker::Storage => StorageClient::new(driver).progress().await,
        Taker::Mux => StorageMuxClient::new(driver).progress().await,
    };
    if let Ok(mut items) = told {
        while let Some(StorageProgress { what, bytes, total }) = next(&mut items).await {
            if !what.is_empty() {
                progress.at(&board.address, &what, bytes, total);
            }
        }
    }
    std::future::pending().await
}

async fn next(items: &mut ItemStream<StorageProgress>) -> Option<StorageProgress> {
    items.next().await?.ok()
}

async fn report(session: &Session, flashed: &[Flashed]) -> Result<(), CliError> {
    let data: Vec<Json> = flashed
        .iter()
        .map(|one| match &one.ended {
            Ok(written) => json!({
                "address": one.address, "ok": true, "written": written,
                "seconds": one.spent.as_secs_f64(),
            }),
            Err(error) => json!({ "address": one.address, "ok": false, "error": as_json(error) }),
        })
        .collect();
    let row = |one: &Flashed| {
        let address = one.address.clone();
        match &one.ended {
            Ok(written) => {
                let done = if written.verified { "verified" } else { "done" };
                let spent = format!("{:.1} s", one.spent.as_secs_f64());
                let speed = speed(written.bytes, one.spent);
                [address, done.to_owned(), size(written.bytes), spent, speed]
            }
            Err(error) => {
                [address, "FAILED".to_owned(), error.to_string(), String::new(), String::new()]
            }
        }
    };
    session.out.document(&data, || table(&flashed.iter().map(row).collect::<Vec<_>>())).await
}
