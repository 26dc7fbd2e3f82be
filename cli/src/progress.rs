//! How far long operations are, on stderr: bars that are redrawn on a terminal, lines elsewhere.

use std::{
    collections::BTreeMap,
    io::IsTerminal as _,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use runtime::{Moved, OnMoved};

use crate::output::{Output, tell};

/// Between two pictures on a terminal.
const REDRAW: Duration = Duration::from_millis(200);
/// Between two lines elsewhere.
const RELINE: Duration = Duration::from_secs(5);
/// Bars that fit a terminal; of more, those that are furthest from their end are shown.
const BARS_MAX: usize = 20;
/// Cells of a bar.
const CELLS: u64 = 24;

/// `1.5 GiB`, `12 MiB`.
#[expect(clippy::cast_precision_loss, reason = "it is rounded anyway")]
pub(crate) fn size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, shift)| bytes >= 1 << shift) {
        Some((unit, shift)) => format!("{:.1} {unit}", bytes as f64 / (1_u64 << shift) as f64),
        None => format!("{bytes} B"),
    }
}

/// Bytes in a second, as people read it.
#[expect(clippy::cast_precision_loss, reason = "it is rounded anyway")]
pub(crate) fn speed(bytes: u64, span: Duration) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    format!("{:.1} MiB/s", mib / span.as_secs_f64().max(1e-3))
}

/// How far one thing is.
#[derive(Clone, Debug)]
struct Bar {
    what: String,
    bytes: u64,
    total: Option<u64>,
    since: Instant,
    is_over: bool,
}

/// Several things, and where they are shown. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Progress(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    out: Output,
    is_terminal: bool,
}

#[derive(Debug)]
struct State {
    bars: BTreeMap<String, Bar>,
    drawn: Instant,
    lines: usize,
}

impl Progress {
    pub(crate) fn new(out: Output) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let state = State { bars: BTreeMap::new(), drawn: Instant::now(), lines: 0 };
        Self(Arc::new(Inner { state: Mutex::new(state), out, is_terminal }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `name` is so far.
    pub(crate) fn at(&self, name: &str, what: &str, bytes: u64, total: Option<u64>) {
        let mut state = self.lock();
        let since = Instant::now();
        let bar = state.bars.entry(name.to_owned()).or_insert_with(|| Bar {
            what: what.to_owned(),
            bytes,
            total,
            since,
            is_over: false,
        });
        if bar.what != what {
            (bar.what, bar.since) = (what.to_owned(), since);
        }
        (bar.bytes, bar.total) = (bytes, total.or(bar.total));
        let every = if self.0.is_terminal { REDRAW } else { RELINE };
        if state.drawn.elapsed() >= every {
            self.draw(&mut state);
        }
    }

    /// `name` has ended, and how.
    pub(crate) fn ended(&self, name: &str, how: &str) {
        let mut state = self.lock();
        if let Some(bar) = state.bars.get_mut(name) {
            bar.is_over = true;
        }
        self.clear(&mut state);
        self.0.out.note(format_args!("{name}: {how}"));
        if self.0.is_terminal {
            self.draw(&mut state); // the others, which were taken away for this line
        }
    }

    /// Takes the bars away.
    pub(crate) fn clear_all(&self) {
        let mut state = self.lock();
        self.clear(&mut state);
        state.bars.clear();
    }

    fn clear(&self, state: &mut State) {
        if self.0.is_terminal && state.lines > 0 {
            tell(format_args!("\x1b[{}F\x1b[J", state.lines));
            state.lines = 0;
        }
    }

    fn draw(&self, state: &mut State) {
        state.drawn = Instant::now();
        if self.0.out.is_quiet() {
            return;
        }
        let mut open: Vec<_> = state.bars.iter().filter(|(_, bar)| !bar.is_over).collect();
        open.sort_by_key(|(_, bar)| bar.bytes);
        let more = open.len().saturating_sub(BARS_MAX);
        open.truncate(BARS_MAX);
        let mut text = String::new();
        let width = open.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        for (name, bar) in &open {
            let mark = if self.0.is_terminal { "" } else { "jmp-bus: " };
            text += &format!("{mark}{name:width$}  {bar}\n");
        }
        if more > 0 {
            text += &format!("and {more} more\n");
        }
        let lines = open.len() + usize::from(more > 0);
        self.clear(state);
        tell(format_args!("{text}"));
        state.lines = if self.0.is_terminal { lines } else { 0 };
    }
}

impl std::fmt::Display for Bar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { what, bytes, total, since, .. } = self;
        let speed = speed(*bytes, since.elapsed());
        let Some(total) = total.filter(|total| *total > 0) else {
            return write!(f, "{what:7} {}  {speed}", size(*bytes));
        };
        let part = |of: u64| u64::try_from(u128::from(*bytes) * u128::from(of) / u128::from(total));
        let (full, percent) = (part(CELLS).unwrap_or(CELLS).min(CELLS), part(100).unwrap_or(100));
        let bar: String = (0..CELLS).map(|cell| if cell < full { '#' } else { '.' }).collect();
        write!(f, "{what:7} [{bar}] {percent:3} %  {} of {}  {speed}", size(*bytes), size(total))?;
        match left(*bytes, total, since.elapsed()) {
            Some(left) => write!(f, "  {} s left", left.as_secs()),
            None => Ok(()),
        }
    }
}

/// The time that is left if it goes on like this.
fn left(bytes: u64, total: u64, spent: Duration) -> Option<Duration> {
    let rest = total.checked_sub(bytes).filter(|_| bytes > 0)?;
    let nanos = spent.as_nanos() * u128::from(rest) / u128::from(bytes);
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

/// A file that is being stored.
#[derive(Debug)]
pub(crate) struct Upload {
    name: String,
    progress: Progress,
    /// Whether more is shown than this.
    is_among: bool,
}

impl Upload {
    pub(crate) fn of(path: &Path, out: Output) -> Self {
        Self { is_among: false, ..Self::among(path, &Progress::new(out)) }
    }

    /// Beside what else is shown.
    pub(crate) fn among(path: &Path, progress: &Progress) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { name, progress: progress.clone(), is_among: true }
    }

    /// What [`runtime::Put`] tells how far it is.
    pub(crate) fn on_moved(self) -> OnMoved {
        Arc::new(move |Moved { bytes, total, sent }: Moved| {
            self.progress.at(&self.name, "upload", bytes, Some(total));
            if bytes < total {
                return;
            }
            match self.is_among {
                true => {
                    let (total, sent) = (size(total), size(sent));
                    self.progress.ended(&self.name, &format!("{total}, {sent} sent to the broker"));
                }
                false => self.progress.clear_all(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_at_a_glance() {
        assert_eq!(size(7), "7 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(3 << 30), "3.0 GiB");
        assert_eq!(speed(10 << 20, Duration::from_secs(2)), "5.0 MiB/s");
        assert_eq!(left(1, 4, Duration::from_secs(1)), Some(Duration::from_secs(3)));
        assert_eq!(left(0, 4, Duration::from_secs(1)), None);
        let bar = Bar {
            what: "write".to_owned(),
            bytes: 1 << 20,
            total: Some(2 << 20),
            since: Instant::now(),
            is_over: false,
        };
        let shown = bar.to_string();
        assert!(shown.contains("[############............]  50 %  1.0 MiB of 2.0 MiB"), "{shown}");
    }
}
