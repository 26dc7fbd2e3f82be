use std::collections::BTreeMap;

use proptest::prelude::*;
use tokio::io::{DuplexStream, duplex};

use super::{
    script::{ExpectScript, ScriptError},
    *,
};

/// A console, and what it is driven by.
fn console() -> (Expect<DuplexStream>, DuplexStream) {
    let (ours, device) = duplex(1 << 16);
    (Expect::new(ours), device)
}

fn regex(expression: &str) -> Pattern {
    Pattern::regex(expression).unwrap()
}

#[tokio::test]
async fn what_comes_in_pieces_is_matched_and_taken() {
    let (mut expect, mut device) = console();
    device.write_all(b"U-Boot 2023\r\nlog").await.unwrap();
    let found = expect.expect("2023\r\n").await.unwrap();
    assert_eq!((found.before_text().as_str(), found.text().as_str()), ("U-Boot ", "2023\r\n"));
    device.write_all(b"in: ").await.unwrap();
    let found = expect.expect("login: ").await.unwrap();
    assert_eq!((found.index, found.before.len()), (0, 0));
    expect.send_line("root").await.unwrap();
    let mut typed = [0; 5];
    device.read_exact(&mut typed).await.unwrap();
    assert_eq!(&typed, b"root\r");
}

#[tokio::test]
async fn of_several_patterns_the_one_that_begins_first_wins() {
    let (mut expect, mut device) = console();
    device.write_all(b"Login incorrect\r\nlogin: ").await.unwrap();
    let patterns = ["login: ".into(), "incorrect".into(), regex("Login (in|cor)+")];
    let found = expect.expect_any(&patterns).await.unwrap();
    assert_eq!(found.index, 2);
    let found = expect.expect_any(&patterns).await.unwrap();
    assert_eq!((found.index, found.before_text().as_str()), (0, "rect\r\n"));
}

#[tokio::test]
async fn groups_of_an_expression_are_given() {
    let (mut expect, mut device) = console();
    device.write_all(b"\xff eth0: 10.0.2.15/24\r\n").await.unwrap();
    let found = expect.expect(regex(r"(eth\d): ([0-9.]+)(/x)?")).await.unwrap();
    assert_eq!(found.before, b"\xff ");
    assert_eq!(found.group(0).as_deref(), Some("eth0: 10.0.2.15"));
    assert_eq!(found.group(2).as_deref(), Some("10.0.2.15"));
    assert_eq!((found.group(3), found.group(4)), (None, None));
}

#[tokio::test(start_paused = true)]
async fn what_did_not_come_in_time_says_what_was_seen() {
    let (mut expect, mut device) = console();
    device.write_all(b"boot\r\n\x1b[1mpanic\x07\xfe").await.unwrap();
    let patterns = ["login: ".into(), regex("[#$] $")];
    let error = expect.expect_any(&patterns).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"login: \" or /[#$] $/ did not come within 30s; seen (17 bytes):\n  \
         | boot\\r\\n\n  | \\e[1mpanic\\x07\\xfe"
    );
    let found = expect.expect("panic").await.unwrap();
    assert_eq!(found.before, b"boot\r\n\x1b[1m", "nothing was lost");
    expect.set_timeout(Duration::from_millis(5));
    let error = expect.expect("x").await.unwrap_err();
    assert!(matches!(error, ExpectError::TimedOut { limit, .. } if limit.as_millis() == 5));
}

#[tokio::test(start_paused = true)]
async fn what_is_shown_of_a_flood_is_bounded_and_so_is_what_is_kept() {
    let (mut expect, mut device) = console();
    let flood = async {
        for _ in 0..40 {
            device.write_all(&[b'x'; 65_536]).await.unwrap();
        }
        device
    };
    let (waited, mut device) = tokio::join!(expect.expect("y"), flood);
    let error = waited.unwrap_err();
    assert_eq!(error.seen().bytes, 40 * 65_536);
    assert!(error.to_string().len() < 3000);
    assert!(expect.buffer.len() <= SEARCHED_BYTES_MAX);
    device.write_all(b"y").await.unwrap();
    assert_eq!(expect.expect("xy").await.unwrap().text(), "xy");
}

#[tokio::test]
async fn the_end_is_a_failure_unless_it_is_what_is_expected() {
    let (mut expect, mut device) = console();
    device.write_all(b"bye").await.unwrap();
    drop(device);
    let error = expect.expect("more").await.unwrap_err();
    assert!(matches!(error, ExpectError::Ended { .. }), "{error}");
    assert!(error.to_string().ends_with("seen (3 bytes):\n  | bye"), "{error}");
    assert_eq!(expect.expect(Pattern::end()).await.unwrap().before, b"bye");
    assert!(expect.expect("x").await.unwrap_err().to_string().ends_with("nothing was seen"));
}

#[test]
fn a_pattern_that_would_always_match_is_refused() {
    assert!(Pattern::literal("").is_err());
    for expression in ["x*", "", "$", "(", "a{1000}{1000}"] {
        assert!(Pattern::regex(expression).is_err(), "{expression}");
    }
}

