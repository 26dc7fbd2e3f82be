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
async fn a_command_line_that_makes_no_sense_is_refused() {
    let home = tempfile::tempdir().unwrap();
    for args in [&["cal"][..], &[], &["call"], &["call", "a/b", "on", "--deadline", "soon"]] {
        let refused = run(program(&home).args(args)).await;
        assert_eq!((refused.code, refused.out.as_str()), (Some(2), ""), "{args:?}");
    }
    assert!(run(program(&home).arg("help")).await.ok().contains("forward"));
}
