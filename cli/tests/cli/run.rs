//! `jmp-bus run`: the board goes when the command, the terminal or the program goes.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use runtime::Exporter;
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::lab::{Lab, Running, terminal};

/// A holder that says nothing for so long has lost its lease.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(5);

/// A command with a child of its own, which says who they are.
const FAMILY: &str = "sleep 1000 & echo $$ $!; wait";

async fn board(lab: &Lab) -> Exporter {
    lab.exporter_with("board", |config| config.leases.keep_alive = KEEP_ALIVE).await
}

/// Waits until none of these processes runs.
async fn gone(pids: &str) {
    let runs = |pid: &str| {
        let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z ")) // nobody may have waited for it
    };
    let all_gone = async {
        while pids.split(' ').any(runs) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all_gone).await.expect("they are gone");
}

/// The next holder, and how long it waited.
async fn next_holder(lab: &Lab) -> Duration {
    let began = Instant::now();
    lab.run(&["--as", "bob", "lease", "acquire", "board", "--wait=25s"]).await.ok();
    began.elapsed()
}

#[tokio::test]
async fn a_job_that_is_killed_frees_its_board_and_takes_its_processes_with_it() {
    let lab = Lab::start().await;
    let board = board(&lab).await;
    let mut job = lab.spawn(&["run", "board", "--", "sh", "-c", FAMILY]);
    let pids = job.line().await;
    lab.run(&["--as", "bob", "lease", "acquire", "board"]).await.failed(22);
    job.signal("-KILL").await;
    let waited = next_holder(&lab).await;
    assert!(waited < 6 * KEEP_ALIVE, "{waited:?}");
    gone(&pids).await;
    board.shutdown(GRACE).await.unwrap();
    lab.end().await;
}

#[tokio::test]
async fn a_holder_that_sleeps_past_its_deadline_is_refused_on_return_and_told_why() {
    let lab = Lab::start().await;
    let board = lab.exporter("board").await;
    let call = format!("{} call board/power on", env!("CARGO_BIN_EXE_jmp-bus"));
    let script = format!("echo $$; read go; {call} 2>&1; echo ended with $?; sleep 1000");
    let mut command = lab.command(&["run", "board", "--for", "2s", "--", "sh", "-c", &script]);
    let mut job = Running::start(command.stdin(Stdio::piped()));
    let shell = job.line().await;
    job.signal("-STOP").await;
    // The next one has it as soon as the time is over, whether or not the holder knows.
    lab.run(&["--as", "bob", "lease", "acquire", "board", "--wait=25s"]).await.ok();

    job.child.stdin.take().unwrap().write_all(b"\n").await.unwrap();
    let refused = job.line().await;
    assert!(
        refused.contains("board/power refused") && refused.contains("leased by bob"),
        "{refused}"
    );
    let mut said = job.line().await;
    while said.starts_with("hint") {
        said = job.line().await;
    }
    assert_eq!(said, "ended with 12");
    job.signal("-CONT").await;
    let ended = job.ended().await;
    assert_eq!(ended.code, Some(23), "{ended:?}");
    assert!(ended.err.contains("the lease on board was lost: expired"), "{ended:?}");
    gone(&shell).await;
    board.shutdown(GRACE).await.unwrap();
    lab.end().await;
}

#[tokio::test]
async fn a_job_that_is_told_to_stop_may_clean_up_and_frees_its_board_at_once() {
    let lab = Lab::start().await;
    let board = board(&lab).await;
    // The shell waits for its child before it cleans up. The child is told as well, but not if it
    // is just being forked.
    let script = "trap 'echo cleaned; exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    let mut job = lab.spawn(&["run", "board", "--", "sh", "-c", script]);
    assert_eq!(job.line().await, "ready");
    job.signal("-TERM").await;
    assert_eq!(job.line().await, "cleaned");
    assert_eq!(job.ended().await.code, Some(9));
    lab.run(&["--as", "bob", "lease", "acquire", "board", "--wait=5s"]).await.ok();
    board.shutdown(GRACE).await.unwrap();
    lab.end().await;
}

/// A run at a terminal of its own, as a person has it.
fn at_terminal(lab: &Lab, terminal: File, script: &str) -> Running {
    let run = lab.command(&["run", "board", "--", "sh", "-c", script]);
    let run = run.as_std();
    let mut command = Command::new("setsid");
    command.arg("--ctty").arg(run.get_program()).args(run.get_args()).env_clear();
    command.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("PATH", "/usr/bin:/bin").stdin(terminal);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::start(command.kill_on_drop(true))
}

#[tokio::test]
async fn a_terminal_that_is_closed_frees_the_board_even_if_the_command_does_not_care() {
    let lab = Lab::start().await;
    let board = board(&lab).await;
    let (person, terminal) = terminal();
    let mut job = at_terminal(&lab, terminal, "trap '' HUP; echo $$; exec sleep 1000");
    let pid = job.line().await;
    drop(person);
    assert_eq!(job.ended().await.code, Some(129));
    assert!(next_holder(&lab).await < KEEP_ALIVE, "it was given back");
    gone(&pid).await;
    board.shutdown(GRACE).await.unwrap();
    lab.end().await;
}

#[tokio::test]
async fn a_command_at_a_terminal_hears_ctrl_c_once() {
    let lab = Lab::start().await;
    let board = board(&lab).await;
    let (mut person, terminal) = terminal();
    let script = "n=0; trap 'n=$((n+1)); echo int' INT; trap 'exit $n' TERM; echo ready; \
                  while :; do sleep 0.1; done";
    let mut job = at_terminal(&lab, terminal, script);
    assert_eq!(job.line().await, "ready");
    person.write_all(b"\x03").unwrap();
    assert_eq!(job.line().await, "int");
    job.signal("-TERM").await; // behind whatever was passed on before
    assert_eq!(job.ended().await.code, Some(1), "as often as it was told");
    board.shutdown(GRACE).await.unwrap();
    lab.end().await;
}

#[tokio::test]
async fn a_command_that_does_not_exist_holds_nothing() {
    let lab = Lab::start().await;
    let err = lab.run(&["run", "local", "--", "/no/such/command"]).await.failed(1);
    assert!(err.contains("run /no/such/command"), "{err}");
    lab.run(&["--as", "bob", "lease", "acquire", "local", "--wait=5s"]).await.ok();
    lab.end().await;
}

#[tokio::test]
async fn what_is_leased_around_a_run_is_held_inside_of_another() {
    let lab = Lab::start().await;
    let other = lab.exporter("other").await;
    let ours = env!("CARGO_BIN_EXE_jmp-bus");
    let inner =
        format!("echo $JMP_BUS_LEASE; {ours} call local/power on; {ours} call other/power on");
    let run = ["run", "local", "--", ours, "run", "other", "--", "sh", "-ec", &inner];
    let said = lab.run(&run).await.ok();
    let held: Vec<_> = said.trim().split(',').map(|lease| lease.split('=').next()).collect();
    assert_eq!(held, [Some("local"), Some("other")], "{said}");
    other.shutdown(GRACE).await.unwrap();
    lab.end().await;
}
