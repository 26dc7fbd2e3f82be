//! `jmp-bus serve`, `check`, `drivers`, `dev`.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::lab::{Lab, Running, program, run};

/// A configuration that needs no device.
fn exporter_yaml(lab: &Lab, text: &str) -> PathBuf {
    let file = lab.home.path().join("exporter.yaml");
    std::fs::write(&file, text).unwrap();
    file
}

const GOOD: &str = "metadata: {name: desk}\nexport:\n  group:\n    type: composite\n    children: {power: {type: fake-power}}\n";

#[tokio::test]
async fn a_configuration_is_served_until_sigterm() {
    let lab = Lab::start().await;
    let file = exporter_yaml(&lab, GOOD);
    let mut serve = lab.spawn(&["serve", file.to_str().unwrap(), "-q"]);
    assert_eq!(serve.line().await, "desk is up with 3 drivers");
    let listed = lab.run(&["list"]).await.ok();
    assert!(
        listed.contains("desk  up for") && listed.contains("  group/power  fake-power  power"),
        "{listed}"
    );
    let again = lab.run(&["serve", file.to_str().unwrap(), "-q"]).await.failed(12);
    assert!(again.contains("an exporter named desk is up already"), "{again}");
    serve.signal("-TERM").await;
    let ended = serve.ended().await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    let last = lab.run(&["describe", "desk/group/power"]).await;
    assert_eq!(last.err, "jmp-bus: desk is not up; this is what it said last\n");
    assert!(last.ok().contains("  on() -> nothing"));
    lab.run(&["call", "desk/group/power", "on"]).await.failed(10);
    lab.end().await;
}

#[tokio::test]
async fn a_configuration_is_read_anew_when_an_admin_or_a_signal_says_so() {
    let lab = Lab::start().await;
    let file = exporter_yaml(&lab, GOOD);
    let mut serve = lab.spawn(&["serve", file.to_str().unwrap()]);
    assert_eq!(serve.line().await, "desk is up with 3 drivers");
    std::fs::write(&file, GOOD.replace("{power:", "{light:")).unwrap();
    let done = lab.run(&["reload", "desk", "-o", "json"]).await.json();
    assert_eq!(done[0]["done"], "drivers: 1 new, 0 changed, 1 gone, 2 as they were");
    lab.run(&["call", "desk/group/light", "on"]).await.ok();
    lab.run(&["call", "desk/group/power", "on"]).await.failed(10);
    assert!(lab.run(&["list"]).await.ok().contains("group/light"));

    std::fs::write(&file, GOOD.replace("composite", "compsite")).unwrap();
    let wrong = lab.run(&["reload", "desk"]).await.failed(12);
    assert!(wrong.contains("exporter.yaml:4:") && wrong.contains("did you mean"), "{wrong}");
    lab.run(&["reload", "nobody"]).await.failed(10);
    std::fs::write(&file, GOOD).unwrap();
    serve.signal("-HUP").await;
    while lab.run(&["call", "desk/group/power", "on"]).await.code != Some(0) {} // it takes a moment
    serve.signal("-TERM").await;
    assert_eq!(serve.ended().await.code, Some(0));
    lab.end().await;
}

#[tokio::test]
async fn a_mistake_in_a_configuration_is_told_with_its_line() {
    let lab = Lab::start().await;
    let file = exporter_yaml(&lab, GOOD);
    let check = ["check", file.to_str().unwrap()];
    assert_eq!(lab.run(&check).await.ok(), "ok: exporter desk, 3 drivers\n");
    std::fs::write(&file, GOOD.replace("composite", "compsite")).unwrap();
    let wrong = lab.run(&check).await.failed(16);
    assert!(wrong.contains("exporter.yaml:4:"), "{wrong}");
    assert!(wrong.contains("did you mean \"composite\"?"), "{wrong}");
    let json = lab.run(&["check", check[1], "-o", "json"]).await;
    let problems: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&problems["valid"], &problems["problems"][0]["line"]), (&false.into(), &4.into()));
    lab.run(&["serve", check[1]]).await.failed(16);
    lab.end().await;
}

#[tokio::test]
async fn kinds_are_listed_and_shown() {
    let home = tempfile::tempdir().unwrap();
    assert!(run(program(&home).arg("drivers")).await.ok().contains("composite"));
    let shown = run(program(&home).args(["drivers", "composite"])).await.ok();
    assert!(shown.contains("children: configured"), "{shown}");
    let json = run(program(&home).args(["drivers", "composite", "-o", "json"])).await.json();
    assert_eq!(json["kind"], "composite");
    let typo = run(program(&home).args(["drivers", "compsite"])).await.failed(2);
    assert!(typo.contains("did you mean composite?"), "{typo}");
}

