//! How often a driver's methods were used, and how that went. Counting takes no lock, and memory
//! only for what was used.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bus_schema::{Failure, FaultKind, Kind, Method, RefusalCode};

/// Upper bounds of the histogram of durations, in ms: from an answer at once to a call that takes
/// as long as most may.
pub(crate) const BOUNDS_MS: [u64; 12] =
    [1, 2, 5, 10, 50, 100, 500, 1_000, 5_000, 10_000, 30_000, 60_000];

/// How many things took at most so long, and how long they took together.
#[derive(Debug, Default)]
pub(crate) struct Durations {
    /// Each for itself; the last are longer.
    took: [AtomicU64; BOUNDS_MS.len() + 1],
    sum_us: AtomicU64,
}

impl Durations {
    pub(crate) fn count(&self, bounds_ms: &[u64; BOUNDS_MS.len()], took: Duration) {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.took[bounds_ms.partition_point(|bound| *bound <= ms)].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(0), Relaxed);
    }

    /// How many took at most each bound, and how many there were in all; and their sum.
    pub(crate) fn read(&self) -> ([u64; BOUNDS_MS.len() + 1], Duration) {
        let mut below = 0;
        let took = self.took.each_ref().map(|count| {
            below += count.load(Relaxed);
            below
        });
        (took, Duration::from_micros(self.sum_us.load(Relaxed)))
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With a result, or opened.
    Well,
    /// With a fault, by its place among the known ones; behind them are all others.
    Fault(usize),
    /// Not executed, by the code's place among the known ones.
    Refused(usize),
    /// Nobody knows.
    Unknown,
}

impl Ended {
    /// Its words as labels have them.
    pub(crate) const WORDS: [&str; 4] = ["ok", "fault", "refused", "unknown"];

    fn index(self) -> usize {
        match self {
            Self::Well => 0,
            Self::Fault(_) => 1,
            Self::Refused(_) => 2,
            Self::Unknown => 3,
        }
    }
}

impl From<&Failure> for Ended {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::Fault(fault) => {
                let known = FaultKind::KNOWN;
                Self::Fault(known.iter().position(|k| *k == fault.kind).unwrap_or(known.len()))
            }
            Failure::Refused(refusal) => {
                let known = RefusalCode::KNOWN;
                Self::Refused(known.iter().position(|c| *c == refusal.code).unwrap_or(known.len()))
            }
        }
    }
}

/// The methods of one driver that were used.
#[derive(Debug, Default)]
pub(crate) struct Usage(OnceLock<Box<MethodUsage>>);

/// One method. A driver has few, so a chain finds the right one soon; and it grows without a lock.
#[derive(Debug)]
pub(crate) struct MethodUsage {
    pub(crate) method: Box<str>,
    pub(crate) kind: Kind,
    ended: [AtomicU64; Ended::WORDS.len()],
    /// Of calls.
    pub(crate) took: Durations,
    next: Usage,
}

impl Usage {
    /// Counts one operation.
    pub(crate) fn count(&self, method: &Method, ended: Ended, took: Duration) {
        let mut place = &self.0;
        let usage = loop {
            let usage = place.get_or_init(|| Box::new(MethodUsage::of(method)));
            if *usage.method == *method.name {
                break usage;
            }
            place = &usage.next.0;
        };
        usage.ended[ended.index()].fetch_add(1, Relaxed);
        if usage.kind == Kind::Call {
            usage.took.count(&BOUNDS_MS, took);
        }
    }

    /// The methods that were used.
    pub(crate) fn methods(&self) -> impl Iterator<Item = &MethodUsage> {
        std::iter::successors(self.0.get(), |usage| usage.next.0.get()).map(|usage| &**usage)
    }
}

impl MethodUsage {
    fn of(method: &Method) -> Self {
        Self {
            method: method.name.as_str().into(),
            kind: method.kind,
            ended: Default::default(),
            took: Durations::default(),
            next: Usage::default(),
        }
    }

    /// How often it ended in each way.
    pub(crate) fn ended(&self) -> [u64; Ended::WORDS.len()] {
        self.ended.each_ref().map(|count| count.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::Type;
    use proptest::prelude::*;

    use super::*;

    fn method(name: &str) -> Method {
        Method {
            name: name.to_owned(),
            kind: Kind::Call,
            help: String::new(),
            params: vec![],
            result: Type::Unit,
            concurrent: false,
            uncancellable: false,
            observe: false,
            deadline_ms: None,
        }
    }

    proptest! {
        #[test]
        fn every_operation_is_counted_once_at_its_method(
            operations in prop::collection::vec((0..5_u8, 0..4_u8, 0..100_000_u64), 0..200),
        ) {
            let usage = Usage::default();
            for (name, ended, ms) in &operations {
                let ended =
                    [Ended::Well, Ended::Fault(0), Ended::Refused(1), Ended::Unknown][*ended as usize];
                usage.count(&method(&name.to_string()), ended, Duration::from_millis(*ms));
            }
            let mut all = 0;
            for counted in usage.methods() {
                let of = || operations.iter().filter(|op| op.0.to_string() == *counted.method);
                let (took, sum) = counted.took.read();
                prop_assert_eq!(counted.ended().iter().sum::<u64>(), of().count() as u64);
                for (bound, count) in BOUNDS_MS.iter().zip(took) {
                    prop_assert_eq!(count, of().filter(|op| op.2 < *bound).count() as u64);
                }
                prop_assert_eq!(took[BOUNDS_MS.len()], of().count() as u64);
                prop_assert_eq!(sum.as_millis() as u64, of().map(|op| op.2).sum::<u64>());
                all += of().count();
            }
            prop_assert_eq!(all, operations.len());
        }
    }
}
