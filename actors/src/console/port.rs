//! The task that owns a device: it reads always, and writes for the one who may.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bus_schema::{ClientName, Fault, FaultKind};
use bytes::{Buf as _, Bytes};
use runtime::{ByteStream, Items};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tracing::{Instrument as _, info, warn};

use super::{
    CaptureConfig, CaptureInfo, Captured, Line, Moved, Opener, Order, follower::Record, log::Log,
    writer::Seat,
};

/// Bytes read at once: what the kernel's buffer of a terminal holds.
const READ_BYTES_MAX: usize = 4096;
/// A port that is gone is looked for first after this time, later after twice that …
const RETRY_FIRST: Duration = Duration::from_millis(50);
/// … and so on, up to this.
const RETRY_MAX: Duration = Duration::from_secs(1);
/// Orders that wait for the device.
const ORDERS_MAX: usize = 16;

/// A device that is read always, as its driver has it. Dropping it lets the device go.
#[derive(Debug)]
pub(crate) struct Port {
    shared: Arc<Shared>,
    orders: mpsc::Sender<Asked>,
    writes: mpsc::Sender<Bytes>,
    /// Aborted by the drop.
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    record: Arc<Record>,
    seat: Arc<Seat>,
    /// Why the device is not there, if it is not.
    absent: Mutex<Option<Fault>>,
}

#[derive(Debug)]
struct Asked {
    order: Order,
    done: oneshot::Sender<Result<(), Fault>>,
}

impl Port {
    /// Opens the device, and has it read from now on. If it is not there it is looked for, unless
    /// it `must_be_there`.
    pub(crate) async fn start<O: Opener>(
        opener: O,
        must_be_there: bool,
        capture: &CaptureConfig,
    ) -> Result<Self, Fault> {
        Self::paced(opener, must_be_there, capture, None).await
    }

    /// The same, with a time that each byte that is written has.
    pub(crate) async fn paced<O: Opener>(
        mut opener: O,
        must_be_there: bool,
        capture: &CaptureConfig,
        pace: Option<Duration>,
    ) -> Result<Self, Fault> {
        let log = Log::open(capture).await?;
        let record = Record::new(usize::try_from(capture.memory).unwrap_or(usize::MAX), log);
        let mut tasks = JoinSet::new();
        if let Some(keep) = record.keep() {
            tasks.spawn(keep.in_current_span());
        }
        let shared = Arc::new(Shared { record, seat: Arc::default(), absent: Mutex::new(None) });
        let line = match opener.open().await {
            Ok(line) => Some(line),
            Err(error) if must_be_there => return Err(unreachable(&error)),
            Err(error) => {
                shared.set_absent(Some(unreachable(&error)));
                None
            }
        };
        let (orders, take_orders) = mpsc::channel(ORDERS_MAX);
        let (writes, take_writes) = mpsc::channel(1);
        let task = Task {
            opener,
            shared: shared.clone(),
            orders: take_orders,
            writes: take_writes,
            out: Bytes::new(),
            in_break: None,
            pace,
            quiet_until: None,
        };
        tasks.spawn(task.run(line).in_current_span());
        Ok(Self { shared, orders, writes, _tasks: tasks })
    }

