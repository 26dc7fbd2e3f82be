//! `jmp-bus list`, `describe`, `doctor`.

use serde_json::json;

use crate::lab::Lab;

#[tokio::test]
async fn what_is_there_is_listed_as_a_tree() {
    let lab = Lab::start().await;
    let out = lab.run(&["list"]).await.ok();
    let lines: Vec<_> = out.lines().collect();
    assert!(lines[0].starts_with("local  up for "), "{out}");
    assert!(lines[1].starts_with("  power  test-relay  relay"), "{out}");
    assert!(lines[1].ends_with("rack=1  switches a board"), "{out}");
    assert_eq!(lines.len(), 3, "{out}");
    let json = lab.run(&["list", "-o", "json", "-l", "rack=2"]).await.json();
    assert_eq!(json[0]["exporter"], "local");
    assert_eq!(json[0]["drivers"][0]["path"], "spare");
    assert_eq!(json[0]["drivers"].as_array().unwrap().len(), 1);
    assert_eq!(lab.run(&["list", "-o", "json", "-l", "rack=3"]).await.json(), json!([]));
    lab.end().await;
}

#[tokio::test]
async fn a_selector_that_nobody_matches_is_told_as_that() {
    let lab = Lab::start().await;
    let ran = lab.run(&["list", "-l", "rack=7"]).await;
    assert_eq!(ran.err, "jmp-bus: no driver here has rack=7\n");
    assert_eq!(ran.ok(), "");
    lab.end().await;
}

#[tokio::test]
async fn who_only_prints_ends_when_nobody_reads_though_nothing_happens() {
    let lab = Lab::start().await;
    for args in [&["events", "-f"][..], &["logs", "-f"], &["list", "--watch"]] {
        let mut printing = lab.spawn(args);
        if args[0] != "logs" {
            printing.line().await; // it is connected, and has nothing more to say
        }
        let ended = printing.hang_up().wait_with_output().await.unwrap();
        assert_eq!((ended.status.code(), &ended.stderr[..]), (Some(141), &b""[..]), "{args:?}");
    }
    lab.end().await;
}

#[tokio::test]
async fn a_watch_tells_who_is_there() {
    let lab = Lab::start().await;
    let mut watch = lab.spawn(&["list", "--watch", "-o", "json"]);
    let here: serde_json::Value = serde_json::from_str(&watch.line().await).unwrap();
    assert_eq!(here["here"]["exporter"], "local");
    watch.signal("-TERM").await;
    assert_eq!(watch.ended().await.code, Some(143));
    lab.end().await;
}

#[tokio::test]
async fn a_driver_is_described_with_its_methods() {
    let lab = Lab::start().await;
    let out = lab.run(&["describe", "local/power"]).await.ok();
    for part in [
        "local/power  test-relay  ",
        "  rack=1\n",
        "  cycle(wait: duration) -> text\n      Switches it off and on again.\n",
        "  count(count: u64?) -> stream of u64\n",
        "  connect() -> byte stream\n",
    ] {
        assert!(out.contains(part), "{part:?} in {out}");
    }
    let json = lab.run(&["describe", "local", "-o", "json"]).await.json();
    assert_eq!(json["driver"]["type"], "test-relay");
    lab.run(&["describe", "local/none"]).await.failed(10);
    lab.end().await;
}

#[tokio::test]
async fn the_doctor_finds_a_well_broker_well_and_missing_streams_missing() {
    let lab = Lab::start().await;
    let out = lab.run(&["doctor"]).await.ok();
    for part in ["ok   broker: ", "ok   jetstream: on", "ok   streams: ", "ok   exporter local: "] {
        assert!(out.contains(part), "{part:?} in {out}");
    }
    let checks = lab.run(&["doctor", "--root", "elsewhere", "-o", "json"]).await;
    assert_eq!(checks.code, Some(18), "{checks:?}");
    let parsed: serde_json::Value = serde_json::from_str(&checks.out).unwrap();
    let bad = |check: &&serde_json::Value| check["ok"] == false && check["check"] == "streams";
    let streams = parsed.as_array().unwrap().iter().find(bad).unwrap();
    assert!(streams["what_to_do"].as_str().unwrap().contains("--make-streams"), "{streams}");
    lab.end().await;
}

#[tokio::test]
async fn what_happened_is_shown_and_followed() {
    let lab = Lab::start().await;
    let mut follow = lab.spawn(&["events", "--follow", "-o", "json", "local"]);
    let up: serde_json::Value = serde_json::from_str(&follow.line().await).unwrap();
    assert_eq!((&up["kind"], &up["exporter"]), (&json!("exporter-up"), &json!("local")));
    assert!(up["at"].as_str().unwrap().ends_with('Z'), "{up}");
    follow.interrupt().await;
    assert_eq!(follow.ended().await.code, Some(130));
    let out = lab.run(&["events"]).await.ok();
    assert!(out.contains("Z  local  exporter-up  "), "{out}");
    assert_eq!(lab.run(&["events", "elsewhere"]).await.ok(), "");
    assert_eq!(lab.run(&["events", "--since", "now"]).await.ok(), "");
    let wrong = lab.run(&["events", "--since", "tomorrow"]).await.failed(2);
    assert!(wrong.contains("a time ago (90s, 2h, 3days)"), "{wrong}");
    let keep = ["doctor", "--make-streams", "--keep-events", "9d"];
    lab.run(&keep).await.ok();
    let wrong = lab.run(&["doctor", "--make-streams", "--keep-logs", "9d,much"]).await.failed(2);
    assert!(wrong.contains("a size such as 256MiB"), "{wrong}");
    lab.end().await;
}
