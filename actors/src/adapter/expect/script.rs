//! A script for a console: a statement per line, read as a whole before anything is done.

use std::{collections::BTreeMap, fmt, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{Expect, ExpectError, Match, Pattern};

mod words;

use words::{Word, words};

/// The statements, for people.
pub const SCRIPT_HELP: &str = r#"A script has one statement per line; what follows a # is a comment.

  expect PATTERN [or PATTERN…] [within TIME]   wait for what the device says
  send TEXT                                    type this, as it is
  line TEXT                                    type this, and Enter
  timeout TIME                                 how long to wait from here on (30s)
  answer PATTERN TEXT                          from here on: whenever this comes, type that
  fail PATTERN                                 from here on: when this comes, it has failed

TEXT is "in quotes", with \r \n \t \e \" \\ \$ \xNN; ${NAME} is what --set NAME=VALUE says.
PATTERN is a TEXT that comes like this, a /regular expression/ (\/ is a slash), or `end`.
TIME is 500ms, 30s, 2m.

  fail "Kernel panic"
  answer "Hit any key" " "
  expect /login: $/ within 1m
  line "root"
  expect "Password: " or /# $/
"#;

/// Most statements of a script.
const STATEMENTS_MAX: usize = 10_000;
/// Patterns that are waited for at once.
const PATTERNS_MAX: usize = 64;

/// What to wait for, and what to type.
#[derive(Clone, Debug)]
pub struct ExpectScript(Vec<Step>);

#[derive(Clone, Debug)]
struct Step {
    line: usize,
    statement: Statement,
}

#[derive(Clone, Debug)]
enum Statement {
    Expect { any: Vec<Pattern>, within: Option<Duration> },
    Send(Vec<u8>),
    Timeout(Duration),
    Answer(Pattern, Vec<u8>),
    Fail(Pattern),
}

/// What is wrong in a script, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ScriptError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// Where a script failed, and why.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct ScriptFailure {
    /// The line, from 1.
    pub line: usize,
    /// Why.
    pub why: WhyFailed,
}

/// Why a script failed.
#[derive(Debug, thiserror::Error)]
pub enum WhyFailed {
    /// What was expected did not come.
    #[error(transparent)]
    Expect(#[from] ExpectError),
    /// What must not come came.
    #[error("{pattern} came, which is a failure by line {by}; {seen}")]
    Came {
        /// The pattern.
        pattern: String,
        /// The line of the `fail`.
        by: usize,
        /// What came up to it.
        seen: super::Seen,
    },
}

/// A statement that was done: what a script tells of itself.
#[derive(Clone, Debug)]
pub struct StepDone {
    /// The line, from 1.
    pub line: usize,
    /// The patterns, as they are written.
    pub expected: String,
    /// What was matched.
    pub found: Match,
    /// How long it took.
    pub took: Duration,
}

impl ExpectScript {
    /// Reads a script; `${NAME}` is what `variables` say.
    ///
    /// # Errors
    ///
    /// The first line that is wrong.
    pub fn parse(text: &str, variables: &BTreeMap<String, String>) -> Result<Self, ScriptError> {
        let mut steps = Vec::new();
        for (at, text) in text.lines().enumerate() {
            let line = at + 1;
            let wrong = |problem: String| ScriptError { line, problem };
            let words = words(text, variables).map_err(wrong)?;
            if words.is_empty() {
                continue;
            }
            if steps.len() == STATEMENTS_MAX {
                return Err(wrong(format!("there are more than {STATEMENTS_MAX} statements")));
            }
            let statement = statement(&words).map_err(wrong)?;
            steps.push(Step { line, statement });
        }
        match steps.is_empty() {
            true => Err(ScriptError { line: 1, problem: "the script is empty".to_owned() }),
            false => Ok(Self(steps)),
        }
    }

    /// Does what it says. `done` is told of each `expect` that came true.
    ///
    /// # Errors
    ///
    /// [`ScriptFailure`], with the line.
    pub async fn run<S: AsyncRead + AsyncWrite + Unpin + Send>(
        &self,
        expect: &mut Expect<S>,
        mut done: impl FnMut(StepDone),
    ) -> Result<(), ScriptFailure> {
        let mut standing = Standing::default();
        for Step { line, statement } in &self.0 {
            let failed = |why: WhyFailed| ScriptFailure { line: *line, why };
            match statement {
                Statement::Timeout(timeout) => expect.set_timeout(*timeout),
                Statement::Send(bytes) => {
                    expect.send(bytes).await.map_err(|error| failed(error.into()))?;
                }
                Statement::Answer(pattern, text) => {
                    standing.add(*line, pattern, Then::Answer(text.clone()));
                }
                Statement::Fail(pattern) => standing.add(*line, pattern, Then::Fail),
                Statement::Expect { any, within } => {
                    let began = Instant::now();
                    let limit = within.unwrap_or(expect.timeout);
                    let found = standing.expect(expect, any, limit).await.map_err(failed)?;
                    let expected = super::wanted(any);
                    done(StepDone { line: *line, expected, found, took: began.elapsed() });
                }
            }
        }
        Ok(())
    }
}

/// What is looked out for besides what is expected.
#[derive(Default)]
struct Standing {
    patterns: Vec<Pattern>,
    then: Vec<(usize, Then)>,
}

enum Then {
    Answer(Vec<u8>),
    Fail,
}

impl Standing {
    fn add(&mut self, line: usize, pattern: &Pattern, then: Then) {
        self.patterns.push(pattern.clone());
        self.then.push((line, then));
    }