    /// Does something to the line that is no byte.
    pub(crate) async fn order(&self, order: Order) -> Result<(), Fault> {
        let (done, answer) = oneshot::channel();
        let closed = || Fault::device("the port was closed");
        self.orders.send(Asked { order, done }).await.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Cuts off whoever writes.
    pub(crate) fn cut_off(&self, by: &ClientName) {
        self.shared.seat.end(&Fault::device(format_args!("{by} has closed the console")));
    }

    pub(super) async fn connect(
        &self,
        who: &ClientName,
        force: bool,
        stream: ByteStream,
    ) -> Result<(), Fault> {
        let seat = self.shared.present().and_then(|()| self.shared.seat.take(who, force));
        // Dropped before the method has returned, the stream would be cut off without the reason.
        let writer = seat.inspect_err(|why| stream.reset(why))?;
        let follower = self.shared.record.follow(None);
        writer.run(stream, follower, self.writes.clone()).await
    }

    pub(super) async fn watch(&self, from: Option<u64>, stream: ByteStream) -> Result<(), Fault> {
        self.shared.record.follow(from).watch(stream).await
    }

    pub(super) async fn capture(
        &self,
        from: u64,
        follow: bool,
        items: Items<Captured>,
    ) -> Result<(), Fault> {
        self.shared.record.follow(Some(from)).capture(follow, items).await
    }

    pub(super) fn capture_info(&self) -> CaptureInfo {
        self.shared.record.info()
    }
}

impl Shared {
    fn set_absent(&self, why: Option<Fault>) {
        *self.absent.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    fn present(&self) -> Result<(), Fault> {
        let absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        absent.map_or(Ok(()), Err)
    }
}

fn unreachable(why: &io::Error) -> Fault {
    Fault::new(FaultKind::Unreachable, format_args!("the port is not there: {why}"))
}

/// A break that is being sent.
struct Break {
    until: Instant,
    done: oneshot::Sender<Result<(), Fault>>,
}

struct Task<O> {
    opener: O,
    shared: Arc<Shared>,
    orders: mpsc::Receiver<Asked>,
    writes: mpsc::Receiver<Bytes>,
    /// What the device has not taken yet.
    out: Bytes,
    in_break: Option<Break>,
    /// The time that each byte has, for a device that is slower than its line.
    pace: Option<Duration>,
    /// When the next byte may be written, if not now.
    quiet_until: Option<Instant>,
}

impl<O: Opener> Task<O> {
    async fn run(mut self, mut line: Option<O::Line>) {
        loop {
            let there = match line.take() {
                Some(there) => there,
                None => {
                    let there = self.find().await;
                    self.shared.set_absent(None);
                    self.shared
                        .record
                        .add(|ring| ring.note(SystemTime::now(), "port back".to_owned()));
                    info!("port is back");
                    there
                }
            };
            let why = self.serve(there).await;
            warn!(%why, "port is lost");
            let fault = unreachable(&why);
            self.shared.set_absent(Some(fault.clone()));
            self.shared
                .record
                .add(|ring| ring.note(SystemTime::now(), format!("port lost: {why}")));
            self.shared.seat.end(&fault);
            self.out = Bytes::new();
            self.in_break = None;
        }
    }

    /// Looks for a device that is not there. Whoever wants something of it meanwhile is told.
    async fn find(&mut self) -> O::Line {
        let mut wait = RETRY_FIRST;
        loop {
            let retry = sleep(wait);
            tokio::pin!(retry);
            loop {
                tokio::select! {
                    () = &mut retry => break,
                    Some(asked) = self.orders.recv() => {
                        let _ = asked.done.send(self.shared.present()); // fails if nobody waits
                    }
                    Some(_unwritten) = self.writes.recv() => {}
                }
            }
            match self.opener.open().await {
                Ok(line) => return line,
                Err(error) => self.shared.set_absent(Some(unreachable(&error))),
            }
            wait = RETRY_MAX.min(wait * 2);
        }
    }

    /// Reads and writes until the device is gone. Every branch is cancel safe.
    async fn serve(&mut self, mut line: O::Line) -> io::Error {
        let mut buf = [0; READ_BYTES_MAX];
        loop {
            let break_ends = self.in_break.as_ref().map(|sent| sent.until);
            let out = match (self.pace, self.quiet_until) {
                (None, _) => &self.out[..],
                (Some(_), None) => &self.out[..self.out.len().min(1)],
                (Some(_), Some(_)) => &[],
            };
            tokio::select! {
                biased;
                Some(asked) = self.orders.recv() => self.obey(&mut line, asked),
                () = at(break_ends) => self.end_break(&mut line),
                () = at(self.quiet_until) => self.quiet_until = None,
                moved = line.transfer(&mut buf, out) => match moved {
                    Ok(Moved::In(0)) => return io::Error::other("the device has hung up"),
                    Ok(Moved::In(read)) => {
                        let now = SystemTime::now();
                        self.shared.record.add(|ring| ring.push(now, &buf[..read]));
                    }
                    Ok(Moved::Out(written)) => {
                        self.out.advance(written);
                        self.quiet_until = self.pace.map(|pace| Instant::now() + pace);
                    }
                    Err(error) => return error,
                },
                Some(bytes) = self.writes.recv(), if self.out.is_empty() => self.out = bytes,
            }
        }
    }

    fn obey(&mut self, line: &mut O::Line, asked: Asked) {
        let Asked { order, done } = asked;
        let result = match order {
            Order::BreakFor(_) if self.in_break.is_some() => {
                Err(Fault::new(FaultKind::Busy, "a break is being sent already"))
            }
            Order::BreakFor(time) => match line.order(Order::Break(true)) {
                Ok(()) => {
                    self.in_break = Some(Break { until: Instant::now() + time, done });
                    return;
                }
                failed => failed,
            },
            order => line.order(order),
        };
        if result.is_ok() {
            self.opener.remember(order);
        }
        let _ = done.send(result); // fails if nobody waits
    }

    fn end_break(&mut self, line: &mut O::Line) {
        let result = line.order(Order::Break(false));
        if let Some(sent) = self.in_break.take() {
            let _ = sent.done.send(result); // fails if nobody waits
        }
    }
}

/// At `time`, if there is one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
