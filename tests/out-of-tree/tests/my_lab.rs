//! The lab's own program is all of `jmp-bus`, and one kind more.

#![expect(clippy::unwrap_used, reason = "a test that panics says why")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

fn my_lab(home: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_my-lab"));
    for variable in ["NATS_URL", "NATS_CONTEXT", "JMP_BUS_ROOT"] {
        command.env_remove(variable);
    }
    command.args(words).env("HOME", home).env("XDG_RUNTIME_DIR", home);
    command
}

fn run(home: &Path, words: &[&str]) -> Output {
    my_lab(home, words).output().unwrap()
}

#[test]
fn a_kind_of_ones_own_is_listed_checked_and_served() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    let shown = String::from_utf8(run(home, &["drivers", "my-relay"]).stdout).unwrap();
    for part in ["A relay of my lab.", "The relay's file.", "close(closed: bool"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    let (file, relay) = (home.join("exporter.yaml"), home.join("relay"));
    let file_of = |key: &str| {
        let config = format!("{{{key}: {}}}", relay.display());
        let text = format!(
            "metadata: {{name: lab}}\nexport:\n  lamp: {{type: my-relay, config: {config}}}\n"
        );
        fs::write(&file, text).unwrap();
        file.to_str().unwrap()
    };
    let wrong = run(home, &["check", file_of("fiel")]);
    assert_eq!(wrong.status.code(), Some(16));
    let told = String::from_utf8(wrong.stderr).unwrap();
    assert!(told.contains("did you mean \"file\"?"), "{told}");
    let words = file_of("file");
    assert_eq!(run(home, &["check", words]).stdout, b"ok: exporter lab, 2 drivers\n");

    let mut dev = my_lab(home, &["dev", "-q", words]).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(dev.stdout.take().unwrap()).lines();
    while !said.next().unwrap().unwrap().starts_with("lab is up") {}
    let called = run(home, &["call", "lab/lamp", "close"]);
    assert!(called.status.success(), "{called:?}");
    assert_eq!(fs::read(&relay).unwrap(), b"on");
    let told = Command::new("kill").args(["-TERM", &dev.id().to_string()]).status().unwrap();
    assert!(told.success() && dev.wait().unwrap().success());
    assert_eq!(fs::read(&relay).unwrap(), b"off", "it was made safe");
}
