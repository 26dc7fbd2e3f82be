use std::{
    sync::atomic::{AtomicUsize, Ordering},
    task::Wake,
};

use super::*;
use crate::stream::Budget;

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Each is woken by what it waits for, whoever else waits and came later.
#[test]
fn who_waits_takes_nobody_elses_place() {
    let grant = Budget::default().nothing();
    let end = PipeEnd::new(Flow::new(0, 20_000), PipeDirection::SendOnly, grant);
    let woken: [Arc<Woken>; 3] = std::array::from_fn(|_| Arc::default());
    let wakers = woken.clone().map(Waker::from);
    let [mut one, mut other, mut last] = wakers.each_ref().map(Context::from_waker);
    while end.poll_write_some(&mut one, &[7; 4096]).is_ready() {}
    assert!(end.poll_item(&mut other, b"item").is_pending());
    let mut acknowledged = std::pin::pin!(end.acknowledged());
    assert!(acknowledged.as_mut().poll(&mut last).is_pending());
    let mut sent = 0;
    while let Next::Chunk(chunk) = end.next(true) {
        sent = chunk.number + 1;
    }
    assert!(sent > 0);
    let counts = || woken.each_ref().map(|one| one.0.load(Ordering::Relaxed));
    assert_eq!(counts(), [1, 1, 0]);
    end.reset(ResetCode::Cancelled, "");
    assert_eq!(counts(), [1, 1, 1]);
    assert!(acknowledged.as_mut().poll(&mut last).is_ready());
}
