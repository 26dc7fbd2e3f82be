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
    let waits = ["--as", "bob", "lease", "acquire", "local", "--wait", "200ms"];
    let waited = lab.run(&waits).await.failed(22);
    assert!(waited.contains("cli has it\n"), "{waited}");
    assert!(
        waited.starts_with("jmp-bus: waiting for local; cli has it for another 1h"),
        "{waited}"
    );

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
async fn what_is_drained_is_granted_to_nobody_and_what_is_maintained_is_its_admins_to_use() {
    let lab = Lab::start().await;
    lab.run(&["lease", "acquire", "local", "--for", "1h"]).await.ok();
    let fan = ["--as", "boss", "maintenance", "local", "--reason", "a new fan", "-o", "json"];
    let done = lab.run(&fan).await.json();
    let text = done[0]["done"].as_str().expect("what was done");
    assert!(text.ends_with("cli still has the tree"), "{text}");
    lab.run(&["call", "local/power", "on"]).await.ok();
    let mut waiting = lab.spawn(&["--as", "boss", "drain", "local", "--wait"]);
    assert!(waiting.note().await.contains("waits for cli (local)"));
    lab.run(&["lease", "release", "local"]).await.ok();
    assert_eq!(waiting.ended().await.code, Some(0));
    lab.run(&["--as", "boss", "call", "local/power", "on"]).await.failed(12);

    lab.run(&fan).await.ok();
    let busy = lab.run(&["lease", "acquire", "local"]).await.failed(22);
    assert!(busy.contains("in maintenance by boss: a new fan"), "{busy}");
    let refused = lab.run(&["call", "local/power", "on"]).await.failed(12);
    assert!(refused.contains("in maintenance by boss"), "{refused}");
    lab.run(&["--as", "boss", "call", "local/power", "on"]).await.ok();
    let board = lab.run(&["lease", "list", "local", "-o", "json"]).await.json();
    assert_eq!(board[0]["state"], "closed");
    let events = lab.run(&["events", "-o", "json"]).await.ok();
    assert!(events.contains("\"maintenance\""), "{events}");

    let mut next = lab.spawn(&["lease", "acquire", "local", "--wait=20s"]);
    assert!(lab.run(&["--as", "boss", "resume", "local"]).await.ok().contains("granted again"));
    assert!(next.line().await.starts_with("local  for "));
    assert!(lab.run(&["--as", "boss", "resume", "local"]).await.ok().contains("was not drained"));
    let long = "x".repeat(300);
    lab.run(&["--as", "boss", "drain", "local", "--reason", &long]).await.failed(12);
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
    lab.run(&["lease", "acquire", "--set", "local,local/power"]).await.failed(22);
    lab.run(&["lease", "release", "local"]).await.ok();
    lab.run(&["lease", "acquire", "--set", "local,nobody"]).await.failed(10);
    // Two drivers of one board are one board.
    let set = ["lease", "acquire", "--set", "local,local/power", "--wait=5s", "-o", "json"];
    assert_eq!(lab.run(&set).await.json().as_array().unwrap().len(), 1);
    lab.run(&["lease", "acquire"]).await.failed(2);
    lab.end().await;
}

