//! Configuration values: what is taken for each type, and the whole line for what is not.

use super::{fake::opened, good, said_of_config};

/// The settings that a driver opens with, as text.
async fn settings(config: &str) -> String {
    let text = format!("name: b\nexport: {{p: {{type: fake-power, config: {config}}}}}");
    opened(&good(&text).root.children["p"]).await
}

#[tokio::test]
async fn values_follow_their_type() {
    for (written, read) in [
        ("port: 0x10", "port: 16,"),
        ("offset: -5", "offset: -5,"),
        ("volts: 5", "volts: 5.0,"),
        ("volts: 1.5e3", "volts: 1500.0,"),
        ("volts: .inf", "volts: inf,"),
        ("inverted: true", "inverted: true,"),
        ("delay: 2s", "delay: Some(2s),"),
        ("delay: 0.25", "delay: Some(250ms),"),
        ("delay: null", "delay: None,"),
        ("mode: off", "mode: Some(Off),"),
        ("mode: {pulse: 1m}", "mode: Some(Pulse(60s)),"),
        ("pins: [1, 2]", "pins: [1, 2],"),
        ("names: {on: yes, 1: no}", r#"names: {"1": "no", "on": "yes"},"#),
        ("since: 1970-01-01T00:00:01Z", "since: Some(SystemTime { tv_sec: 1, tv_nsec: 0 }),"),
        ("key: {base64: AAE=}", r#"key: Some(b"\0\x01"),"#),
        ("key: text", r#"key: Some(b"text"),"#),
        (
            "serial: 00000000-0000-4000-8000-000000000001",
            "serial: Some(DriverId(00000000-0000-4000-8000-000000000001)) ",
        ),
    ] {
        let text = settings(&format!("{{url: off, {written}}}")).await;
        assert!(text.contains(read) && text.contains("url: \"off\""), "{written}: {text}");
    }
}

#[test]
fn a_wrong_value_says_what_would_be_right() {
    for (config, line) in [
        ("{url: 80}", "18: export.p.config.url: expected text, got a number: put it in quotes"),
        ("{url: true}", "18: export.p.config.url: expected text, got a boolean: put it in quotes"),
        ("{url: }", "16: export.p.config.url: expected text, got nothing"),
        (
            "{url: x, prt: 5}",
            "21: export.p.config.prt: unknown key \"prt\"; did you mean \"port\"?",
        ),
        (
            "{url: x, port: \"5\"}",
            "27: export.p.config.port: expected an integer from zero, got the text \"5\": leave out \
             the quotes",
        ),
        ("{url: x, port: -5}", "27: export.p.config.port: expected an integer from zero, got -5"),
        ("{url: x, offset: 1.5}", "29: export.p.config.offset: expected an integer, got 1.5"),
        ("{url: x, volts: [1]}", "28: export.p.config.volts: expected a number, got a list"),
        (
            "{url: x, inverted: yes}",
            "31: export.p.config.inverted: expected true or false, got the text \"yes\"",
        ),
        (
            "{url: x, delay: 2x}",
            "28: export.p.config.delay: expected a duration (2s, 1m30s, 250ms, or a number of \
             seconds), got the text \"2x\"",
        ),
        (
            "{url: x, mode: of}",
            "27: export.p.config.mode: expected one of on, off, pulse, got \"of\"; did you mean \
             \"off\"?",
        ),
        (
            "{url: x, mode: {off: 1}}",
            "28: export.p.config.mode: \"off\" stands alone: write just off",
        ),
        (
            "{url: x, mode: pulse}",
            "27: export.p.config.mode: \"pulse\" needs a value: write pulse: …, which is a duration \
             (2s, 1m30s, 250ms, or a number of seconds)",
        ),
        (
            "{url: x, mode: [on]}",
            "27: export.p.config.mode: expected one of on, off, pulse, got a list",
        ),
        (
            "{url: x, pins: [1, a]}",
            "31: export.p.config.pins[1]: expected an integer from zero, got the text \"a\"",
        ),
        (
            "{url: x, names: {a: 1}}",
            "32: export.p.config.names.a: expected text, got a number: put it in quotes",
        ),
        (
            "{url: x, pins: {a: 1}}",
            "27: export.p.config.pins: expected a list of u64, got a mapping",
        ),
        (
            "{url: x, since: today}",
            "28: export.p.config.since: expected a timestamp (2026-11-23T21:00:00Z, or seconds \
             since 1970), got the text \"today\"",
        ),
    ] {
        assert_eq!(said_of_config(config), format!("exporter.yaml:4:{line}"), "{config}");
    }
}

#[test]
fn a_value_that_only_the_rust_type_refuses_has_its_place_too() {
    assert_eq!(
        said_of_config("{url: x, port: 70000}"),
        "exporter.yaml:4:27: export.p.config.port: expected an integer from 0 to 65535, got 70000"
    );
    assert_eq!(
        said_of_config("{url: x, pins: [1, 70000]}"),
        "exporter.yaml:4:31: export.p.config.pins.1: expected an integer from 0 to 65535, got 70000"
    );
}
