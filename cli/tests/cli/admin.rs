//! `jmp-bus admin` and `whoami`, on a broker that they made.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use crate::{
    fleet::Fleet,
    lab::{program, run},
};

#[tokio::test]
async fn who_is_added_is_let_in_and_who_is_revoked_is_cut_off_at_once() {
    let fleet = Fleet::start().await;
    fleet.add("exporter", "bench").await;
    fleet.add("client", "alice").await;
    let serve = fleet.serve("bench").await;
    fleet.run("alice", &["call", "bench/power", "on"]).await.ok();
    let mut watching = crate::lab::Running::start(
        &mut fleet.command("alice", &["stream", "bench/power", "read", "-o", "json"]),
    );
    assert!(watching.line().await.contains("voltage"));

    fleet.admin(&["add", "client", "alice", "--again", "--out", "alice2.creds"]).await.ok();
    let revoked = fleet.admin(&["revoke", "alice"]).await.ok();
    assert_eq!(revoked, "alice is revoked, with 2 keys\n");
    for creds in ["alice", "alice2"] {
        let refused = fleet.run(creds, &["call", "bench/power", "off"]).await;
        assert_ne!(refused.code, Some(0), "{refused:?}");
        assert!(refused.err.contains("authorization violation"), "{refused:?}");
    }
    let listed = fleet.admin(&["list", "-o", "json"]).await.json();
    let valid = |at: usize| listed[at]["valid"].as_bool().unwrap();
    assert_eq!([valid(0), valid(1), valid(2)], [true, false, false]);
    drop(watching);

    // The name is free again, and the broker was not restarted.
    fs::remove_file(fleet.path("alice.creds")).unwrap();
    fleet.add("client", "alice").await;
    fleet.run("alice", &["call", "bench/power", "off"]).await.ok();
    drop(serve);
}

#[tokio::test]
async fn credentials_say_who_one_is_and_nobody_is_somebody_else_with_them() {
    let fleet = Fleet::start().await;
    for (role, name) in [("client", "alice"), ("exporter", "bench")] {
        fleet.add(role, name).await;
    }
    let me = fleet.run("alice", &["whoami", "-o", "json"]).await.json();
    assert_eq!((&me["name"], &me["role"]), (&"alice".into(), &"client".into()));
    for args in [&["whoami"][..], &["list"], &["call", "bench/power", "on"]] {
        let other = fleet.run("alice", &[args, &["--as", "bob"]].concat()).await.failed(2);
        assert!(other.contains("this takes those of bob"), "{other}");
    }
    fleet.run("alice", &["list", "--as", "alice"]).await.ok();
    let serving = fleet.run("bench", &["list"]).await.failed(2);
    assert!(serving.contains("those of exporter bench"), "{serving}");
    fs::write(fleet.path("x.yaml"), "metadata: {name: bench}\nexport:\n  echo: {type: echo}\n")
        .unwrap();
    let client = fleet.run("alice", &["serve", "x.yaml"]).await.failed(2);
    assert!(
        client.contains("those of client alice") && client.contains("exporter bench"),
        "{client}"
    );
}

#[tokio::test]
async fn a_mistake_is_refused_and_nothing_is_written() {
    let home = tempfile::tempdir().unwrap();
    let admin = async |args: &[&str]| {
        run(program(&home).current_dir(home.path()).arg("admin").args(args)).await
    };
    let missing = admin(&["add", "client", "alice"]).await.failed(1);
    assert!(missing.contains("jmp-bus admin init"), "{missing}");
    admin(&["init"]).await.failed(2);
    admin(&["init", "--host", "localhost"]).await.ok();
    assert!(admin(&["init", "--host", "localhost"]).await.failed(1).contains("there already"));
    for name in ["*", ">", "a.b", "Alice", "", "{{name()}}", "exporter"] {
        admin(&["add", "client", name]).await.failed(2);
    }
    admin(&["add", "boss", "alice"]).await.failed(2);
    admin(&["add", "client", "alice"]).await.ok();
    let taken = admin(&["add", "observer", "alice", "--out", "o.creds"]).await.failed(2);
    assert!(taken.contains("there is client alice already"), "{taken}");
    assert!(!home.path().join("o.creds").exists());
    fs::write(home.path().join("bob.creds"), "precious").unwrap();
    assert!(admin(&["add", "client", "bob"]).await.failed(1).contains("bob.creds"));
    assert_eq!(fs::read_to_string(home.path().join("bob.creds")).unwrap(), "precious");
    let unknown = admin(&["revoke", "carol"]).await.failed(2);
    assert!(unknown.contains("there is alice"), "{unknown}");
    // An exporter is nobody's namesake, but a revocation must know which is meant.
    admin(&["add", "exporter", "alice", "--out", "e.creds"]).await.ok();
    assert!(admin(&["revoke", "alice"]).await.failed(2).contains("--role"));
}

/// Every file below `dir`.
fn files(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => {
                assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{entry:?}");
                files(&entry.path(), found);
            }
            false => found.push(entry.path()),
        }
    }
}

#[tokio::test]
async fn no_secret_is_readable_by_others_or_printed() {
    let home = tempfile::tempdir().unwrap();
    let mut said = String::new();
    for args in [
        &["admin", "init", "--host", "localhost", "-vv"][..],
        &["admin", "add", "client", "alice", "--out", "alice.creds", "-vv"],
        &["admin", "list", "-o", "json", "-vv"],
        &["whoami", "--creds", "alice.creds", "--server", "tls://localhost:1", "-vv"],
        &["call", "a/b", "on", "--creds", "alice.creds", "--server", "nats://127.0.0.1:1", "-vv"],
    ] {
        let mut command = program(&home);
        command.env_remove("JMP_BUS_CLIENT");
        let ran = run(command.current_dir(home.path()).args(args)).await;
        said += &(ran.out + &ran.err);
    }
    let mut found = Vec::new();
    files(&home.path().join(".config/jmp-bus/authority"), &mut found);
    found.push(home.path().join("alice.creds"));
    let mut secrets = 0;
    for file in &found {
        let text = fs::read_to_string(file).unwrap();
        let is_seed = |line: &&str| line.len() == 58 && line.starts_with('S');
        let seeds: Vec<_> = text.lines().filter(is_seed).collect();
        let secret = !seeds.is_empty() || text.contains("PRIVATE KEY");
        let mode = file.metadata().unwrap().permissions().mode();
        assert!(!secret || mode & 0o077 == 0, "{} is readable by others", file.display());
        assert!(seeds.iter().all(|seed| !said.contains(seed)), "{} was printed", file.display());
        secrets += usize::from(secret);
    }
    assert!(
        secrets >= 11,
        "seeds of operator, accounts, roles and a user, and two keys: {secrets}"
    );
}
