//! What an exporter and its drivers say while they work, on its way to the bus: a layer for
//! `tracing` that hands lines over, and never waits.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use bus_schema::{
    ExporterName, Level, LogLine,
    limits::{LOG_LINE_BYTES_MAX, LOG_LINES_WAITING_MAX},
};
use tokio::sync::mpsc;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    layer::Context,
    registry::{LookupSpan, SpanRef},
};

use crate::exporter::since_1970_ms;

/// The field that names a driver by its address, of an event or of a span around it.
const ACTOR: &str = "actor";
/// Lines of one event with many (a backtrace).
const LINES_OF_EVENT_MAX: usize = 64;

/// Takes the lines of a process for the logs of its exporters. Cheap to clone.
///
/// ```
/// use bus_schema::Level;
/// use tracing_subscriber::layer::SubscriberExt as _;
///
/// let tap = runtime::LogTap::new();
/// let subscriber = tracing_subscriber::registry().with(tap.layer(Level::Info));
/// // … and `ExporterConfig { log: Some(tap), .. }` for each exporter of the process.
/// # drop(subscriber);
/// ```
#[derive(Clone, Debug, Default)]
pub struct LogTap(Arc<RwLock<Vec<Arc<Sink>>>>);

/// Where the lines of one exporter go.
#[derive(Debug)]
struct Sink {
    exporter: ExporterName,
    sender: mpsc::Sender<Line>,
    lost: Mutex<HashMap<Box<str>, u64>>,
}

/// A line, and the path of the driver that says it; none is the exporter itself.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) path: Option<Box<str>>,
    pub(crate) line: LogLine,
}

/// The lines of one exporter, as they come. Dropping it ends that.
#[derive(Debug)]
pub(crate) struct Lines {
    tap: LogTap,
    sink: Arc<Sink>,
    receiver: mpsc::Receiver<Line>,
}

/// The lines that were lost of one source: a path, or empty for the exporter itself.
pub(crate) type Lost = HashMap<Box<str>, u64>;

impl LogTap {
    /// A tap that nothing flows from yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The layer, for what matters at least as much as `level`. The connection to the broker is
    /// not heard: what it says would make it say more.
    pub fn layer<S>(&self, level: Level) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let off = LevelFilter::OFF;
        let targets = Targets::new().with_default(filter(level)).with_target("async_nats", off);
        LogLayer(self.clone()).with_filter(targets)
    }

    /// The lines of `exporter` from now on.
    pub(crate) fn attach(&self, exporter: ExporterName) -> Lines {
        let (sender, receiver) = mpsc::channel(LOG_LINES_WAITING_MAX);
        let sink = Arc::new(Sink { exporter, sender, lost: Mutex::default() });
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(sink.clone());
        Lines { tap: self.clone(), sink, receiver }
    }

    /// The sink of what says `address`; the only one there is, of what says none.
    fn sink(&self, address: Option<&str>) -> Option<(Arc<Sink>, Option<Box<str>>)> {
        let sinks = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(address) = address else {
            let only = (sinks.len() == 1).then(|| sinks[0].clone());
            return only.map(|sink| (sink, None));
        };
        let (exporter, path) = address.split_once('/').unwrap_or((address, ""));
        let found = sinks.iter().find(|sink| sink.exporter.as_str() == exporter);
        found.map(|sink| (sink.clone(), Some(path.into())))
    }
}

impl Sink {
    fn take(&self, line: Line) {
        if let Err(mpsc::error::TrySendError::Full(line)) = self.sender.try_send(line) {
            let source = line.path.unwrap_or_default();
            let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
            *lost.entry(source).or_default() += 1;
        }
    }
}

impl Lines {
    /// The next line. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Line> {
        self.receiver.recv().await
    }

    /// A line that is there.
    pub(crate) fn ready(&mut self) -> Option<Line> {
        self.receiver.try_recv().ok()
    }

    /// What was lost since this was asked last.
    pub(crate) fn lost(&self) -> Lost {
        std::mem::take(&mut *self.sink.lost.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let mut sinks = self.tap.0.write().unwrap_or_else(PoisonError::into_inner);
        sinks.retain(|sink| !Arc::ptr_eq(sink, &self.sink));
    }
}

fn filter(level: Level) -> LevelFilter {
    match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}

fn level(metadata: &Metadata<'_>) -> Level {
    match *metadata.level() {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::TRACE => Level::Trace,
    }
}

struct LogLayer(LogTap);

/// The address that a span has.
struct Tag(Box<str>);

impl<S> Layer<S> for LogLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attrs: &span::Attributes<'_>, id: &span::Id, cx: Context<'_, S>) {
        if attrs.metadata().fields().field(ACTOR).is_none() {
            return;
        }
        let mut words = Words::default();
        attrs.record(&mut words);
        if let (Some(address), Some(span)) = (words.actor, cx.span(id)) {
            span.extensions_mut().insert(Tag(address.into()));
        }
    }

    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        let mut words = Words::default();
        event.record(&mut words);
        let Words { actor, message, fields } = words;
        let tagged = || {
            let mut scope = cx.event_scope(event).into_iter().flatten();
            scope.find_map(|span: SpanRef<'_, S>| {
                span.extensions().get::<Tag>().map(|tag| tag.0.to_string())
            })
        };
        let Some((sink, path)) = self.0.sink(actor.or_else(tagged).as_deref()) else { return };
        let (at_ms, level) = (since_1970_ms(), level(event.metadata()));
        for text in (message + &fields).lines().take(LINES_OF_EVENT_MAX) {
            let line = LogLine { at_ms, level, text: plain(text) };
            sink.take(Line { path: path.clone(), line });
        }
    }
}