/// A place over two exporters, and what it becomes.
fn places(lab: &Lab, text: &str) -> String {
    let file = lab.home.path().join("places.yaml");
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_place_is_leased_as_a_whole_or_not_at_all() {
    let lab = Lab::start().await;
    let other = lab.exporter("other").await;
    let rpi = "rpi: {relay: local, power: local/power, spare: other/spare}\n";
    let away = "away: {power: local/power, serial: nobody/uart0}\nodd: {power: local/none}\n";
    let file = places(&lab, &format!("{rpi}{away}"));
    lab.run(&["place", "apply", &file]).await.ok();

    let taken = lab.run(&["lease", "acquire", "@rpi", "-o", "json"]).await.json();
    let boards: Vec<_> = taken.as_array().unwrap().iter().map(|l| l["address"].clone()).collect();
    assert_eq!((boards, &taken[0]["place"]), (vec!["local".into(), "other".into()], &"rpi".into()));
    let shown = lab.run(&["lease", "list"]).await.ok();
    assert_eq!(shown.lines().filter(|line| line.ends_with("  @rpi")).count(), 2, "{shown}");
    let listed = lab.run(&["lease", "list", "-o", "json"]).await.json();
    assert_eq!(listed[0]["lease"]["place"], "rpi");
    let busy = lab.run(&["--as", "bob", "lease", "acquire", "@rpi"]).await.failed(22);
    assert!(busy.contains("leased by cli"), "{busy}");

    // Half of it is had by another: nothing of it is held.
    lab.run(&["lease", "release", "other"]).await.ok();
    lab.run(&["--as", "bob", "lease", "acquire", "other", "--wait=10s"]).await.ok();
    lab.run(&["lease", "release", "@rpi"]).await.ok();
    lab.run(&["lease", "acquire", "@rpi", "--wait=1s"]).await.failed(22);
    lab.run(&["--as", "carol", "lease", "acquire", "local", "--wait=10s"]).await.ok();
    lab.run(&["--as", "carol", "lease", "release", "local"]).await.ok();
    lab.run(&["--as", "bob", "lease", "release", "@rpi"]).await.ok();

    let none = lab.run(&["lease", "release", "@rpi"]).await.failed(12);
    assert!(none.contains("@rpi refused: cli holds no board of it"), "{none}");
    let wrong = lab.run(&["lease", "acquire", "@rpy"]).await.failed(10);
    assert!(wrong.contains("there is no place @rpy\nhint: did you mean @rpi?"), "{wrong}");
    let wrong = lab.run(&["lease", "acquire", "@away"]).await.failed(10);
    assert!(wrong.contains("@away/serial: no exporter nobody"), "{wrong}");
    let wrong = lab.run(&["run", "@odd", "--", "true"]).await.failed(10);
    assert!(wrong.contains("@odd/power: local/none refused: local has no driver"), "{wrong}");
    other.shutdown(std::time::Duration::from_secs(5)).await.unwrap();
    lab.end().await;
}

#[tokio::test]
async fn a_place_that_changes_under_its_lease_is_given_back_as_it_was_leased() {
    let lab = Lab::start().await;
    let other = lab.exporter("other").await;
    let file = places(&lab, "rpi: {power: local/power}\n");
    lab.run(&["place", "apply", &file]).await.ok();
    let script = format!(
        "{OURS} call @rpi/power on && {OURS} place apply {} && {OURS} call @rpi/power on",
        places(&lab, "rpi: {power: other/power}\n")
    );
    let ran = lab.run(&["run", "@rpi", "--wait=5s", "--", "sh", "-c", &script]).await;
    let err = ran.failed(12);
    assert!(err.contains("@rpi/power is other/power now, which was no part of @rpi"), "{err}");

    lab.run(&["lease", "acquire", "@rpi", "--wait=10s"]).await.ok();
    lab.run(&["place", "apply", &places(&lab, "rpi: {power: local/power}\n")]).await.ok();
    let renewed = lab.run(&["lease", "renew", "@rpi", "--for", "1h", "-o", "json"]).await.json();
    assert_eq!(renewed[0]["address"], "other", "what is held of it");
    lab.run(&["place", "remove", "rpi"]).await.ok();
    lab.run(&["--as", "bob", "lease", "release", "@rpi"]).await.failed(10);
    assert_eq!(lab.run(&["lease", "release", "@rpi"]).await.ok(), "other: released\n");
    other.shutdown(std::time::Duration::from_secs(5)).await.unwrap();
    lab.end().await;
}

#[tokio::test]
async fn two_places_that_share_a_board_in_opposite_order_are_both_served() {
    let lab = Lab::start().await;
    let other = lab.exporter("other").await;
    let two = "a: {x: local/power, y: other/power}\nb: {x: other/power, y: local/power}\n";
    lab.run(&["place", "apply", &places(&lab, two)]).await.ok();
    let one = ["run", "@a", "--wait=25s", "--", "true"];
    let two = ["--as", "bob", "run", "@b", "--wait=25s", "--", "true"];
    let set = ["--as", "carol", "run", "--set", "@b,local/spare", "--wait=25s", "--", "true"];
    let (one, two, set) = tokio::join!(lab.run(&one), lab.run(&two), lab.run(&set));
    one.ok();
    two.ok();
    set.ok();
    lab.run(&["lease", "acquire", "@a", "--wait=5s"]).await.ok();
    let kicked = ["--as", "boss", "lease", "kick", "@b", "--reason", "fire"];
    assert!(lab.run(&kicked).await.ok().contains("other: the lease of cli"));
    other.shutdown(std::time::Duration::from_secs(5)).await.unwrap();
    lab.end().await;
}

#[tokio::test]
async fn what_is_left_of_a_lease_is_what_its_exporter_says_now() {
    let lab = Lab::start().await;
    lab.run(&["lease", "acquire", "local", "--for", "1h"]).await.ok();
    let left = async |args: &[&str]| {
        let list = [&["lease", "list", "-o", "json"], args].concat();
        lab.run(&list).await.json()[0]["lease"]["left_ms"].as_u64().unwrap()
    };
    let first = left(&[]).await;
    while left(&["local"]).await + 1500 > first {
        tokio::task::yield_now().await;
    }
    assert!(left(&[]).await + 1500 <= first, "the record was written when the lease began");
    lab.end().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_before_anything_is_held() {
    let lab = Lab::start().await;
    for nonsense in [
        &["acquire", "local", "--for", "0s"][..],
        &["acquire", "local", "--for", "soon"],
        &["acquire", "-l", "rack=1", "--count", "0"],
        &["acquire", "local", "--count", "2"],
        &["acquire", "local", "--set", "local"],
        &["acquire", "local", "--priority", "-1"],
        &["acquire", "@"],
        &["acquire", "--set", "local,"],
        &["renew", "local"],
        &["renew", "local", "--for", "0s"],
        &["transfer", "local", "--to", "cli"],
        &["transfer", "local", "--to", "*"],
        &["kick", "local"],
    ] {
        lab.run(&[&["lease"], nonsense].concat()).await.failed(2);
    }
    for (refused, code) in [
        (&["acquire", "local/none"][..], 10),
        (&["acquire", "nobody"], 10),
        (&["acquire", "-l", "rack=1", "--count", "2"], 10),
        (&["acquire", "local", "--for", "1000d"], 12),
        (&["acquire", "local", "--priority", "101"], 12),
        (&["renew", "local", "--for", "1h"], 12),
        (&["release", "local"], 12),
        (&["allow", "local", "bob"], 12),
        (&["kick", "local", "--reason", ""], 12),
        (&["list", "nobody"], 10),
    ] {
        let args = [&["lease"], refused, &["-o", "json"]].concat();
        let said: serde_json::Value =
            serde_json::from_str(&lab.run(&args).await.failed(code)).unwrap();
        assert_eq!((&said["exit_code"], &said["may_have_acted"]), (&code.into(), &false.into()));
    }
    let board = lab.run(&["lease", "list", "-o", "json"]).await.json();
    assert_eq!((board[0]["state"].as_str(), board[0].get("lease")), (Some("free"), None));
    lab.end().await;
}
