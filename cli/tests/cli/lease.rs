//! `jmp-bus lease`, `run` and `shell`.

use crate::lab::{Lab, run};

const OURS: &str = env!("CARGO_BIN_EXE_jmp-bus");

#[tokio::test]
async fn a_lease_outlives_its_command_and_turns_others_away() {
    let lab = Lab::start().await;
    let taken = lab.run(&["lease", "acquire", "local", "--for", "2h", "-o", "json"]).await.json();
    let epoch = taken[0]["epoch"].as_u64().expect("an epoch");
    assert_eq!(taken[0]["address"], "local");
    lab.run(&["call", "local/power", "on"]).await.ok();
    let refused = lab.run(&["--as", "bob", "call", "local/power", "on"]).await.failed(12);
    assert!(refused.contains("leased by cli"), "{refused}");
    let busy =
        lab.run(&["--as", "bob", "lease", "acquire", "local", "-o", "json"]).await.failed(22);
    assert!(busy.contains("\"holder\":\"cli\""), "{busy}");
    let waits = ["--as", "bob", "lease", "acquire", "local", "--wait=200ms"];
    assert!(lab.run(&waits).await.failed(22).contains("cli has it"));

    lab.run(&["lease", "allow", "local", "bob"]).await.ok();
    lab.run(&["--as", "bob", "call", "local/power", "on"]).await.ok();
    let board = lab.run(&["lease", "list", "local", "-o", "json"]).await.json();
    assert_eq!(board[0]["lease"]["epoch"], epoch);
    assert_eq!(board[0]["lease"]["allowed"][0], "bob");
    let renewed = lab.run(&["lease", "renew", "local", "--for", "3h", "-o", "json"]).await.json();
    assert!(renewed["held"]["left_ms"].as_u64().unwrap() > 2 * 3_600_000);
    lab.run(&["--as", "bob", "lease", "release", "local"]).await.failed(12);
    lab.run(&["lease", "transfer", "local", "--to", "bob"]).await.ok();
    while lab.run(&["lease", "list", "local", "-o", "json"]).await.json()[0]["state"] == "ending" {
        tokio::task::yield_now().await; // devices are made safe first
    }
    let waits = ["lease", "acquire", "local", "--wait=10s"];
    let mut waiting = lab.spawn(&waits);
    lab.run(&["--as", "bob", "lease", "release", "local"]).await.ok();
    assert!(waiting.line().await.starts_with("local  for "));
    assert_eq!(waiting.ended().await.code, Some(0));
    let kick = ["--as", "boss", "lease", "kick", "local", "--reason", "fire drill"];
    assert!(lab.run(&kick).await.ok().contains("the lease of cli"));
    lab.run(&["lease", "renew", "local", "--for", "1h"]).await.failed(12);
    lab.end().await;
}

#[tokio::test]
async fn a_command_runs_under_a_lease_that_ends_with_it() {
    let lab = Lab::start().await;
    let script = format!("echo $JMP_BUS_LEASE; {OURS} call local/power on || exit 9; exit 7");
    let ran = lab.run(&["run", "local", "--", "sh", "-c", &script]).await;
    assert_eq!(ran.code, Some(7), "{ran:?}");
    assert!(ran.out.starts_with("local="), "{ran:?}");
    lab.diary.has("on").await;
    // A script that is left over is refused, even if its client has the next lease.
    lab.run(&["lease", "acquire", "local", "--wait=10s"]).await.ok();
    let mut late = lab.command(&["call", "local/power", "on"]);
    let stale = ran.out.lines().next().unwrap().to_owned();
    assert!(run(late.env("JMP_BUS_LEASE", stale)).await.failed(12).contains("has ended"));
    lab.run(&["lease", "release", "local"]).await.ok();
    assert_eq!(lab.run(&["run", "local", "--wait=9s", "--", "false"]).await.code, Some(1));
    lab.run(&["run", "local"]).await.failed(2);
    lab.end().await;
}

#[tokio::test]
async fn a_kick_cuts_an_open_stream_and_ends_the_command_at_once() {
    let lab = Lab::start().await;
    let script = format!("exec {OURS} connect local/power connect");
    let mut held = lab.command(&["run", "local", "--", "sh", "-c", &script]);
    held.stdin(std::process::Stdio::piped());
    let mut running = crate::lab::Running::start(&mut held);
    let stdin = running.child.stdin.take();
    lab.diary.has("connect").await;
    lab.run(&["--as", "boss", "lease", "kick", "local", "--reason", "fire"]).await.ok();
    lab.diary.has("connect ended").await;
    let ended = running.ended().await;
    assert!(matches!(ended.code, Some(23)), "{ended:?}");
    drop(stdin);
    lab.end().await;
}

#[tokio::test]
async fn labels_name_boards_and_a_set_is_all_or_none() {
    let lab = Lab::start().await;
    let taken = lab.run(&["lease", "acquire", "-l", "rack=1", "-o", "json"]).await.json();
    assert_eq!(taken[0]["address"], "local");
    lab.run(&["lease", "acquire", "-l", "rack=9"]).await.failed(10);
    lab.run(&["lease", "acquire", "--set", "local,nobody"]).await.failed(22);
    lab.run(&["lease", "release", "local"]).await.ok();
    lab.run(&["lease", "acquire", "--set", "local,nobody"]).await.failed(10);
    lab.run(&["lease", "acquire"]).await.failed(2);
    lab.end().await;
}