proptest! {
    /// However the bytes are cut, the same is matched.
    #[test]
    fn where_reads_end_does_not_matter(cuts in proptest::collection::vec(1_usize..9, 0..40)) {
        let said = b"aa=ab\r\n=> aab=> aaab\r\n=> done";
        let mut buffer = Vec::new();
        let (mut searched, mut at, mut matches) = (0, 0, Vec::new());
        let patterns = ["\n=> ".into(), "aab".into()];
        for cut in cuts.into_iter().chain([said.len()]) {
            let end = said.len().min(at + cut);
            buffer.extend_from_slice(&said[at..end]);
            at = end;
            while let Some((index, found)) = pattern::first(&patterns, &buffer, searched, false) {
                matches.push((index, found.at.clone().count()));
                buffer.drain(..found.at.end);
                searched = 0;
            }
            searched = buffer.len();
        }
        prop_assert_eq!(matches, [(0, 4), (1, 3), (1, 3), (0, 4)]);
    }

    /// No script makes the reader fail other than by an error with a line.
    #[test]
    fn any_text_is_read_or_refused(text in "[ a-z\"/\\\\#${}0-9\n]{0,60}") {
        if let Err(ScriptError { line, .. }) = ExpectScript::parse(&text, &BTreeMap::new()) {
            prop_assert!((1..=text.lines().count().max(1)).contains(&line));
        }
    }
}

fn parse(text: &str) -> Result<ExpectScript, String> {
    let variables = BTreeMap::from([("user".to_owned(), "root".to_owned())]);
    ExpectScript::parse(text, &variables).map_err(|error| error.to_string())
}

#[test]
fn a_mistake_in_a_script_is_named_with_its_line() {
    for (text, problem) in [
        ("", "line 1: the script is empty"),
        ("\n# only\n", "line 1: the script is empty"),
        ("timeout 30s\nexpct \"x\"", "line 2: there is no statement \"expct\": there are expect,"),
        ("expect", "line 1: it is: expect PATTERN"),
        ("expect \"a\" \"b\"", "between two patterns is `or`, not \"b\""),
        ("expect \"a\" or", "a pattern is missing"),
        ("expect within 3s", "a pattern is missing"),
        ("expect \"a\" within 3", "3 is no time: write 500ms, 30s or 2m"),
        ("expect login", "login is no pattern: write \"login\", /login/ or end"),
        ("expect /(/", "line 1: regex parse error"),
        ("expect /x", "the expression does not end: / is missing"),
        ("expect \"\"", "matches where nothing was said"),
        ("expect /.*/", "/.*/ matches where nothing was said"),
        ("send \"x", "the text does not end: \" is missing"),
        ("send \"x\"y", "there must be a space after \"x\""),
        ("send x", "it is: send \"TEXT\""),
        ("send \"\\q\"", "there is no \\q: there are \\r"),
        ("send \"\\x1\"", "after \\x come two hex digits"),
        ("line \"${pass}\"", "${pass} has no value: give one by --set pass=VALUE"),
        ("line \"${pass\"", "${pass does not end: } is missing"),
        ("timeout 0s", "0s is no time"),
        ("timeout 99999999999999999999s", "is no time"),
        ("\"x\"", "a statement begins with one of"),
    ] {
        let said = parse(text).unwrap_err();
        assert!(said.contains(problem), "{text:?}: {said}");
    }
}

#[test]
fn the_script_in_the_help_is_one() {
    let example = script::SCRIPT_HELP.split_once("2m.\n").unwrap().1;
    assert!(example.contains("expect") && parse(example).is_ok(), "{example}");
}

#[tokio::test]
async fn a_script_logs_in_and_answers_what_comes_in_between() {
    let (mut expect, mut device) = console();
    let script = parse(
        r#"
        answer "any key" "\x20"      # as often as it comes
        fail "Kernel panic"
        expect /login: $/ within 5s
        line "${user}"
        expect "Password: " or "\r\n# "
        send "\e\$\"\\"
        expect end
        "#,
    )
    .unwrap();
    let board = async {
        let mut typed = [0; 16];
        for said in ["Hit any key", "Hit any key again"] {
            device.write_all(said.as_bytes()).await.unwrap();
            device.read_exact(&mut typed[..1]).await.unwrap();
            assert_eq!(typed[0], b' ');
        }
        device.write_all(b"login: ").await.unwrap();
        device.read_exact(&mut typed[..5]).await.unwrap();
        assert_eq!(&typed[..5], b"root\r");
        device.write_all(b"root\r\n# ").await.unwrap();
        device.read_exact(&mut typed[..4]).await.unwrap();
        assert_eq!(&typed[..4], b"\x1b$\"\\");
        drop(device);
    };
    let mut done = Vec::new();
    let (ran, ()) = tokio::join!(script.run(&mut expect, |step| done.push(step)), board);
    ran.unwrap();
    assert_eq!(done.iter().map(|step| step.line).collect::<Vec<_>>(), [4, 6, 8]);
    assert_eq!(done[0].expected, "/login: $/");
    assert_eq!(done[0].found.before_text(), "Hit any keyHit any key again");
    assert_eq!(done[1].found.index, 1);
}

#[tokio::test(start_paused = true)]
async fn a_script_fails_at_its_line_and_says_why() {
    let (mut expect, mut device) = console();
    let script = parse("fail \"panic\"\n\nexpect \"login: \" within 7s").unwrap();
    device.write_all(b"booting\r\n").await.unwrap();
    let failure = script.run(&mut expect, |_| ()).await.unwrap_err().to_string();
    assert!(failure.starts_with("line 3: \"login: \" did not come within 7s; seen"), "{failure}");
    device.write_all(b"Kernel panic - not syncing").await.unwrap();
    let failure = script.run(&mut expect, |_| ()).await.unwrap_err().to_string();
    assert_eq!(
        failure,
        "line 3: \"panic\" came, which is a failure by line 1; seen (21 bytes):\n  \
         | booting\\r\\n\n  | Kernel panic"
    );
}
