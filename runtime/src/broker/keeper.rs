//! The process that ends a server when its owner has ended, however that came about.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread::{self, JoinHandle},
};

use tokio::sync::watch;
use tracing::warn;

const SCRIPT: &str = include_str!("keeper.sh");

/// A keeper process and the server below it. Both end when this is dropped, and the drop waits:
/// for milliseconds as a rule, for five seconds if the server does not listen.
#[derive(Debug)]
pub(super) struct Keeper {
    /// Held by this process only: the kernel closes it for an owner that is killed.
    orders: Option<ChildStdin>,
    life: watch::Receiver<Life>,
    reaper: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Life {
    Running,
    ServerEnded,
    KeeperEnded,
}

impl Keeper {
    /// Starts `server` with the configuration in `run`. Whoever starts it lends it the `lock` until
    /// the server has ended.
    pub(super) fn start(server: &Path, run: &Path, lock: File) -> io::Result<Self> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "jmp-bus-keeper"])
            .args([run, server])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(lock)
            .process_group(0)
            .spawn()?;
        let orders = child.stdin.take();
        let alive = child.stdout.take().expect("standard output is piped");
        let (tell, life) = watch::channel(Life::Running);
        let watching = tell.clone();
        thread::Builder::new().name("broker-server".into()).spawn(|| watch(alive, watching))?;
        let reaper =
            thread::Builder::new().name("broker-keeper".into()).spawn(|| reap(child, tell))?;
        Ok(Self { orders, life, reaper: Some(reaper) })
    }

    /// Returns once the server has ended, for whatever reason. Cancel safe.
    pub(super) async fn server_ended(&self) {
        self.reached(Life::ServerEnded).await;
    }

    /// Kills the server, and leaves its files as they are.
    pub(super) async fn kill(mut self) {
        if let Some(orders) = &mut self.orders {
            let _ = orders.write_all(b"kill\n"); // fails only if the keeper has ended
        }
        self.reached(Life::KeeperEnded).await;
    }

    /// Stops the server and removes its run directory.
    pub(super) async fn stop(mut self) {
        self.orders = None;
        self.reached(Life::KeeperEnded).await;
    }

    async fn reached(&self, stage: Life) {
        let mut life = self.life.clone();
        // An error means that the reaper is gone, and it is the last to go.
        let _ = life.wait_for(|life| *life >= stage).await;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(reaper) = self.reaper.take() {
            let _ = reaper.join();
        }
    }
}

/// Waits for the server's end.
fn watch(mut alive: ChildStdout, tell: watch::Sender<Life>) {
    let _ = io::copy(&mut alive.by_ref(), &mut io::sink());
    advance(&tell, Life::ServerEnded);
}

/// Waits for the keeper's end, so that it leaves no zombie.
fn reap(mut keeper: Child, tell: watch::Sender<Life>) {
    let _ = keeper.wait();
    if *tell.borrow() == Life::Running {
        end_orphans(keeper.id());
    }
    advance(&tell, Life::KeeperEnded);
}

/// Somebody killed the keeper itself. As the server lives, its group's number is still its own.
fn end_orphans(group: u32) {
    warn!(group, "keeper of the local broker was killed");
    let script = "kill -s KILL -- -\"$1\"";
    let _ = Command::new("/bin/sh")
        .args(["-c", script, "jmp-bus-keeper", &group.to_string()])
        .stderr(Stdio::null())
        .status();
}

fn advance(tell: &watch::Sender<Life>, to: Life) {
    tell.send_if_modified(|life| {
        let forward = to > *life;
        *life = to.max(*life);
        forward
    });
}
