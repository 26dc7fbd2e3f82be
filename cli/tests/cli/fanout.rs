//! `jmp-bus call -l … --all`.

use crate::lab::Lab;

#[tokio::test]
async fn each_driver_has_a_line_and_stderr_a_summary() {
    let lab = Lab::start().await;
    let all = ["call", "-l", "name", "--all", "cycle", "1s", "--at", "+10ms"];
    let ran = lab.run(&all).await;
    let told = "jmp-bus: 3 drivers begin in 10ms\njmp-bus: 3 of 3 succeeded in ";
    assert!(ran.err.starts_with(told), "{ran:?}");
    let out = ran.ok();
    let mut lines: Vec<_> = out.lines().collect();
    lines.sort_unstable();
    let said = ["local/power", "local/spare", "local"].map(|at| format!("{at}: off for 1000 ms"));
    assert_eq!(lines, said);
    lab.end().await;
}

#[tokio::test]
async fn one_failure_fails_the_whole() {
    let lab = Lab::start().await;
    let args = ["call", "-l", "rack", "--all", "melt", "--jobs", "1", "-o", "json"];
    let ran = lab.run(&args).await;
    assert!(ran.err.contains("0 of 2 succeeded"), "{ran:?}");
    for line in ran.out.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&line["ok"], &line["error"]["exit_code"]), (&false.into(), &13.into()));
    }
    assert_eq!(ran.out.lines().count(), 2);
    ran.failed(17);
    lab.end().await;
}

#[tokio::test]
async fn a_failure_names_its_driver_once() {
    let lab = Lab::start().await;
    let ran = lab.run(&["call", "-l", "rack", "--all", "cycle", "soon"]).await;
    for line in ran.out.lines() {
        let (address, said) = line.split_once(": FAILED: refused: argument 1 (wait): ").unwrap();
        assert!(matches!(address, "local/power" | "local/spare"), "{line}");
        assert!(said.starts_with("expected a duration") && !said.contains(address), "{line}");
    }
    assert_eq!(ran.out.lines().count(), 2);
    ran.failed(17);
    lab.end().await;
}

#[tokio::test]
async fn many_are_called_only_if_that_is_meant() {
    let lab = Lab::start().await;
    let two = lab.run(&["call", "-l", "rack", "on"]).await.failed(2);
    assert!(two.contains("matches 2 drivers; add --all"), "{two}");
    assert_eq!(lab.run(&["call", "-l", "rack=1", "on"]).await.ok(), "local/power: ok\n");
    lab.run(&["call", "-l", "rack=7", "--all", "on"]).await.failed(10);
    lab.run(&["call", "-l", "rack==,", "--all", "on"]).await.failed(2);
    let both = lab.run(&["call", "local/power", "on", "-l", "rack", "--all"]).await.failed(2);
    assert!(both.contains("with a selector no driver is named"), "{both}");
    for at in ["2s", "+2d", "+soon"] {
        lab.run(&["call", "-l", "rack", "--all", "on", "--at", at]).await.failed(2);
    }
    lab.end().await;
}

#[tokio::test]
async fn ctrl_c_cancels_all_of_them() {
    let lab = Lab::start().await;
    let all = lab.spawn(&["call", "-l", "rack", "--all", "hang"]);
    lab.diary.has("hang").await;
    all.interrupt().await;
    assert_eq!(all.ended().await.code, Some(130));
    lab.diary.has("hang ended").await;
    lab.end().await; // it would say that calls were cut off
}