#[tokio::test]
async fn other_commands_find_the_desk_while_it_is_up() {
    let home = tempfile::tempdir().unwrap();
    let mut dev = Running::start(program(&home).args(["dev", "-q"]));
    let broker = dev.line().await;
    assert!(broker.ends_with("this user's other commands find it by themselves"), "{broker}");
    assert!(dev.line().await.starts_with("bench is up with "));
    let on = run(program(&home).args(["call", "bench/power", "on"])).await;
    assert!(on.err.starts_with("jmp-bus: using the broker of `jmp-bus dev` at nats://"), "{on:?}");
    on.ok();
    dev.interrupt().await;
    assert_eq!(dev.ended().await.code, Some(0));
    assert!(!home.path().join("jmp-bus/dev.json").exists());
    run(program(&home).args(["call", "bench/power", "on"])).await.failed(15);
}

#[tokio::test]
async fn what_a_killed_desk_has_left_is_not_believed() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("jmp-bus/dev.json");
    std::fs::create_dir(home.path().join("jmp-bus")).unwrap();
    std::fs::write(&file, r#"{"url":"nats://127.0.0.1:1","token_file":"/no/such","pid":1}"#)
        .unwrap();
    let none = run(program(&home).args(["call", "bench/power", "on"])).await.failed(15);
    assert!(none.starts_with("jmp-bus: no broker is named\n"), "{none}");
    assert!(!file.exists());
}

#[tokio::test]
async fn a_desk_that_is_killed_takes_its_broker_along_and_its_files_go_with_the_next() {
    let home = tempfile::tempdir().unwrap();
    let tmp = home.path().join("tmp");
    std::fs::create_dir(&tmp).unwrap();
    let files = || {
        let entries = std::fs::read_dir(&tmp).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect::<BTreeSet<_>>()
    };
    let desk = || Running::start(program(&home).env("TMPDIR", &tmp).args(["dev", "-o", "json"]));
    let mut dev = desk();
    let told: serde_json::Value = serde_json::from_str(&dev.line().await).unwrap();
    let broker = told["server"].as_str().unwrap().strip_prefix("nats://").unwrap();
    dev.line().await; // its exporter is up
    let of_the_first = files();
    assert_eq!(of_the_first.len(), 2, "{of_the_first:?}");

    dev.signal("-KILL").await;
    dev.ended().await;
    // Its broker's directory goes last of what goes by itself.
    let gone = async { while TcpStream::connect(broker).await.is_ok() || files().len() > 1 {} };
    timeout(Duration::from_secs(10), gone).await.expect("its broker ends");
    assert_eq!(files().len(), 1);

    let mut next = desk();
    for _ in 0..2 {
        next.line().await;
    }
    let of_the_next = files();
    assert_eq!(of_the_next.len(), 2, "{of_the_next:?}");
    assert!(of_the_next.is_disjoint(&of_the_first), "{of_the_next:?}");
    next.interrupt().await;
    assert_eq!(next.ended().await.code, Some(0));
    assert_eq!(files(), BTreeSet::new());
}

#[tokio::test]
async fn a_bench_is_one_object_and_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let tmp = home.path().join("tmp");
    std::fs::create_dir(&tmp).unwrap();
    let args = ["bench", "--rounds", "1", "--scale", "0.01", "call_latency", "-o", "json"];
    let told = run(program(&home).env("TMPDIR", &tmp).args(args)).await.json();
    let row = &told["call_latency"];
    assert!(row["floor"].as_f64().is_some_and(|floor| floor > 0.0), "{told}");
    assert!(row["jmp_bus"].is_number() && row["ratio"].is_number(), "{told}");
    assert_eq!(row["unit"], "us");
    assert_eq!(std::fs::read_dir(&tmp).unwrap().count(), 0);
}

#[tokio::test]
async fn what_a_served_exporter_says_is_on_the_bus() {
    let lab = Lab::start().await;
    let file = exporter_yaml(&lab, GOOD);
    let mut serve = lab.spawn(&["serve", file.to_str().unwrap(), "-q"]);
    assert_eq!(serve.line().await, "desk is up with 3 drivers");
    let mut follow = lab.spawn(&["logs", "desk", "--follow", "-o", "json"]);
    let said: serde_json::Value = serde_json::from_str(&follow.line().await).unwrap();
    assert!(said["text"].as_str().unwrap().starts_with("exporter is up"), "{said}");
    assert_eq!((&said["exporter"], &said["level"]), (&"desk".into(), &"info".into()));
    follow.interrupt().await;
    assert_eq!(follow.ended().await.code, Some(130));
    let shown = lab.run(&["logs"]).await.ok();
    assert!(shown.contains("Z  info   desk  exporter is up"), "{shown}");
    assert_eq!(lab.run(&["logs", "--level", "error"]).await.ok(), "");
    assert_eq!(lab.run(&["logs", "desk/group"]).await.ok(), "");
    let none = lab.run(&["logs", "desk/grup"]).await.failed(10);
    assert!(none.contains("desk has: desk/group"), "{none}");
    lab.run(&["logs", "--level", "loud"]).await.failed(2);
    serve.signal("-TERM").await;
    assert_eq!(serve.ended().await.code, Some(0));
    lab.end().await;
}

