//! The one who may write.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bus_schema::{ClientName, Fault, FaultKind};
use bytes::{Bytes, BytesMut};
use runtime::ByteStream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split},
    sync::{mpsc, oneshot},
};

use super::{follower::Follower, ring::Next};

/// Bytes taken from the writer at once. They wait for the device, and the writer's credit for them.
const WRITE_BYTES_MAX: usize = 1024;

/// The writer's seat: taken or free.
#[derive(Debug, Default)]
pub(super) struct Seat(Mutex<Option<Holder>>);

#[derive(Debug)]
struct Holder {
    who: ClientName,
    since: Instant,
    /// Tells the writer that it is one no more, and why.
    end: oneshot::Sender<Fault>,
}

/// Somebody who writes. The seat is free again when this is dropped.
pub(super) struct Writer {
    seat: Arc<Seat>,
    ended: oneshot::Receiver<Fault>,
}

impl Seat {
    fn holder(&self) -> MutexGuard<'_, Option<Holder>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the seat for `who`.
    pub(super) fn take(self: &Arc<Self>, who: &ClientName, force: bool) -> Result<Writer, Fault> {
        let mut holder = self.holder();
        if let Some(other) = holder.take_if(|other| !other.end.is_closed()) {
            if !force {
                let for_s = other.since.elapsed();
                let text = format!(
                    "the console is busy: {} has been its writer for {for_s:.1?}; use `watch` to \
                     read along",
                    other.who
                );
                *holder = Some(other);
                return Err(Fault::new(FaultKind::Busy, text));
            }
            let text = format!("{who} has taken the console over by force");
            let _ = other.end.send(Fault::new(FaultKind::Busy, text)); // fails if it has left
        }
        let (end, ended) = oneshot::channel();
        *holder = Some(Holder { who: who.clone(), since: Instant::now(), end });
        Ok(Writer { seat: self.clone(), ended })
    }

    /// Cuts the present writer off.
    pub(super) fn end(&self, why: &Fault) {
        if let Some(holder) = self.holder().take() {
            let _ = holder.end.send(why.clone()); // fails if it has left
        }
    }
}

impl Writer {
    /// Copies both ways until the writer leaves or is cut off.
    pub(super) async fn run(
        mut self,
        stream: ByteStream,
        follower: Follower,
        writes: mpsc::Sender<Bytes>,
    ) -> Result<(), Fault> {
        let (mut input, mut output) = split(stream);
        let ended = tokio::select! {
            biased;
            why = &mut self.ended => {
                Err(why.unwrap_or_else(|_| Fault::device("the port was closed")))
            }
            () = write_down(&mut input, writes) => Ok(()),
            ended = read_up(&mut output, follower) => ended,
        };
        ended.inspect_err(|why| input.unsplit(output).reset(why))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Closed by now, unless another one sits there.
        self.ended.close();
        self.seat.holder().take_if(|holder| holder.end.is_closed());
    }
}

/// From the writer to the device. A writer that has ended its half may still read, so this ends
/// when the writer is gone and not before.
async fn write_down(input: &mut ReadHalf<ByteStream>, writes: mpsc::Sender<Bytes>) {
    loop {
        let Ok(slot) = writes.reserve().await else { return };
        let mut bytes = BytesMut::with_capacity(WRITE_BYTES_MAX);
        match input.read_buf(&mut bytes).await {
            Ok(0) => break,
            Ok(_) => slot.send(bytes.freeze()),
            Err(_) => return,
        }
    }
    std::future::pending().await
}

/// From the device to the writer, which gets every byte or is told that it does not.
async fn read_up(output: &mut WriteHalf<ByteStream>, mut follower: Follower) -> Result<(), Fault> {
    loop {
        match follower.next().await {
            Next::Bytes { data, .. } => {
                if output.write_all(&data).await.is_err() {
                    return Ok(());
                }
            }
            Next::Lost(lost) => {
                let text =
                    format!("too slow for the console: {lost} bytes are lost to this reader");
                return Err(Fault::device(text));
            }
            Next::Note { .. } | Next::Nothing => {}
        }
    }
}
