//! Hooks that use the drivers of their exporter, as Jumpstarter's do with `j`.

use std::{path::PathBuf, time::Duration};

use runtime::{Config, Exporter, Hook, HookFailure};

use crate::lab::{Lab, relays};

const OURS: &str = env!("CARGO_BIN_EXE_jmp-bus");
const GRACE: Duration = Duration::from_secs(5);

fn hook(script: &str) -> Option<Hook> {
    Some(Hook {
        script: format!("J={OURS}\n{script}"),
        exec: PathBuf::from("/bin/sh"),
        timeout: Duration::from_secs(10),
        on_failure: HookFailure::EndLease,
    })
}

/// A board whose console says back what it is told.
const BOARD: &str = r#"
metadata: {name: board}
export:
  dut:
    type: process-power
    config:
      pty: true
      command: [sh, -c, "echo booted; stty -echo; while read line; do echo heard $line; done"]
"#;

#[tokio::test]
async fn a_hook_powers_the_board_on_and_another_reads_its_console() {
    let lab = Lab::start().await;
    let said = lab.home.path().join("said");
    let after = format!(
        "$J stream board/dut/console capture -o json > {0} && grep -q heard {0}",
        said.display()
    );
    let state = lab.home.path().join("board");
    let config = Config::parse(BOARD, "board.yaml", &actors::kinds(), &state).unwrap();
    let board = lab.exporter_with("board", |exporter| {
        exporter.node = config.root;
        exporter.hooks.before = hook("$J call $JMP_BUS_EXPORTER/dut on");
        exporter.hooks.after = hook(&after);
    });
    let board: Exporter = board.await;
    let script = format!("{OURS} expect board/dut/console -");
    let run = ["run", "board", "--", "sh", "-c", &script];
    let ran = lab.run_with(&run, b"timeout 10s\nline \"hello\"\nexpect \"heard hello\"\n").await;
    assert_eq!(ran.code, Some(0), "{ran:?}"); // it has power
    lab.run(&["--as", "bob", "lease", "acquire", "board", "--wait=10s"]).await.ok();
    assert!(std::fs::read_to_string(said).unwrap().contains("hello"));
    board.shutdown(GRACE).await.unwrap();
    lab.end().await;
}

#[tokio::test]
async fn what_a_hook_has_begun_ends_with_it_and_its_right_too() {
    let lab = Lab::start().await;
    let left = lab.home.path().join("left");
    // A process that it leaves behind, and a call that does not end by itself.
    let before = format!(
        "$J call board/power on || exit 1\n\
         $J call board/power hang & (for i in $(seq 300); do [ -e {0}.go ] && break; sleep 0.05; done; \
         $J call board/power on; echo $? > {0}.new; mv {0}.new {0}) > /dev/null 2>&1 &\n\
         sleep 1",
        left.display()
    );
    let board = lab.exporter_with("board", |exporter| exporter.hooks.before = hook(&before)).await;
    lab.run(&["lease", "acquire", "board"]).await.ok();
    lab.diary.has("hang").await;
    lab.diary.has("hang ended").await; // cut off, though nobody cancelled it
    std::fs::write(left.with_extension("go"), "").unwrap();
    while !left.exists() {
        tokio::task::yield_now().await;
    }
    assert_eq!(std::fs::read_to_string(left).unwrap(), "12\n", "its time is over");
    lab.run(&["call", "board/power", "on"]).await.ok();
    board.shutdown(GRACE).await.unwrap();
    lab.end().await;
}

#[tokio::test]
async fn a_hook_uses_its_own_subtree_and_its_own_exporter_only() {
    let lab = Lab::start().await;
    let said = lab.home.path().join("said");
    let before = format!(
        "for at in board/power board/spare local/power; do\n\
         $J call $at on; echo $at $?; done > {0} 2>&1",
        said.display()
    );
    let board = lab.exporter_with("board", |exporter| {
        exporter.node = relays(&lab.diary);
        exporter.leases.subtrees = vec!["power".parse().unwrap(), "spare".parse().unwrap()];
        exporter.hooks.before = hook(&before);
    });
    let board = board.await;
    lab.run(&["lease", "acquire", "board/power"]).await.ok();
    let said = std::fs::read_to_string(said).unwrap();
    assert!(said.contains("board/power 0\n"), "{said}");
    assert!(said.contains("runs for spare now") && said.contains("board/spare 12\n"), "{said}");
    assert!(said.contains("a hook of board uses drivers of board"), "{said}");
    // Nobody is a hook by saying so.
    let forged = ["--as", "exporter", "call", "board/spare", "on"];
    lab.run(&forged).await.failed(12);
    board.shutdown(GRACE).await.unwrap();
    lab.end().await;
}

#[tokio::test]
async fn a_hook_that_is_to_stop_its_exporter_does_and_is_the_reason() {
    let lab = Lab::start().await;
    let file = lab.home.path().join("board.yaml");
    let yaml = "metadata: {name: board}\nhooks:\n  beforeLease: {script: exit 3, onFailure: exit}\n\
                export:\n  power: {type: fake-power}\n";
    std::fs::write(&file, yaml).unwrap();
    let mut serve = lab.spawn(&["serve", file.to_str().unwrap(), "-q"]);
    assert_eq!(serve.line().await, "board is up with 2 drivers");
    let refused = lab.run(&["lease", "acquire", "board"]).await;
    assert_ne!(refused.code, Some(0), "{refused:?}");
    let ended = serve.ended().await;
    assert_eq!(ended.code, Some(13), "{ended:?}");
    assert!(
        ended.err.contains("a hook failed: beforeLease: it failed: exit status: 3"),
        "{ended:?}"
    );
    lab.end().await;
}
