//! `jmp-bus admin` and `whoami`, on a broker that they made.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

use crate::{
    fleet::Fleet,
    lab::{program, run},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

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
        let refused = fleet.run(creds, &["call", "bench/power", "off"]).await.failed(21);
        assert!(refused.contains("does not accept these credentials"), "{refused}");
    }
    let cut_off = watching.ended().await;
    assert_ne!(cut_off.code, Some(0), "{cut_off:?}");
    assert!(cut_off.err.contains("these credentials were revoked"), "{cut_off:?}");
    let listed = fleet.admin(&["list", "-o", "json"]).await.json();
    let valid = |at: usize| listed[at]["valid"].as_bool().unwrap();
    assert_eq!([valid(0), valid(1), valid(2)], [true, false, false]);

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
async fn what_the_broker_does_not_allow_is_told_at_once_and_by_name() {
    let fleet = Fleet::start().await;
    for (role, name) in [("exporter", "bench"), ("client", "alice"), ("observer", "eve")] {
        fleet.add(role, name).await;
    }
    let serve = fleet.serve("bench").await;
    let began = std::time::Instant::now();
    let call = fleet.run("eve", &["call", "bench/power", "on"]).await.failed(21);
    let said =
        "jmp-bus: bench/power: not allowed by the broker: eve may not publish jmp.v1.c.eve.call.";
    assert!(call.starts_with(said), "{call}");
    let stream = fleet.run("eve", &["stream", "bench/power", "read"]).await.failed(21);
    assert!(stream.contains("eve may not publish"), "{stream}");
    let json = fleet.run("eve", &["call", "bench/power", "on", "-o", "json"]).await;
    let error: serde_json::Value = serde_json::from_str(&json.err).unwrap();
    assert_eq!((&error["exit_code"], &error["may_have_acted"]), (&21.into(), &false.into()));

    // Another's record, followed or not.
    fleet.add("client", "bob").await;
    for how in ["--attach", "--replay"] {
        let args = ["stream", how, "00000000000000ab-1", "--of", "alice"];
        let record = fleet.run("bob", &args).await.failed(21);
        assert!(
            record.contains("record of call 00000000000000ab-1 of alice: not allowed"),
            "{record}"
        );
    }
    // Ten seconds is the patience of what waits for the broker; each of these took milliseconds.
    assert!(began.elapsed().as_secs() < 8, "{:?}", began.elapsed());
    fleet.run("alice", &["call", "bench/power", "on"]).await.ok();
    drop(serve);
}

#[tokio::test]
async fn files_are_stored_by_whoever_lends_and_listed_and_removed_by_admins() {
    let fleet = Fleet::start().await;
    for (role, name) in [("client", "alice"), ("observer", "eve"), ("admin", "root")] {
        fleet.add(role, name).await;
    }
    fs::write(fleet.path("disk.img"), "an image").unwrap();
    let put = fleet.run("alice", &["put", "disk.img", "-o", "json"]).await.json();
    assert_eq!(put["bytes"], 8);
    for (who, args) in [
        ("alice", &["files"][..]),
        ("alice", &["files", "remove", "disk.img"]),
        ("eve", &["files", "list"]),
        ("eve", &["put", "disk.img"]),
    ] {
        let said = fleet.run(who, args).await.failed(21);
        assert!(said.contains(&format!("not allowed by the broker: {who} may not ")), "{said}");
    }
    let listed = fleet.run("root", &["files"]).await.ok();
    assert!(listed.starts_with("alice  disk.img  8 B  "), "{listed}");
    fleet.run("root", &["files", "remove", "disk.img", "--of", "alice"]).await.ok();
    assert_eq!(fleet.run("root", &["files", "-o", "json"]).await.json(), serde_json::json!([]));
    let anew = fleet.run("alice", &["put", "disk.img", "-o", "json"]).await.json();
    assert!(anew["sent"].as_u64().unwrap() > 0, "{anew}");
}

#[tokio::test]
async fn who_is_not_let_in_is_told_why() {
    let fleet = Fleet::start().await;
    fleet.add("client", "alice").await;
    let brief = ["add", "client", "brief", "--expires", "1s"];
    fleet.admin(&brief).await.ok();
    let list = async |mut command: tokio::process::Command| run(command.arg("list")).await;
    let mut nobody = fleet.command("alice", &[]);
    nobody.env_remove("NATS_CREDS");
    let nobody = list(nobody).await.failed(21);
    assert!(nobody.contains("does not accept these credentials"), "{nobody}");
    let mut stranger = fleet.command("alice", &[]);
    stranger.env_remove("NATS_CA");
    let stranger = list(stranger).await.failed(15);
    assert!(stranger.contains("UnknownIssuer") && stranger.contains("--tlsca"), "{stranger}");
    let mut misnamed = fleet.command("alice", &[]);
    misnamed.env("NATS_URL", format!("tls://[::ffff:127.0.0.1]:{}", fleet.port));
    let misnamed = list(misnamed).await.failed(15);
    assert!(misnamed.contains("--tlsca"), "{misnamed}");
    // The broker's clock and ours are one: wait until the second is over.
    while fleet.run("brief", &["whoami", "-o", "json"]).await.json()["expired"] == false {}
    let expired = fleet.run("brief", &["list"]).await.failed(21);
    assert!(expired.contains("these credentials have expired"), "{expired}");
    assert!(expired.contains("jmp-bus admin add"), "{expired}");
    fleet.run("alice", &["list"]).await.ok();
}

