//! Many watch, one writes: what can be seen without a lease while somebody else has the board.

use std::{process::Stdio, time::Duration};

use runtime::{Config, Exporter};
use tokio::io::AsyncWriteExt as _;

use crate::lab::{Lab, Running};

/// A board whose console says back what it is told.
const BOARD: &str = r#"
metadata: {name: board}
export:
  dut:
    type: process-power
    config:
      pty: true
      read_every: 100ms
      command: [sh, -c, "echo booted; stty -echo; while read line; do echo heard $line; done"]
"#;

async fn board(lab: &Lab) -> Exporter {
    let state = lab.home.path().join("board");
    let config = Config::parse(BOARD, "board.yaml", &actors::kinds(), &state).unwrap();
    lab.exporter_with("board", |exporter| exporter.node = config.root).await
}

#[tokio::test]
async fn a_console_is_watched_and_not_written_during_anothers_lease() {
    let lab = Lab::start().await;
    let board = board(&lab).await;
    lab.run(&["lease", "acquire", "board"]).await.ok();
    lab.run(&["call", "board/dut", "on"]).await.ok();
    let watch = ["--as", "bob", "console", "board/dut/console", "--watch", "--replay"];
    let (mut one, mut two) = (lab.spawn(&watch), lab.spawn(&watch));
    assert_eq!(one.line().await, "booted");

    let write = ["--as", "bob", "console", "board/dut/console"];
    let refused = lab.run_with(&write, b"rm -rf /\n").await.failed(12);
    assert!(refused.contains("leased by cli"), "{refused}");
    let mut command = lab.command(&["connect", "board/dut/console"]);
    let mut holder = Running::start(command.stdin(Stdio::piped()));
    let mut types = holder.child.stdin.take().unwrap();
    types.write_all(b"hello\n").await.unwrap();
    for watcher in [&mut one, &mut two] {
        while watcher.line().await != "heard hello" {}
    }
    // The watchers see the lease change hands, and go on.
    let kick = ["--as", "boss", "lease", "kick", "board", "--reason", "fire"];
    lab.run(&kick).await.ok();
    assert_eq!(holder.ended().await.code, Some(23));
    lab.run(&["--as", "carol", "lease", "acquire", "board", "--wait=10s"]).await.ok();
    lab.run(&["--as", "carol", "call", "board/dut", "on"]).await.ok();
    for watcher in [&mut one, &mut two] {
        while watcher.line().await != "booted" {}
    }
    for watcher in [one, two] {
        watcher.interrupt().await;
        assert_eq!(watcher.ended().await.code, Some(130));
    }
    board.shutdown(Duration::from_secs(5)).await.unwrap();
    lab.end().await;
}

#[tokio::test]
async fn readings_logs_and_events_are_everybodys_during_anothers_lease() {
    let lab = Lab::start().await;
    let board = board(&lab).await;
    let mut events = lab.spawn(&["--as", "bob", "events", "--follow", "board", "-o", "json"]);
    let mut log = lab.spawn(&["--as", "bob", "logs", "--follow", "board"]);
    lab.run(&["lease", "acquire", "board"]).await.ok();
    lab.run(&["call", "board/dut", "on"]).await.ok();
    let mut reads = lab.spawn(&["--as", "bob", "stream", "board/dut", "read"]);
    assert!(reads.line().await.contains("voltage"));
    lab.run(&["--as", "bob", "call", "board/dut", "off"]).await.failed(12);
    let event = async |running: &mut Running, kind: &str| loop {
        let line: serde_json::Value = serde_json::from_str(&running.line().await).unwrap();
        if line["kind"] == kind {
            return line;
        }
    };
    assert_eq!(event(&mut events, "lease-granted").await["client"], "cli");
    assert_eq!(event(&mut events, "call-fenced").await["client"], "bob");
    // The exporter of this test has no log of its own: that it can be followed is what is shown.
    for running in [events, log, reads] {
        running.interrupt().await;
        assert_eq!(running.ended().await.code, Some(130));
    }
    log = lab.spawn(&["--as", "bob", "logs", "board"]);
    assert_eq!(log.ended().await.code, Some(0));
    board.shutdown(Duration::from_secs(5)).await.unwrap();
    lab.end().await;
}