/// What an HTTP request gives: the whole answer.
async fn ask(address: &str, request: &[u8]) -> String {
    let mut tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    tcp.write_all(request).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn figures_are_given_to_scrapers_and_nothing_to_others() {
    let lab = Lab::start().await;
    let file = exporter_yaml(&lab, GOOD);
    let arguments = ["serve", file.to_str().unwrap(), "--metrics", "0", "-o", "json"];
    let mut serve = lab.spawn(&arguments);
    let up: serde_json::Value = serde_json::from_str(&serve.line().await).unwrap();
    let address = up["metrics"].as_str().unwrap().to_owned();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    for _ in 0..3 {
        lab.run(&["call", "desk/group/power", "on"]).await.ok();
    }
    lab.run(&["call", "desk/group/power", "explode"]).await.failed(12);
    let page = ask(&address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let (head, body) = page.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"),
        "{head}"
    );
    for line in [
        "jmp_bus_calls_total{driver=\"desk/group/power\",method=\"on\",kind=\"call\",outcome=\"ok\"} 3",
        "jmp_bus_call_duration_seconds_count{method=\"on\"} 3",
        "jmp_bus_call_duration_seconds_bucket{method=\"on\",le=\"+Inf\"} 3",
        "jmp_bus_refusals_total{reason=\"unknown-method\"} 1",
        "jmp_bus_driver_up{driver=\"desk/group\"} 1",
        "jmp_bus_streams_open 0",
    ] {
        assert!(body.lines().any(|l| l == line), "{line} in {body}");
    }
    for (request, status) in [
        (&b"HEAD /metrics HTTP/1.1\r\n\r\n"[..], "HTTP/1.1 200 OK"),
        (b"GET /etc/passwd HTTP/1.1\r\n\r\n", "HTTP/1.1 404 "),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 405 "),
        (b"\x16\x03\x01\r\n\r\n", "HTTP/1.1 400 "),
        (&[b'x'; 20_000], "HTTP/1.1 431 "),
    ] {
        let answer = ask(&address, request).await;
        assert!(answer.starts_with(status), "{answer}");
    }
    lab.run(&["run", "desk", "--", "true"]).await.ok();
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(&address).await.unwrap()); // and never a word
    }
    lab.run(&["call", "desk/group/power", "on"]).await.ok();
    let page = ask(&address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    for line in [
        "jmp_bus_lease_events_total{what=\"granted\"} 1",
        "jmp_bus_lease_events_total{what=\"released\"} 1",
        "jmp_bus_lease_boards{state=\"free\"} 1",
        "jmp_bus_lease_waiting 0",
        "jmp_bus_lease_wait_seconds_count 1",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} in {page}");
    }
    drop(silent);
    let taken = ["serve", file.to_str().unwrap(), "--metrics", &address];
    assert!(lab.run(&taken).await.failed(1).contains("cannot listen on"));
    serve.signal("-TERM").await;
    assert_eq!(serve.ended().await.code, Some(0));
    lab.end().await;
}

#[tokio::test]
async fn a_service_manager_is_told_when_it_is_up_that_it_is_alive_and_when_it_stops() {
    let lab = Lab::start().await;
    let file = exporter_yaml(&lab, GOOD);
    let path = lab.home.path().join("notify");
    let socket = tokio::net::UnixDatagram::bind(&path).unwrap();
    let mut command = lab.command(&["serve", file.to_str().unwrap(), "-q"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "20000");
    let serve = Running::start(&mut command);
    let told = async || {
        let mut message = [0; 200];
        let received =
            tokio::time::timeout(std::time::Duration::from_secs(30), socket.recv(&mut message));
        let length = received.await.expect("a message in time").unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    assert_eq!(told().await, "READY=1\nSTATUS=desk serves 3 drivers");
    for _ in 0..3 {
        assert_eq!(told().await, "WATCHDOG=1");
    }
    serve.signal("-TERM").await;
    while !told().await.starts_with("STOPPING=1") {}
    assert_eq!(serve.ended().await.code, Some(0));
    lab.end().await;
}
