//! `jmp-bus put`, `files`, `flash`, and words that lend something.

use std::process::Stdio;

use crate::lab::{Lab, Running};

/// A file of the lab's home.
fn file(lab: &Lab, name: &str, bytes: &[u8]) -> String {
    let path = lab.home.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

fn image() -> Vec<u8> {
    (0..3_000_000_u32).map(|at| (at * 7 / 3) as u8).collect()
}

#[tokio::test]
async fn a_file_is_put_listed_and_removed() {
    let lab = Lab::with_disks().await;
    let path = file(&lab, "disk.img", &image());
    let put = lab.run(&["put", &path, "-o", "json"]).await.json();
    assert_eq!((&put["name"], &put["bytes"]), (&"disk.img".into(), &3_000_000.into()));
    assert!(put["sent"].as_u64().unwrap() > 0, "{put}");
    let again = lab.run(&["put", &path, "-o", "json"]).await.json();
    assert_eq!((&again["sent"], &again["manifest"]), (&0.into(), &put["manifest"]));
    let files = lab.run(&["files", "-o", "json"]).await.json();
    assert_eq!(files.as_array().unwrap().len(), 1, "{files}");
    assert_eq!((&files[0]["client"], &files[0]["manifest"]), (&"cli".into(), &put["manifest"]));
    assert!(lab.run(&["files", "list"]).await.ok().starts_with("cli  disk.img  2.9 MiB  "));
    let missing = lab.run(&["files", "remove", "other.img"]).await.failed(10);
    assert!(missing.contains("file other.img"), "{missing}");
    lab.run(&["files", "remove", "disk.img"]).await.ok();
    assert_eq!(lab.run(&["files", "-o", "json"]).await.json(), serde_json::json!([]));
    let anew = lab.run(&["put", &path, "-o", "json"]).await.json();
    assert!(anew["sent"].as_u64().unwrap() > 0, "its blocks were removed too: {anew}");
    let missing = lab.run(&["put", "/nonexistent/a"]).await.failed(1);
    assert!(missing.contains("/nonexistent/a"), "{missing}");
    lab.end().await;
}

#[tokio::test]
async fn one_board_is_flashed_and_read_back() {
    let lab = Lab::with_disks().await;
    let path = file(&lab, "disk.img", &image());
    let out = lab.run(&["flash", "local/disk", &path, "--verify"]).await.ok();
    assert!(out.starts_with("local/disk  verified  2.9 MiB  "), "{out}");
    let back = lab.home.path().join("back.img");
    let word = format!("@>{}", back.display());
    assert_eq!(lab.run(&["call", "local/disk", "dump", &word]).await.ok(), "3000000\n");
    assert!(std::fs::read(&back).unwrap() == image());
    // The same by a call, from a file and from stdin.
    let word = format!("@{path}");
    let written = lab.run(&["call", "local/disk", "flash", &word, "-o", "json"]).await.json();
    assert_eq!(written["bytes"], 3_000_000);
    let ran = lab.run_with(&["flash", "local/disk", "-", "-o", "json"], b"from stdin").await.json();
    assert_eq!(ran[0]["written"]["bytes"], 10);
    let ran = lab.run_with(&["call", "local/disk", "flash", "@-", "-o", "json"], b"stdin").await;
    assert_eq!(ran.json()["bytes"], 5);
    lab.end().await;
}

#[tokio::test]
async fn many_boards_are_flashed_with_one_upload_and_each_has_its_line() {
    let lab = Lab::with_disks().await;
    let path = file(&lab, "disk.img", &image());
    let one = lab.run(&["flash", "-l", "board=a", &path]).await.failed(2);
    assert!(one.contains("matches 2 drivers; add --all"), "{one}");
    let ran = lab.run(&["flash", "-l", "board=a", "--all", &path, "--verify"]).await;
    assert!(
        ran.err.contains("local/disk: done") && ran.err.contains("local/disk2: done"),
        "{ran:?}"
    );
    let out = ran.ok();
    assert_eq!(out.lines().count(), 2, "{out}");
    let ran = lab.run(&["flash", "-l", "board", "--all", &path, "-o", "json"]).await;
    let table: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let oks: Vec<_> = table.as_array().unwrap().iter().map(|one| one["ok"].clone()).collect();
    assert_eq!(oks, [true, true, false], "{table}");
    assert!(table[2]["error"]["error"].as_str().unwrap().contains("worn out"), "{table}");
    ran.failed(17);
    lab.end().await;
}

#[tokio::test]
async fn what_cannot_be_flashed_is_said_before_anything_is() {
    let lab = Lab::with_disks().await;
    let path = file(&lab, "disk.img", &image());
    let relay = lab.run(&["flash", "local/power", &path]).await.failed(2);
    assert!(relay.contains("takes no images"), "{relay}");
    lab.run(&["flash", "local/nothing", &path]).await.failed(10);
    lab.run(&["flash", "-l", "board=z", "--all", &path]).await.failed(10);
    lab.run(&["flash", "local/disk", "/nonexistent/disk.img"]).await.failed(1);
    let packing = lab.run(&["flash", "local/disk", &path, "--packing", "lz9"]).await.failed(2);
    assert!(packing.contains("gzip, xz, bzip2, zstd"), "{packing}");
    let s3 = lab.run(&["flash", "local/disk", "s3://bucket"]).await.failed(2);
    assert!(s3.contains("s3://BUCKET/KEY"), "{s3}");
    let large = file(&lab, "large.img", &[]);
    std::fs::File::options().write(true).open(&large).unwrap().set_len(65 << 20).unwrap();
    let large = lab.run(&["flash", "local/disk", &large]).await.failed(13);
    assert!(large.contains("larger than the target"), "{large}");
    let stdin = lab.run(&["flash", "-l", "board=a", "--all", "-"]).await.failed(2);
    assert!(stdin.contains("one board only"), "{stdin}");
    lab.end().await;
}

/// A flash of a board that does not end by itself, and has begun.
async fn occupied(lab: &Lab, board: &str) -> Running {
    let mut endless = lab.command(&["flash", board, "-", "-o", "json"]);
    endless.stdin(Stdio::from(std::fs::File::open("/dev/zero").unwrap()));
    let flash = Running::start(&mut endless);
    // `progress` says when it writes.
    let mut watch = lab.spawn(&["stream", board, "progress", "-o", "json"]);
    while !watch.line().await.contains("write") {}
    watch.interrupt().await;
    watch.ended().await;
    flash
}

/// Removes a file once it is stored.
async fn remove(lab: &Lab, name: &str) {
    while lab.run(&["files", "remove", name]).await.code != Some(0) {}
}

#[tokio::test]
async fn what_goes_from_the_broker_between_two_boards_is_stored_once_more_for_all() {
    let lab = Lab::with_disks().await;
    let path = file(&lab, "disk.img", &image());
    let busy = [occupied(&lab, "local/disk").await, occupied(&lab, "local/disk2").await];
    let flash = lab.spawn(&["flash", "-l", "board=a", "--all", &path, "-o", "json"]);
    remove(&lab, "disk.img").await;
    for busy in busy {
        busy.interrupt().await;
        busy.ended().await;
    }
    let ran = flash.ended().await;
    assert_eq!(ran.err.matches("disk.img: was gone from the broker: ").count(), 1, "{ran:?}");
    let table: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let oks: Vec<_> = table.as_array().unwrap().iter().map(|one| one["ok"].clone()).collect();
    assert_eq!(oks, [true, true], "{table}");
    for board in ["local/disk", "local/disk2"] {
        let back = lab.home.path().join("back.img");
        lab.run(&["call", board, "dump", &format!("@>{}", back.display())]).await.ok();
        assert!(std::fs::read(&back).unwrap() == image(), "{board}");
    }
    lab.end().await;
}

#[tokio::test]
async fn an_image_that_has_gone_and_is_another_by_now_is_not_given_to_the_rest() {
    let lab = Lab::with_disks().await;
    let path = file(&lab, "disk.img", &image());
    let busy = occupied(&lab, "local/disk").await;
    let flash = lab.spawn(&["flash", "local/disk", &path]);
    remove(&lab, "disk.img").await;
    file(&lab, "disk.img", b"another");
    busy.interrupt().await;
    busy.ended().await;
    let said = flash.ended().await.failed(1);
    assert!(said.contains("it is not what it was when the first board got it"), "{said}");
    lab.end().await;
}

#[tokio::test]
async fn a_call_whose_file_has_gone_says_what_to_do() {
    let lab = Lab::with_disks().await;
    let path = file(&lab, "disk.img", &image());
    let busy = occupied(&lab, "local/disk").await;
    let word = format!("@{path}");
    let call = lab.spawn(&["call", "local/disk", "flash", &word]);
    remove(&lab, "disk.img").await;
    busy.interrupt().await;
    busy.ended().await;
    let said = call.ended().await.failed(13);
    assert!(said.contains("no longer") && said.contains("`jmp-bus put --again FILE`"), "{said}");
    lab.run(&["put", "--again", &path]).await.ok();
    lab.run(&["call", "local/disk", "flash", &word]).await.ok();
    lab.end().await;
}

#[tokio::test]
async fn ctrl_c_stops_a_flash_and_the_board_is_free_again() {
    let lab = Lab::with_disks().await;
    let flash = occupied(&lab, "local/disk").await;
    flash.interrupt().await;
    assert!([Some(130), Some(13)].contains(&flash.ended().await.code));
    let path = file(&lab, "disk.img", &image());
    lab.run(&["flash", "local/disk", &path]).await.ok();
    lab.end().await;
}
