//! `jmp-bus demo`: it tells the truth about what happened, and leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "a test that panics says why")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, Command},
    time::{interval, timeout},
};

/// Nothing here takes so long; a test that waits for ever says so instead.
const PATIENCE: Duration = Duration::from_secs(60);

/// A machine of its own, as far as a demo can tell: its home and its temporary files.
struct Machine(TempDir);

impl Machine {
    async fn new() -> Self {
        // A broker is there already: fetching one is another test's concern.
        runtime::LocalBroker::find(&runtime::BrokerOptions::default()).await.unwrap();
        let machine = Self(tempfile::tempdir().unwrap());
        fs::create_dir(machine.0.path().join("tmp")).unwrap();
        machine
    }

    /// On which boards that are shells find this instead of `uname`, the first that they call.
    async fn with_uname(script: &str) -> Self {
        let machine = Self::new().await;
        let bin = machine.0.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let script = format!("#!/bin/sh\n[ \"$PS1\" ] || exec /bin/uname \"$@\"\n{script}\n");
        fs::write(bin.join("uname"), script).unwrap();
        fs::set_permissions(bin.join("uname"), fs::Permissions::from_mode(0o755)).unwrap();
        machine
    }

    fn demo(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jmp-bus"));
        let home = self.0.path();
        let path = std::env::var_os("PATH").unwrap();
        let path = format!("{}:{}", home.join("bin").display(), path.to_str().unwrap());
        command.arg("demo").args(words).env("PATH", path).env("TMPDIR", home.join("tmp"));
        command.env("HOME", home).env("XDG_RUNTIME_DIR", home).env_remove("JMP_BUS_ROOT");
        command.env("XDG_CACHE_HOME", cache()).env_remove("PS1");
        // Nobody's broker but its own, whatever else is named.
        command.env("NATS_URL", "nats://127.0.0.1:1").env("NATS_CREDS", "/no/such");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        command
    }

    async fn run(&self, words: &[&str]) -> Output {
        let output = timeout(PATIENCE, self.demo(words).output()).await;
        output.expect("it ends").unwrap()
    }

    /// The processes that a demo has started, by their temporary directory.
    fn processes(&self) -> Vec<String> {
        let ours = format!("TMPDIR={}", self.0.path().join("tmp").display());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
            if contains(&read("environ"), ours.as_bytes()) {
                found.push(String::from_utf8_lossy(&read("cmdline")).replace('\0', " "));
            }
        }
        found
    }

    #[track_caller]
    fn is_as_before(&self) {
        assert_eq!(self.processes(), Vec::<String>::new());
        let left: Vec<_> = fs::read_dir(self.0.path().join("tmp")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(!self.0.path().join("jmp-bus/dev.json").exists());
    }
}