    async fn expect<S: AsyncRead + AsyncWrite + Unpin + Send>(
        &self,
        expect: &mut Expect<S>,
        any: &[Pattern],
        limit: Duration,
    ) -> Result<Match, WhyFailed> {
        let until = Instant::now() + limit;
        let all: Vec<_> = any.iter().chain(&self.patterns).cloned().collect();
        let mut before = Vec::new();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let waited = expect.expect_within(&all, left).await;
            let mut found = waited.map_err(|error| error.in_the_words_of(any, limit))?;
            before.append(&mut found.before);
            let Some(at) = found.index.checked_sub(any.len()) else {
                return Ok(Match { before, ..found });
            };
            before.extend_from_slice(&found.matched);
            match &self.then[at] {
                (_, Then::Answer(text)) => expect.send(text).await?,
                (by, Then::Fail) => {
                    let (pattern, by) = (self.patterns[at].to_string(), *by);
                    return Err(WhyFailed::Came { pattern, by, seen: super::Seen::of(&before, 0) });
                }
            }
        }
    }
}

impl ExpectError {
    /// In the words of what was asked: without what was looked out for besides.
    fn in_the_words_of(self, any: &[Pattern], asked: Duration) -> Self {
        let wanted = super::wanted(any);
        match self {
            Self::TimedOut { seen, .. } => Self::TimedOut { wanted, limit: asked, seen },
            Self::Ended { seen, .. } => Self::Ended { wanted, seen },
            failed @ Self::Failed { .. } => failed,
        }
    }
}

fn statement(words: &[Word]) -> Result<Statement, String> {
    let Word::Bare(name) = &words[0] else {
        return Err(format!("a statement begins with one of {STATEMENTS}, not with {}", words[0]));
    };
    let rest = &words[1..];
    match (name.as_str(), rest) {
        ("expect", [_, ..]) => expect(rest),
        ("send", [Word::Text(text)]) => Ok(Statement::Send(text.clone())),
        ("line", [Word::Text(text)]) => Ok(Statement::Send([text.as_slice(), b"\r"].concat())),
        ("timeout", [time]) => Ok(Statement::Timeout(duration(time)?)),
        ("answer", [on, Word::Text(text)]) => Ok(Statement::Answer(pattern(on)?, text.clone())),
        ("fail", [on]) => Ok(Statement::Fail(pattern(on)?)),
        ("expect", _) => Err("it is: expect PATTERN [or PATTERN…] [within TIME]".to_owned()),
        ("send" | "line", _) => Err(format!("it is: {name} \"TEXT\"")),
        ("timeout", _) => Err("it is: timeout TIME, as in `timeout 30s`".to_owned()),
        ("answer", _) => Err("it is: answer PATTERN \"TEXT\"".to_owned()),
        ("fail", _) => Err("it is: fail PATTERN".to_owned()),
        (other, _) => Err(format!("there is no statement {other:?}: there are {STATEMENTS}")),
    }
}

const STATEMENTS: &str = "expect, send, line, timeout, answer, fail";

fn expect(words: &[Word]) -> Result<Statement, String> {
    let is = |word: &Word, wanted: &str| matches!(word, Word::Bare(bare) if bare == wanted);
    let (patterns, within) = match words {
        [patterns @ .., word, time] if is(word, "within") => (patterns, Some(duration(time)?)),
        patterns => (patterns, None),
    };
    let mut any = Vec::new();
    for (at, word) in patterns.iter().enumerate() {
        match at % 2 {
            0 => any.push(pattern(word)?),
            _ if is(word, "or") => {}
            _ => return Err(format!("between two patterns is `or`, not {word}")),
        }
    }
    if patterns.len() % 2 == 0 {
        return Err(
            "a pattern is missing: it is expect PATTERN [or PATTERN…] [within TIME]".to_owned()
        );
    }
    if any.len() > PATTERNS_MAX {
        return Err(format!("there are more than {PATTERNS_MAX} patterns"));
    }
    Ok(Statement::Expect { any, within })
}

fn pattern(word: &Word) -> Result<Pattern, String> {
    match word {
        Word::Text(text) => Pattern::literal(text.clone()).map_err(|error| error.to_string()),
        Word::Regex(expression) => Pattern::regex(expression).map_err(|error| error.to_string()),
        Word::Bare(bare) if bare == "end" => Ok(Pattern::end()),
        Word::Bare(bare) => Err(format!("{bare} is no pattern: write \"{bare}\", /{bare}/ or end")),
    }
}

fn duration(word: &Word) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    let wrong = || format!("{word} is no time: write 500ms, 30s or 2m");
    let Word::Bare(text) = word else { return Err(wrong()) };
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let unit = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1;
    let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    let ms = ms.filter(|ms| (1..=86_400_000).contains(ms)).ok_or_else(wrong)?;
    Ok(Duration::from_millis(ms))
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bare(bare) => f.write_str(bare),
            Self::Text(text) => write!(f, "\"{}\"", super::seen::escaped(text)),
            Self::Regex(expression) => write!(f, "/{expression}/"),
        }
    }
}
