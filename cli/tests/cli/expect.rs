//! `jmp-bus expect`.

use crate::lab::Lab;

/// A script at the method `echo`, which says back what is typed.
async fn run(lab: &Lab, script: &str, more: &[&str]) -> crate::lab::Ran {
    let args = [&["expect", "local/power", "-", "--method", "echo"], more].concat();
    lab.run_with(&args, script.as_bytes()).await
}

#[tokio::test]
async fn a_script_types_and_waits_and_what_was_said_is_shown() {
    let lab = Lab::start().await;
    let script = "line \"${user}\"\nexpect \"root\\r\"\nsend \"v1.25 ok\"\nexpect /v(\\d+)[.]/\n";
    let said = run(&lab, script, &["--set", "user=root"]).await.ok();
    assert_eq!(said, "root\rv1.25 ok");
    let lines = run(&lab, script, &["--set", "user=root", "-o", "json"]).await.ok();
    let steps: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(steps.len(), 2);
    assert_eq!((&steps[0]["line"], &steps[0]["matched"]), (&2.into(), &"root\r".into()));
    assert_eq!(
        (&steps[1]["expected"], &steps[1]["groups"][0]),
        (&"/v(\\d+)[.]/".into(), &"1".into())
    );
    lab.diary.has("echo ended").await;
    lab.end().await;
}

#[tokio::test]
async fn what_did_not_come_is_an_exit_code_of_its_own_and_shows_what_was_seen() {
    let lab = Lab::start().await;
    let told =
        run(&lab, "send \"hello\\x07\"\n\nexpect \"login: \" within 50ms", &[]).await.failed(20);
    assert!(
        told.contains(
            "-: line 3: \"login: \" did not come within 50ms; seen (6 bytes):\n  | hello\\x07"
        ),
        "{told}"
    );
    let script = "fail \"panic\"\nsend \"Kernel panic\"\nexpect \"login: \"";
    let told = run(&lab, script, &["-o", "json"]).await.failed(20);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["exit_code"], &told["may_have_acted"]), (&20.into(), &true.into()));
    assert!(told["error"].as_str().unwrap().contains("a failure by line 1"), "{told}");
    lab.end().await;
}

#[tokio::test]
async fn a_script_that_is_wrong_is_refused_before_anything_is_typed() {
    let lab = Lab::start().await;
    let told = run(&lab, "send \"x\"\nexpct \"x\"\n", &[]).await.failed(16);
    assert!(told.contains("-: line 2: there is no statement \"expct\""), "{told}");
    let told = run(&lab, "send \"${nobody}\"\n", &[]).await.failed(16);
    assert!(told.contains("--set nobody=VALUE"), "{told}");
    run(&lab, "send \"x\"", &["--set", "novalue"]).await.failed(2);
    lab.run(&["expect", "local/power", "/no/such/script"]).await.failed(1);
    lab.run_with(&["expect", "local/none", "-"], b"expect end").await.failed(10);
    lab.run_with(&["expect", "local/power", "-", "--method", "on"], b"expect end").await.failed(12);
    lab.end().await;
}
