//! `jmp-bus call`, and every way that it can fail.

use crate::lab::{Lab, program, run};

#[tokio::test]
async fn a_result_is_printed_as_it_is() {
    let lab = Lab::start().await;
    assert_eq!(lab.run(&["call", "local/power", "on"]).await.ok(), "");
    assert_eq!(lab.run(&["call", "local/power", "cycle", "2s"]).await.ok(), "off for 2000 ms\n");
    let status = lab.run(&["call", "local/power", "status"]).await.ok();
    assert_eq!(status, "{\n  \"volts\": 5.25\n}\n");
    lab.diary.has("on").await;
    lab.end().await;
}

#[tokio::test]
async fn a_result_is_json_for_a_program() {
    let lab = Lab::start().await;
    let on = lab.run(&["call", "local/power", "on", "--output", "json"]).await;
    assert_eq!(on.json(), serde_json::json!(null));
    let cycle = lab.run(&["-o", "json", "call", "local/power", "cycle", "1.5"]).await;
    assert_eq!(cycle.json(), "off for 1500 ms");
    let melt = lab.run(&["-o", "json", "call", "local/power", "melt"]).await.failed(13);
    let melt: serde_json::Value = serde_json::from_str(&melt).unwrap();
    assert_eq!((&melt["exit_code"], &melt["may_have_acted"]), (&13.into(), &true.into()));
    assert_eq!(melt["fault"], "device");
    lab.end().await;
}

#[tokio::test]
async fn a_driver_is_called_by_its_uuid() {
    let lab = Lab::start().await;
    let id = lab.served.child("power").id().to_string();
    assert_eq!(lab.run(&["call", &id, "cycle", "1ms"]).await.ok(), "off for 1 ms\n");
    lab.end().await;
}

#[tokio::test]
async fn a_file_or_stdin_is_an_argument() {
    let lab = Lab::start().await;
    let file = lab.home.path().join("image");
    std::fs::write(&file, vec![0xff; 3_000_000]).unwrap();
    let at_file = format!("@{}", file.display());
    assert_eq!(lab.run(&["call", "local/power", "size", &at_file]).await.ok(), "3000000\n");
    let stdin = lab.run_with(&["call", "local/power", "size", "@-"], &[0; 5]).await;
    assert_eq!(stdin.ok(), "5\n");
    assert_eq!(lab.run(&["call", "local/power", "size", "@@abc"]).await.ok(), "4\n");
    let missing = lab.run(&["call", "local/power", "size", "@/no/such"]).await.failed(1);
    assert!(missing.starts_with("jmp-bus: cannot read /no/such: "), "{missing}");
    lab.end().await;
}

#[tokio::test]
async fn a_wrong_address_says_what_there_is() {
    let lab = Lab::start().await;
    let child = lab.run(&["call", "local/pwoer", "on"]).await.failed(10);
    assert_eq!(
        child,
        "jmp-bus: driver local/pwoer is not on this bus\nhint: local has: local/power, local/spare\n"
    );
    let exporter = lab.run(&["call", "bench/power", "on"]).await.failed(10);
    assert!(exporter.contains("hint: exporters that are up: local"), "{exporter}");
    let no_name = lab.run(&["call", "Bench/power", "on"]).await.failed(2);
    assert!(no_name.contains("a-z"), "{no_name}");
    lab.end().await;
}

#[tokio::test]
async fn a_wrong_argument_is_refused_with_the_signature() {
    let lab = Lab::start().await;
    let wrong = lab.run(&["call", "local/power", "cycle", "soon"]).await.failed(12);
    assert!(wrong.contains("cycle(wait: duration) -> text"), "{wrong}");
    assert!(wrong.ends_with("hint: see `jmp-bus describe local/power`\n"), "{wrong}");
    let method = lab.run(&["call", "local/power", "explode"]).await.failed(12);
    assert!(method.contains("explode"), "{method}");
    let kind = lab.run(&["call", "local/power", "count"]).await.failed(12);
    assert!(kind.contains("`stream` for streaming calls"), "{kind}");
    let bare = lab.run(&["call", "local/power"]).await.failed(2);
    assert!(bare.contains("jmp-bus describe local/power"), "{bare}");
    lab.end().await;
}

#[tokio::test]
async fn a_fault_and_a_deadline_have_codes_of_their_own() {
    let lab = Lab::start().await;
    let fault = lab.run(&["call", "local/power", "melt"]).await.failed(13);
    assert!(fault.starts_with("jmp-bus: local/power failed: the fuse is blown\n"), "{fault}");
    // Its exporter stops it at that moment and says so: whoever is first, this is the answer.
    let late = lab.run(&["call", "local/power", "hang", "--deadline", "200ms"]).await.failed(11);
    assert!(late.contains("gave no result within 200ms"), "{late}");
    lab.diary.has("hang ended").await;
    lab.end().await;
}

#[tokio::test]
async fn a_deadline_is_longer_than_nothing() {
    let lab = Lab::start().await;
    for typed in ["0s", "0", "soon", "999us", "-1s"] {
        let said = lab.run(&["call", "local/power", "on", &format!("--deadline={typed}")]).await;
        assert!(said.failed(2).contains("a millisecond or more"), "{typed}");
    }
    lab.end().await;
}

#[tokio::test]
async fn a_driver_known_by_its_uuid_is_told_of_by_its_address() {
    let lab = Lab::start().await;
    let id = lab.run(&["describe", "local/power", "-o", "json"]).await.json();
    let id = id["driver"]["id"].as_str().unwrap().to_owned();
    let said = lab.run(&["call", &id, "nothing"]).await.failed(12);
    assert!(said.starts_with("jmp-bus: local/power refused: no method"), "{said}");
    assert!(said.contains("`jmp-bus describe local/power`"), "{said}");
    lab.end().await;
}

#[tokio::test]
async fn a_broker_that_is_down_or_not_named_is_told() {
    let home = tempfile::tempdir().unwrap();
    let down = run(program(&home).args(["-s", "nats://127.0.0.1:1", "call", "a/b", "on"])).await;
    let down = down.failed(15);
    assert!(down.starts_with("jmp-bus: cannot connect to the broker at"), "{down}");
    assert!(down.contains("127.0.0.1:1") && down.contains("hint: "), "{down}");
    let none = run(program(&home).args(["call", "a/b", "on"])).await.failed(15);
    assert_eq!(
        none,
        "jmp-bus: no broker is named\nhint: give --server or set NATS_URL; or start one of your own with `jmp-bus dev`\n"
    );
}

#[tokio::test]
async fn ctrl_c_cancels_a_call() {
    let lab = Lab::start().await;
    let call = lab.spawn(&["call", "local/power", "hang"]);
    lab.diary.has("hang").await;
    call.interrupt().await;
    let ended = call.ended().await;
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (Some(130), "", ""));
    lab.diary.has("hang ended").await;
    lab.end().await;
}
