//! `jmp-bus stream`.

use crate::lab::Lab;

#[tokio::test]
async fn items_are_lines_and_raw_text_is_not() {
    let lab = Lab::start().await;
    assert_eq!(lab.run(&["stream", "local/power", "count", "3"]).await.ok(), "0\n1\n2\n");
    assert_eq!(lab.run(&["stream", "local/power", "say"]).await.ok(), "hello\nthere\n");
    let json = lab.run(&["stream", "local/power", "say", "-o", "json"]).await.ok();
    assert_eq!(json, "\"hello\"\n\"there\"\n");
    let raw = lab.run(&["stream", "local/power", "say", "-o", "raw"]).await.ok();
    assert_eq!(raw, "hellothere");
    lab.run(&["stream", "local/power"]).await.failed(2);
    lab.run(&["stream", "local/power", "on"]).await.failed(12);
    lab.end().await;
}

#[tokio::test]
async fn a_detached_call_is_replayed_and_followed_from_its_start() {
    let lab = Lab::start().await;
    let id = lab.run(&["stream", "local/power", "count", "1000", "--detach"]).await.ok();
    lab.diary.has("count ended").await;
    for how in ["--attach", "--replay"] {
        let items = lab.run(&["stream", how, id.trim()]).await.ok();
        assert_eq!(items.lines().count(), 1000, "{how}");
        assert_eq!(items.lines().last(), Some("999"), "{how}");
    }
    let other = lab.run(&["stream", "--replay", id.trim(), "--of", "nobody"]).await.failed(10);
    assert!(other.contains("record of call"), "{other}");
    lab.run(&["stream", "--replay", "12"]).await.failed(2);
    lab.end().await;
}

#[tokio::test]
async fn ctrl_c_ends_a_stream_cleanly() {
    let lab = Lab::start().await;
    let mut stream = lab.spawn(&["stream", "local/power", "count", "none"]);
    assert_eq!(stream.line().await, "0");
    stream.interrupt().await;
    let ended = stream.ended().await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(130), ""));
    lab.diary.has("count ended").await;
    lab.end().await;
}

#[tokio::test]
async fn a_reader_that_leaves_ends_it_without_a_word() {
    let lab = Lab::start().await;
    let mut stream = lab.spawn(&["stream", "local/power", "count", "none"]);
    assert_eq!(stream.line().await, "0");
    let mut child = stream.hang_up();
    assert_eq!(child.wait().await.unwrap().code(), Some(141));
    lab.diary.has("count ended").await;
    lab.end().await;
}
