//! The figures of an exporter, as Prometheus reads them (text format 0.0.4).

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Write as _},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bus_schema::{FaultKind, Kind, RefusalCode, subject::DriverVerb};

use super::{
    core::Core,
    lease::WAITS_MS,
    usage::{BOUNDS_MS, Ended},
};

/// The figures of a running exporter. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Core>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("exporter", &self.0.name).finish_non_exhaustive()
    }
}

impl Metrics {
    pub(crate) fn of(core: &Arc<Core>) -> Self {
        Self(core.clone())
    }

    /// All of them, as they are now.
    pub fn render(&self) -> String {
        let core = &self.0;
        let mut page = Page::default();
        let labels = [("exporter", core.name.as_str()), ("version", env!("CARGO_PKG_VERSION"))];
        page.family("jmp_bus_info", "gauge", "The exporter, and its version.");
        page.sample("jmp_bus_info", &labels, 1);
        page.family("jmp_bus_uptime_seconds", "gauge", "How long it has run.");
        page.sample("jmp_bus_uptime_seconds", &[], core.uptime().as_secs_f64());
        calls(core, &mut page);
        durations(core, &mut page);
        failures(core, &mut page);
        drivers(core, &mut page);
        leases(core, &mut page);
        traffic(core, &mut page);
        page.0
    }
}

fn calls(core: &Core, page: &mut Page) {
    const NAME: &str = "jmp_bus_calls_total";
    page.family(NAME, "counter", "Operations that ended, by driver, method and outcome.");
    for slot in core.slots().sorted() {
        for usage in slot.usage.methods() {
            for (outcome, count) in Ended::WORDS.iter().zip(usage.ended()) {
                if count > 0 {
                    let kind = usage.kind.to_string();
                    let labels = [
                        ("driver", &*slot.address),
                        ("method", &*usage.method),
                        ("kind", kind.as_str()),
                        ("outcome", outcome),
                    ];
                    page.sample(NAME, &labels, count);
                }
            }
        }
    }
}

/// By method over all drivers: a histogram for each driver would be most of the page.
fn durations(core: &Core, page: &mut Page) {
    const NAME: &str = "jmp_bus_call_duration_seconds";
    page.family(NAME, "histogram", "How long calls took, waiting included, by method.");
    let mut by_method = BTreeMap::<&str, ([u64; BOUNDS_MS.len() + 1], f64)>::new();
    let slots = core.slots().sorted();
    for slot in &slots {
        for usage in slot.usage.methods().filter(|usage| usage.kind == Kind::Call) {
            let (took, sum) = usage.took.read();
            let all = by_method.entry(&usage.method).or_default();
            all.0.iter_mut().zip(took).for_each(|(all, took)| *all += took);
            all.1 += sum.as_secs_f64();
        }
    }
    for (method, (took, sum)) in by_method {
        page.histogram(NAME, &[("method", method)], &BOUNDS_MS, took, sum);
    }
}

fn leases(core: &Core, page: &mut Page) {
    let leases = &core.stats.leases;
    const EVENTS: &str = "jmp_bus_lease_events_total";
    page.family(EVENTS, "counter", "What happened to leases: granted, refused, expired and so on.");
    for (what, count) in leases.events() {
        page.sample(EVENTS, &[("what", what)], count);
    }
    const UNITS: &str = "jmp_bus_lease_boards";
    page.family(UNITS, "gauge", "Subtrees that are leased apart, by their state.");
    for (state, count) in leases.units() {
        page.sample(UNITS, &[("state", state)], count);
    }
    page.family("jmp_bus_lease_waiting", "gauge", "Requests that wait for a lease.");
    page.sample("jmp_bus_lease_waiting", &[], leases.waiting());
    const WAITS: &str = "jmp_bus_lease_wait_seconds";
    page.family(WAITS, "histogram", "How long was waited for leases that were granted.");
    let (took, sum) = leases.waits.read();
    page.histogram(WAITS, &[], &WAITS_MS, took, sum.as_secs_f64());
}

