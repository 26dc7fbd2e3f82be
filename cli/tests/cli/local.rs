//! What needs no bus.

use crate::lab::{program, run};

#[tokio::test]
async fn exit_codes_and_completions_are_told() {
    let home = tempfile::tempdir().unwrap();
    let codes = run(program(&home).arg("exit-codes")).await.ok();
    assert!(codes.starts_with("0    all that was asked was done\n"), "{codes}");
    let codes = run(program(&home).args(["exit-codes", "-o", "json"])).await.json();
    assert_eq!(codes[3]["code"], 10);
    let script = run(program(&home).args(["completions", "bash"])).await.ok();
    assert!(script.contains("jmp-bus") && script.contains("forward"), "{script}");
}

#[tokio::test]
async fn a_program_is_told_in_json_what_is_wrong_with_its_command_line() {
    let home = tempfile::tempdir().unwrap();
    for args in [&["-o", "json", "cal"][..], &["call", "--output=json"], &["list", "x", "-ojson"]] {
        let said = run(program(&home).args(args)).await.failed(2);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!((&said["exit_code"], &said["may_have_acted"]), (&2.into(), &false.into()));
        assert!(said["error"].as_str().is_some_and(|text| !text.contains("--help")), "{said}");
    }
}

#[test]
fn who_does_not_read_what_is_wrong_gets_the_exit_code_all_the_same() {
    let home = tempfile::tempdir().unwrap();
    let wrong: [&[&str]; 4] = [
        &["-ojson", "cal"],
        &["--creds=/none", "list"],
        &["-ojson", "--creds=/none", "list"],
        &["cal"],
    ];
    for args in wrong {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = program(&home).args(args).as_std_mut().stderr(writer).status().unwrap();
        assert_eq!(status.code(), Some(2), "{args:?}");
    }
}

#[tokio::test]
async fn a_time_that_is_none_is_told_with_some_that_are() {
    let home = tempfile::tempdir().unwrap();
    for args in [
        &["serve", "x.yaml", "--grace", "abc"][..],
        &["lease", "acquire", "x", "--for", "5 parsecs"],
        &["flash", "x", "y", "--deadline", "0"],
    ] {
        let said = run(program(&home).args(args)).await.failed(2);
        assert!(said.contains("10s, 2m, "), "{said}");
    }
}

#[tokio::test]
async fn a_bench_of_no_work_or_without_end_does_not_begin() {
    let home = tempfile::tempdir().unwrap();
    for typed in ["0", "-0.0", "-1", "nan", "inf", "-inf", "1e300", "100.1", "much", ""] {
        let said = run(program(&home).args(["bench", &format!("--scale={typed}")])).await.failed(2);
        assert!(said.contains("expected a number above 0, and at most 100"), "{typed}: {said}");
    }
}

#[tokio::test]
async fn an_error_says_the_reason_behind_it() {
    let home = tempfile::tempdir().unwrap();
    let args = ["--creds", "/none/of/this", "list"];
    let said = run(program(&home).args(args)).await.failed(2);
    assert!(said.starts_with("jmp-bus: cannot read creds /none/of/this: No such file"), "{said}");
}

#[tokio::test]
async fn a_command_line_that_makes_no_sense_is_refused() {
    let home = tempfile::tempdir().unwrap();
    for args in [&["cal"][..], &[], &["call"], &["call", "a/b", "on", "--deadline", "soon"]] {
        let refused = run(program(&home).args(args)).await;
        assert_eq!((refused.code, refused.out.as_str()), (Some(2), ""), "{args:?}");
    }
    assert!(run(program(&home).arg("help")).await.ok().contains("forward"));
}