/// Where this user's programs keep what they have fetched.
fn cache() -> PathBuf {
    let named = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    named.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache"))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Waits until a demo has said something.
async fn says(demo: &mut Child, text: &str) -> String {
    let mut out = BufReader::new(demo.stdout.take().unwrap());
    let mut said = String::new();
    let read = async {
        while !said.contains(text) {
            assert_ne!(out.read_line(&mut said).await.unwrap(), 0, "{said}");
        }
    };
    timeout(PATIENCE, read).await.unwrap();
    demo.stdout = Some(out.into_inner());
    said
}

async fn signal(demo: &Child, signal: &str) {
    let pid = demo.id().unwrap().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().await.unwrap().success());
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_demo_boots_firmware_and_leaves_nothing_behind() {
    let machine = Machine::new().await;
    let ran = machine.run(&["--board", "qemu", "--output", "json"]).await;
    if ran.status.code() == Some(1) && text(&ran.stderr).contains("u-boot-qemu") {
        eprintln!("skipped: {}", text(&ran.stderr));
        return;
    }
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    let told: Json = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((&told["ok"], &told["board"]), (&true.into(), &"qemu".into()));
    let steps = told["steps"].as_array().unwrap();
    let seen = |part: &str| {
        steps.iter().any(|s| s["ok"] == true && s["seen"].as_str().unwrap().contains(part))
    };
    for part in ["U-Boot 20", "==> 534c7266", "5 V", "8 of 8", "has ended"] {
        assert!(seen(part), "{part}: {told}");
    }
    machine.is_as_before();
}

#[tokio::test]
async fn a_demo_on_a_shell_tells_each_step_and_how_to_get_firmware() {
    let machine = Machine::new().await;
    let ran = machine.run(&["--board", "shell"]).await;
    let out = text(&ran.stdout);
    assert_eq!((ran.status.code(), text(&ran.stderr).as_str()), (Some(0), ""), "{out}");
    assert!(out.lines().next().unwrap().contains("apt-get install"), "{out}");
    assert!(out.contains("gives `4062251224 256`"), "{out}");
    assert!(out.ends_with("all of it happened: 19 steps\n"), "{out}");
    machine.is_as_before();
}

#[tokio::test]
async fn a_demo_without_a_broker_fails() {
    let machine = Machine::new().await;
    let ran = machine.run(&["--board", "shell", "--nats-server", "/no/such"]).await;
    let (out, err) = (text(&ran.stdout), text(&ran.stderr));
    assert_eq!(ran.status.code(), Some(19), "{err}");
    assert!(out.contains("a broker of our own: FAILED"), "{out}");
    assert!(err.contains("/no/such"), "{err}");
    machine.is_as_before();
}

#[tokio::test]
async fn a_step_that_fails_is_told_with_what_was_seen_and_the_board_goes_off() {
    let machine = Machine::with_uname("echo Plan 9").await;
    let ran = machine.run(&["--board", "shell", "--output", "json"]).await;
    assert_eq!(ran.status.code(), Some(19), "{ran:?}");
    let told: Json = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(told["ok"], false);
    let failed: Vec<_> =
        told["steps"].as_array().unwrap().iter().filter(|step| step["ok"] == false).collect();
    assert_eq!((failed.len(), &failed[0]["step"]), (1, &"it boots".into()), "{told}");
    assert!(failed[0]["seen"].as_str().unwrap().contains("Plan 9"), "{told}");
    machine.is_as_before();
}

#[tokio::test]
async fn an_interrupt_in_the_middle_cleans_up() {
    let machine = Machine::with_uname("exec sleep 1000").await;
    let mut demo = machine.demo(&["--board", "shell"]).spawn().unwrap();
    says(&mut demo, "power on").await;
    assert!(machine.processes().iter().any(|process| process.contains("serve")));
    signal(&demo, "-INT").await;
    let ended = timeout(PATIENCE, demo.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{ended:?}");
    machine.is_as_before();
}

#[tokio::test]
async fn a_demo_that_is_killed_leaves_no_process_and_its_files_go_with_the_next() {
    let machine = Machine::with_uname("exec sleep 1000").await;
    let mut demo = machine.demo(&["--board", "shell"]).spawn().unwrap();
    says(&mut demo, "power on").await;
    demo.kill().await.unwrap();
    let mut look = interval(Duration::from_millis(20));
    let gone = async {
        while !machine.processes().is_empty() {
            look.tick().await;
        }
    };
    timeout(PATIENCE, gone).await.unwrap_or_else(|_| panic!("{:?}", machine.processes()));
    assert!(fs::read_dir(machine.0.path().join("tmp")).unwrap().next().is_some());
    machine.run(&["--board", "shell", "--nats-server", "/no/such"]).await;
    machine.is_as_before();
}

#[tokio::test]
async fn a_demo_that_is_kept_is_found_by_other_commands_until_it_is_interrupted() {
    let machine = Machine::new().await;
    let mut demo = machine.demo(&["--board", "shell", "--keep"]).spawn().unwrap();
    let said = says(&mut demo, "relay --all").await;
    assert!(said.contains("  jmp-bus call demo/board on\n"), "{said}");
    let mut call = Command::new(env!("CARGO_BIN_EXE_jmp-bus"));
    call.args(["call", "demo/board", "status"]).env("XDG_RUNTIME_DIR", machine.0.path());
    call.env("TMPDIR", Path::new("/tmp")).env_remove("NATS_URL").env_remove("NATS_CONTEXT");
    let status = call.output().await.unwrap();
    assert!(text(&status.stdout).contains("\"running\": false"), "{status:?}");
    signal(&demo, "-INT").await;
    let mut rest = String::new();
    demo.stdout.as_mut().unwrap().read_to_string(&mut rest).await.unwrap();
    assert_eq!(timeout(PATIENCE, demo.wait()).await.unwrap().unwrap().code(), Some(0), "{rest}");
    assert!(rest.ends_with("all of it happened: 19 steps\n"), "{rest}");
    machine.is_as_before();
}