fn failures(core: &Core, page: &mut Page) {
    let stats = &core.stats;
    page.family("jmp_bus_faults_total", "counter", "Operations that failed, by fault.");
    for (kind, count) in FaultKind::KNOWN.iter().zip(&stats.faults) {
        page.sample("jmp_bus_faults_total", &[("fault", kind.as_str())], count.load(Relaxed));
    }
    page.family("jmp_bus_refusals_total", "counter", "Requests that were refused, by reason.");
    for (code, count) in RefusalCode::KNOWN.iter().zip(&stats.refusals) {
        page.sample("jmp_bus_refusals_total", &[("reason", code.as_str())], count.load(Relaxed));
    }
    const DROPPED: &str = "jmp_bus_dropped_total";
    page.family(DROPPED, "counter", "What was dropped: messages unread, events, lines of logs.");
    for (what, count) in [
        ("message", stats.dropped.load(Relaxed)),
        ("event", core.events.dropped()),
        ("log-line", stats.lines_lost.load(Relaxed)),
    ] {
        page.sample(DROPPED, &[("what", what)], count);
    }
}

fn drivers(core: &Core, page: &mut Page) {
    page.family("jmp_bus_driver_up", "gauge", "Whether a driver is there.");
    for slot in core.slots().sorted() {
        let up = u8::from(slot.tenant().is_ok());
        page.sample("jmp_bus_driver_up", &[("driver", &slot.address)], up);
    }
    const NAME: &str = "jmp_bus_driver_restarts_total";
    page.family(NAME, "counter", "How often a driver was restarted.");
    for slot in core.slots().sorted() {
        page.sample(NAME, &[("driver", &slot.address)], slot.restarts.load(Relaxed));
    }
    const WAITING: &str = "jmp_bus_turn_waiting";
    page.family(WAITING, "gauge", "Calls that wait for a driver's turn.");
    for slot in core.slots().sorted() {
        page.sample(WAITING, &[("driver", &slot.address)], slot.turn.waiting());
    }
}

fn traffic(core: &Core, page: &mut Page) {
    page.family("jmp_bus_requests_total", "counter", "Requests that were read.");
    let requests = DriverVerb::ALL.iter().map(|verb| core.stats.of(*verb).requests.load(Relaxed));
    page.sample("jmp_bus_requests_total", &[], requests.sum::<u64>());
    page.family("jmp_bus_operations_open", "gauge", "Operations that wait or run.");
    page.sample("jmp_bus_operations_open", &[], core.ledger().open());
    page.family("jmp_bus_streams_open", "gauge", "Streams and streaming calls that are open.");
    page.sample("jmp_bus_streams_open", &[], core.switchboard.len());
    page.family("jmp_bus_queued", "gauge", "What waits for its way out.");
    page.sample("jmp_bus_queued", &[("what", "event")], core.events.waiting());
    let connections = [("control", core.control()), ("bulk", &core.bulk)];
    page.family("jmp_bus_bytes_total", "counter", "Bytes from and to the broker.");
    for (connection, conn) in connections {
        let [read, written] = conn.bytes();
        for (direction, bytes) in [("in", read), ("out", written)] {
            let labels = [("connection", connection), ("direction", direction)];
            page.sample("jmp_bus_bytes_total", &labels, bytes);
        }
    }
    const CONNECTS: &str = "jmp_bus_connects_total";
    page.family(CONNECTS, "counter", "Connections to the broker that came about.");
    for (connection, conn) in connections {
        page.sample(CONNECTS, &[("connection", connection)], conn.connects());
    }
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}"); // a String takes all
    }

    /// `took` are counts up to each bound, and all.
    #[expect(clippy::cast_precision_loss, reason = "bounds are small")]
    fn histogram(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        bounds_ms: &[u64; BOUNDS_MS.len()],
        took: [u64; BOUNDS_MS.len() + 1],
        sum: f64,
    ) {
        let bounds = bounds_ms.iter().map(|ms| format!("{}", *ms as f64 / 1000.0));
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(took) {
            let labels: Vec<_> = labels.iter().copied().chain([("le", &*bound)]).collect();
            self.sample(&format!("{name}_bucket"), &labels, count);
        }
        self.sample(&format!("{name}_sum"), labels, sum);
        self.sample(&format!("{name}_count"), labels, took[BOUNDS_MS.len()]);
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"", if at == 0 { '{' } else { ',' });
            for c in text.chars() {
                match c {
                    '\\' | '"' => self.0.extend(['\\', c]),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_cannot_break_out_of_their_quotes() {
        let mut page = Page::default();
        page.sample("a", &[("b", "c\"d\\e\nf"), ("g", "h")], 1.5);
        page.sample("a", &[], 2);
        assert_eq!(page.0, "a{b=\"c\\\"d\\\\e\\nf\",g=\"h\"} 1.5\na 2\n");
    }
}
