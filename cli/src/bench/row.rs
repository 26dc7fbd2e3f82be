//! One row of the bench.

use std::{fmt, future::Future};

use serde::Serialize;

use super::{
    Sides,
    process::{Cpu, Peer, Requester, Spent},
};

/// A figure beside its floor.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its key.
    pub key: &'static str,
    /// Bare async-nats.
    pub floor: f64,
    /// This project.
    pub jmp_bus: f64,
    /// `jmp_bus / floor`.
    pub ratio: f64,
    /// The unit of both.
    pub unit: &'static str,
    /// What must be reached.
    pub must: Target,
    /// Whether it was.
    pub met: bool,
    /// Spread over the rounds, (max - min) / median, of the ratio.
    pub spread: f64,
    /// Whether the spread is over 10 %.
    pub noisy: bool,
    /// CPU time of requester and responder per operation on either side, in µs, where the row is
    /// about operations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor_cpu_us: Option<Cpu>,
    /// The same of this project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jmp_bus_cpu_us: Option<Cpu>,
    /// What else there is to say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// What a ratio must be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
    /// Not the ratio but our own figure, at most this.
    FigureAtMost(f64),
}

impl Target {
    fn is_met(self, ratio: f64, figure: f64) -> bool {
        match self {
            Self::AtMost(most) => ratio <= most,
            Self::AtLeast(least) => ratio >= least,
            Self::FigureAtMost(most) => figure <= most,
        }
    }
}

/// What one round of one side measured.
pub(crate) struct Round {
    /// The figure, in the row's unit.
    pub(crate) figure: f64,
    /// Operations, for CPU time per operation.
    pub(crate) operations: usize,
}

/// Whose CPU time a row counts.
#[derive(Clone, Copy)]
pub(crate) struct Meter<'a> {
    /// The responder of our side.
    pub(crate) responder: &'a Peer,
    pub(crate) requester: Requester,
}

impl<'a> From<&'a Peer> for Meter<'a> {
    fn from(responder: &'a Peer) -> Self {
        Self { responder, requester: Requester::Bench }
    }
}

/// Runs rounds of both sides by turns and makes the row.
pub(crate) async fn measure<F, B>(
    sides: &Sides,
    meter: impl Into<Meter<'_>>,
    key: &'static str,
    unit: &'static str,
    must: Target,
    mut floor: impl FnMut() -> F,
    mut bus: impl FnMut() -> B,
) -> anyhow::Result<Row>
where
    F: Future<Output = anyhow::Result<Round>>,
    B: Future<Output = anyhow::Result<Round>>,
{
    let Meter { responder, requester } = meter.into();
    let (mut floors, mut figures, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut floor_cpu, mut bus_cpu) = (Spent::default(), Spent::default());
    // One round of each to warm up: connections, caches, the CPU's clock.
    floor().await?;
    bus().await?;
    for _ in 0..sides.bench.rounds {
        let before = requester.cpu(&sides.floor_peer);
        let round = floor().await?;
        floor_cpu.add(before, requester.cpu(&sides.floor_peer), round.operations);
        let before = requester.cpu(responder);
        let ours = bus().await?;
        bus_cpu.add(before, requester.cpu(responder), ours.operations);
        ratios.push(ours.figure / round.figure);
        floors.push(round.figure);
        figures.push(ours.figure);
    }
    let spread = spread(&ratios);
    let (floor, jmp_bus, ratio) = (median(floors), median(figures), median(ratios));
    Ok(Row {
        key,
        floor,
        jmp_bus,
        ratio,
        unit,
        must,
        met: must.is_met(ratio, jmp_bus),
        spread,
        noisy: spread > 0.10,
        floor_cpu_us: floor_cpu.per_operation(),
        jmp_bus_cpu_us: bus_cpu.per_operation(),
        note: String::new(),
    })
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn spread(figures: &[f64]) -> f64 {
    let most = figures.iter().copied().fold(f64::MIN, f64::max);
    let least = figures.iter().copied().fold(f64::MAX, f64::min);
    (most - least) / median(figures.to_vec())
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, floor, jmp_bus, ratio, unit, .. } = self;
        let (must, sign) = match self.must {
            Target::AtMost(most) => (most, "<="),
            Target::AtLeast(least) => (least, ">="),
            Target::FigureAtMost(most) => (most, "figure <="),
        };
        let met = if self.met { "met" } else { "MISSED" };
        let noisy = if self.noisy { " (noisy)" } else { "" };
        write!(
            f,
            "{key:<21} {floor:>12.1} {jmp_bus:>12.1} {unit:<8} {ratio:>6.2} x  must {sign} {must:<4} {met:<6} \
             spread {:>4.0} %{noisy}",
            self.spread * 100.0,
        )?;
        if let (Some(floor), Some(ours)) = (self.floor_cpu_us, self.jmp_bus_cpu_us) {
            write!(f, "  cpu {floor} / {ours} us/op")?;
        }
        write!(f, "  {}", self.note)
    }
}