/// The fields of an event or span as words.
#[derive(Default)]
struct Words {
    actor: Option<String>,
    message: String,
    fields: String,
}

impl Words {
    fn add(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let name = field.name();
        if name == ACTOR {
            self.actor = Some(value.to_string());
        } else if name == "message" {
            self.message = value.to_string();
        } else if !name.starts_with("log.") {
            let value = if is_secret(name) { format_args!("***") } else { value };
            let _ = write!(self.fields, " {name}={value}"); // a String takes everything
        }
    }
}

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            ACTOR | "message" => self.add(field, format_args!("{value}")),
            _ => self.add(field, format_args!("{value:?}")),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format_args!("{value:?}"));
    }
}

/// Whether a field's name says that its value is nobody's business.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "passwd", "secret", "token", "seed", "creds", "private_key"]
        .iter()
        .any(|word| name.contains(word))
}

/// A line without control characters but tab, without what stands before the `@` of a URL, and
/// not too long.
fn plain(text: &str) -> String {
    let mut plain: String = without_user_info(text)
        .chars()
        .map(|c| if c.is_control() && c != '\t' { ' ' } else { c })
        .collect();
    const CUT: &str = " ...";
    if plain.len() > LOG_LINE_BYTES_MAX {
        let whole = (0..=LOG_LINE_BYTES_MAX - CUT.len()).rev();
        let end = whole.into_iter().find(|at| plain.is_char_boundary(*at)).unwrap_or(0);
        plain.truncate(end);
        plain.push_str(CUT);
    }
    plain
}

/// `nats://user:password@host` is `nats://***@host`.
fn without_user_info(text: &str) -> String {
    let mut parts = text.split("://");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let authority = part.find(['/', ' ', '"', ',']).unwrap_or(part.len());
        let host = part[..authority].rfind('@');
        kept.push_str("://");
        kept.push_str(if host.is_some() { "***" } else { "" });
        kept.push_str(&part[host.unwrap_or(0)..]);
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn said(tap: &LogTap, work: impl FnOnce()) {
        let subscriber = tracing_subscriber::registry().with(tap.layer(Level::Info));
        tracing::subscriber::with_default(subscriber, work);
    }

    fn name(name: &str) -> ExporterName {
        name.parse().unwrap()
    }

    #[test]
    fn a_line_goes_to_the_driver_that_the_innermost_span_names() {
        let tap = LogTap::new();
        let (mut bench, mut desk) = (tap.attach(name("bench")), tap.attach(name("desk")));
        said(&tap, || {
            tracing::info!("to nobody: there are two exporters");
            tracing::info_span!("call", actor = %"bench").in_scope(|| {
                tracing::info_span!("inner").in_scope(|| tracing::warn!(volts = 5, "low"));
                tracing::info_span!("call", actor = "desk/a/b").in_scope(|| tracing::info!("hi"));
                tracing::debug!("too much");
            });
            tracing::error!(actor = %"bench/dut", why = "x y", "gone");
        });
        let Line { path, line } = bench.ready().unwrap();
        assert_eq!((path.as_deref(), line.level), (Some(""), Level::Warn));
        assert_eq!(line.text, "low volts=5");
        let Line { path, line } = bench.ready().unwrap();
        assert_eq!((path.as_deref(), &*line.text), (Some("dut"), "gone why=\"x y\""));
        let Line { path, line } = desk.ready().unwrap();
        assert_eq!((path.as_deref(), &*line.text), (Some("a/b"), "hi"));
        assert!(bench.ready().is_none() && desk.ready().is_none());
    }

    #[test]
    fn secrets_and_what_a_terminal_would_obey_are_not_told() {
        let tap = LogTap::new();
        let mut lines = tap.attach(name("bench"));
        said(&tap, || {
            tracing::info!(api_token = "hunter2", Password = %"hunter2", "in");
            tracing::info!("nats://me:hunter2@host:1, http://host/a@b nats://me:hunter2@h");
            tracing::info!("one\x1b[2J\ntwo");
        });
        let mut text = || lines.ready().unwrap().line.text;
        assert_eq!(text(), "in api_token=*** Password=***");
        assert_eq!(text(), "nats://***@host:1, http://host/a@b nats://***@h");
        assert_eq!((text(), text()), ("one [2J".to_owned(), "two".to_owned()));
    }

    #[test]
    fn lines_past_the_queue_are_counted_and_nobody_waits() {
        let tap = LogTap::new();
        let mut lines = tap.attach(name("bench"));
        said(&tap, || {
            for _ in 0..LOG_LINES_WAITING_MAX + 7 {
                tracing::info!(actor = "bench/dut", "much");
            }
        });
        assert_eq!(lines.lost().get("dut"), Some(&7));
        assert!(lines.lost().is_empty());
        assert_eq!(std::iter::from_fn(|| lines.ready()).count(), LOG_LINES_WAITING_MAX);
    }

    proptest! {
        #[test]
        fn any_line_is_plain_and_short(text in "\\PC{0,40}(://)?\\PC{0,9}@?.{0,3000}") {
            let plain = plain(&text);
            prop_assert!(plain.len() <= LOG_LINE_BYTES_MAX);
            prop_assert!(!plain.contains(|c: char| c.is_control() && c != '\t'));
        }
    }
}
