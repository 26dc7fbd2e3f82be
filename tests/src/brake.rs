//! A file whose storing stops on the way.

use std::{
    path::Path,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use runtime::Put;

/// It goes on after this time at the latest.
const HELD_MAX: Duration = Duration::from_secs(10);

/// Lets some blocks of a file be stored, and the rest only when it is dropped.
#[derive(Debug)]
pub struct Brake(#[expect(dead_code, reason = "it is dropped")] mpsc::Sender<()>);

impl Brake {
    /// What stores `path` like this: it stops when so many bytes are stored. Takes a runtime with
    /// several threads.
    pub fn at(stop: u64, path: &Path) -> (Self, Put) {
        let (tx, rx) = mpsc::channel();
        let rx = Mutex::new(rx);
        let hold = move |moved: runtime::Moved| {
            if moved.bytes >= stop {
                // Whatever else this thread has to do is done by another one.
                tokio::task::block_in_place(|| {
                    let rx = rx.lock().expect("nobody panics with it");
                    let _released = rx.recv_timeout(HELD_MAX);
                });
            }
        };
        (Self(tx), Put { on_moved: Some(Arc::new(hold)), ..Put::new(path) })
    }
}