/// The broker gets a certificate that was made a year ago.
fn certify(fleet: &Fleet, ends: SystemTime) {
    let authority = |file: &str| fleet.path(".config/jmp-bus/authority").join(file);
    let read = |file: &str| fs::read_to_string(authority(file)).unwrap();
    let ca_key = rcgen::KeyPair::from_pem(&read("keys/ca.key")).unwrap();
    let mut ca = rcgen::CertificateParams::default();
    ca.distinguished_name = rcgen::DistinguishedName::new();
    let name = "jmp-bus certificate authority";
    ca.distinguished_name.push(rcgen::DnType::CommonName, name);
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_before = (SystemTime::now() - DAY * 365).into();
    params.not_after = ends.into();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    fs::write(authority("broker/tls/server.pem"), certificate.pem()).unwrap();
    fs::write(authority("broker/tls/server.key"), key.serialize_pem()).unwrap();
    fleet.reload_broker();
}

#[tokio::test]
async fn the_doctor_warns_before_something_ends_and_says_when_it_has() {
    let fleet = Fleet::start().await;
    fleet.add("client", "alice").await;
    fleet.add("exporter", "bench").await;
    // Until the broker has read what it got.
    let doctor = async |name: &str, shows: &str| loop {
        let ran = fleet.run(name, &["doctor"]).await;
        if ran.out.contains(shows) {
            return ran;
        }
    };
    let fresh = doctor("alice", "ok   certificate: until ").await.ok();
    assert!(!fresh.contains("!! "), "{fresh}");

    certify(&fleet, SystemTime::now() + DAY * 20 + DAY / 2);
    for name in ["alice", "bench"] {
        let soon = doctor(name, "20 days from now").await.ok();
        assert!(soon.contains("!!   certificate: until "), "{soon}");
        assert!(soon.contains("`jmp-bus admin renew-certificate`"), "{soon}");
    }
    let checks = fleet.run("alice", &["doctor", "-o", "json"]).await.json();
    let warned: Vec<_> =
        checks.as_array().unwrap().iter().filter(|check| check["warning"] == true).collect();
    assert_eq!(warned.len(), 1, "{checks}");
    assert_eq!((&warned[0]["check"], &warned[0]["ok"]), (&"certificate".into(), &true.into()));

    // Then nobody gets in, and everybody hears why.
    certify(&fleet, SystemTime::now() - DAY);
    let over = doctor("alice", "BAD  certificate: expired on ").await;
    assert_eq!(over.code, Some(18), "{over:?}");
    assert!(over.out.contains("BAD  broker: ") && over.out.contains("admin renew"), "{over:?}");
    let call = fleet.run("alice", &["list"]).await.failed(15);
    assert!(call.contains("`jmp-bus admin renew-certificate`"), "{call}");

    // It does what it says, though the account was changed meanwhile.
    fleet.add("client", "bob").await;
    fleet.admin(&["revoke", "bob"]).await.failed(15);
    fleet.admin(&["renew-certificate"]).await.ok();
    fleet.reload_broker();
    doctor("alice", "ok   certificate: until ").await.ok();
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
    let renewed = admin(&["renew-certificate", "-o", "json"]).await.json();
    assert_eq!(renewed["hosts"][0], "localhost");
    admin(&["renew-certificate", "--host", "no host é"]).await.failed(2);
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

#[tokio::test]
async fn the_doctor_looks_from_every_seat() {
    let fleet = Fleet::start().await;
    let users =
        [("exporter", "bench"), ("client", "alice"), ("observer", "eve"), ("admin", "root")];
    for (role, name) in users {
        fleet.add(role, name).await;
    }
    let serve = fleet.serve("bench").await;
    for (role, name) in users {
        let checks = fleet.run(name, &["doctor", "-o", "json"]).await.json();
        let found = |wanted: &str| {
            let check = checks.as_array().unwrap().iter().find(|check| check["check"] == wanted);
            check.unwrap_or_else(|| panic!("{name}: no {wanted} in {checks}"))["found"].to_string()
        };
        assert!(found("credentials").contains(&format!("{role} {name}")), "{checks}");
        assert!(found("permissions").contains("all tried"), "{checks}");
        assert!(found("tls").contains("encrypted"), "{checks}");
        found("streams");
        if name != "bench" {
            assert!(found("exporter bench").contains("answers"), "{checks}");
            assert!(found("clock").contains("to a heartbeat"), "{checks}");
        }
    }
    // Under a root that is not the role's, everything is denied, and that is said.
    let other = fleet.run("alice", &["doctor", "--root", "other"]).await;
    assert_eq!(other.code, Some(18), "{other:?}");
    assert!(
        other.out.contains("BAD  permissions") && other.out.contains("admin upgrade"),
        "{other:?}"
    );
    drop(serve);
}
