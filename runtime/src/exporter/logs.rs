//! The logs of an exporter and its drivers, published. Lines that come close to each other go
//! together; the work that says them never waits for the broker.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering},
};

use bus_schema::{
    LogLine, LogLines, LogSource, codec,
    limits::{LOG_DELAY, LOG_LINES_MAX},
    subject::FromExporter,
};
use tokio::time::{Duration, Instant, sleep_until, timeout};

use super::core::Core;
use crate::{
    bus::BusError,
    log::{Line, Lines, LogTap},
};

/// What is left when the exporter stops has this long.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Lines that are put together at most before they are published.
const TOGETHER_MAX: usize = 512;

/// Publishes lines until the exporter stops, then those that are left.
pub(crate) async fn post(core: Arc<Core>, tap: LogTap) {
    let lines = tap.attach(core.name.clone());
    let mut poster = Poster { core, lines, next: HashMap::new() };
    while let Some(together) = poster.gather().await {
        if poster.publish(together).await.is_err() {
            return; // the connection is closed
        }
    }
    let last_words = async {
        let left: Vec<_> = std::iter::from_fn(|| poster.lines.ready()).collect();
        poster.publish(left).await
    };
    let _ = timeout(LAST_WORDS, last_words).await; // nobody may be there to hear them
}

struct Poster {
    core: Arc<Core>,
    lines: Lines,
    /// The number of the next line of each source.
    next: HashMap<LogSource, u64>,
}

impl Poster {
    /// A line, and those that follow it soon; `None` when the exporter stops.
    async fn gather(&mut self) -> Option<Vec<Line>> {
        let stop = self.core.stop.clone();
        let first = stop.run_until_cancelled(self.lines.next()).await??;
        let until = Instant::now() + LOG_DELAY;
        let mut together = vec![first];
        while together.len() < TOGETHER_MAX {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                line = self.lines.next() => together.extend(line),
                () = sleep_until(until) => break,
            }
        }
        Some(together)
    }

    async fn publish(&mut self, lines: Vec<Line>) -> Result<(), BusError> {
        let mut by_path = BTreeMap::<Box<str>, (LogSource, Vec<LogLine>)>::new();
        for Line { path, line } in lines {
            let (source, path) = self.source(path);
            by_path.entry(path).or_insert_with(|| (source, Vec::new())).1.push(line);
        }
        let mut lost = self.lines.lost();
        self.core.stats.lines_lost.fetch_add(lost.values().sum(), Ordering::Relaxed);
        for (path, (source, lines)) in by_path {
            for lines in lines.chunks(LOG_LINES_MAX) {
                self.send(source, &path, lines.to_vec()).await?;
            }
            // They came while these waited.
            *self.next.entry(source).or_default() += lost.remove(&path).unwrap_or(0);
        }
        for (path, lost) in lost {
            let (source, _) = self.source(Some(path));
            *self.next.entry(source).or_default() += lost;
        }
        Ok(())
    }

    async fn send(
        &mut self,
        source: LogSource,
        path: &str,
        lines: Vec<LogLine>,
    ) -> Result<(), BusError> {
        let next = self.next.entry(source).or_default();
        let (first, count) = (*next, lines.len() as u64);
        let incarnation = self.core.incarnation;
        let message = LogLines { incarnation, first, path: path.to_owned(), lines };
        let subject = FromExporter::Log(self.core.name.clone(), source).under(&self.core.root);
        self.core.bulk.say(subject, &self.core.mark, codec::encode(&message)).await?;
        *next += count;
        Ok(())
    }

    /// The driver at a path; what is none is the exporter's.
    fn source(&self, path: Option<Box<str>>) -> (LogSource, Box<str>) {
        let of_driver = path.and_then(|path| {
            let slots = self.core.slots();
            Some((slots.by_path.get(&path.parse().ok()?)?.id, path))
        });
        match of_driver {
            Some((id, path)) => (LogSource::Driver(id), path),
            None => (LogSource::Exporter, "".into()),
        }
    }
}
