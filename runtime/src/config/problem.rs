//! What is wrong in a configuration file, and where.

use std::fmt;

use super::yaml::Mark;

/// Most problems of one file that are told: nobody reads more, and a hostile file may hold millions.
const PROBLEMS_MAX: usize = 1000;
/// Longest text of one problem: it is one line of a terminal or a log.
const TEXT_CHARS_MAX: usize = 400;
/// Most of a name or value that is quoted back.
const QUOTED_CHARS_MAX: usize = 80;
/// Longest text that is compared with others for a suggestion: comparing costs the square of it.
const NEAR_BYTES_MAX: usize = 128;
/// Most others that it is compared with.
pub(super) const NEAR_OTHERS_MAX: usize = 1024;

/// One thing that is wrong (or, as a warning, odd) in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The line, from one.
    pub line: usize,
    /// The column, from one, in characters.
    pub column: usize,
    /// The keys that lead there: `export.power.type`. Empty for the file as a whole.
    pub path: String,
    /// What is wrong.
    pub text: String,
    /// The word that was probably meant.
    pub suggestion: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, path, text, suggestion } = self;
        write!(f, "{file}:{line}:{column}: ")?;
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        f.write_str(text)?;
        match suggestion {
            Some(word) => write!(f, "; did you mean {word:?}?"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong in a file, in its order. Prints as one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Problem>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Collects the problems of one file.
#[derive(Debug)]
pub(super) struct Problems {
    file: String,
    list: Vec<Problem>,
    more: usize,
}

impl Problems {
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), list: Vec::new(), more: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether more are only counted: what they say need not be worked out.
    pub(super) fn is_full(&self) -> bool {
        self.list.len() == PROBLEMS_MAX
    }

    pub(super) fn add(&mut self, at: Mark, path: impl fmt::Display, text: impl fmt::Display) {
        self.push(at, path, text, || None);
    }

    /// Adds one with a suggestion: the one of `others` that is near `word`, if one is.
    pub(super) fn add_near<'o>(
        &mut self,
        at: Mark,
        path: impl fmt::Display,
        text: impl fmt::Display,
        word: &str,
        others: impl IntoIterator<Item = &'o str>,
    ) {
        self.push(at, path, text, || near(word, others).map(str::to_owned));
    }

    /// Adds that nobody knows `key` among the `known` ones: with the one that was meant, or all.
    pub(super) fn unknown_key(&mut self, at: Mark, trail: &Trail<'_>, key: &str, known: &[&str]) {
        if self.is_full() {
            self.more += 1;
            return;
        }
        let text = format!("unknown key {}", quoted(key));
        let text = match near(key, known.iter().copied()) {
            Some(_) => text,
            None if known.is_empty() => format!("{text}: there are none"),
            None => format!("{text}: there are {}", listed(known.iter().copied())),
        };
        self.add_near(at, trail.key(key), text, key, known.iter().copied());
    }

    fn push(
        &mut self,
        at: Mark,
        path: impl fmt::Display,
        text: impl fmt::Display,
        suggestion: impl FnOnce() -> Option<String>,
    ) {
        if self.is_full() {
            self.more += 1;
            return;
        }
        self.list.push(Problem {
            file: self.file.clone(),
            line: at.line as usize,
            column: at.column as usize,
            path: path.to_string(),
            text: one_line(&text.to_string()),
            suggestion: suggestion(),
        });
    }

    /// The problems in the order of the file.
    pub(super) fn into_list(mut self) -> Vec<Problem> {
        self.list.sort_by_key(|problem| (problem.line, problem.column));
        if let (1.., Some(last)) = (self.more, self.list.last_mut()) {
            last.text = format!("{} (and {} more problems)", last.text, self.more);
        }
        self.list
    }
}

fn one_line(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A name or value of the file, as it is quoted back.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// Words as a person reads them: `a, b, c`.
pub(super) fn listed<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    words.into_iter().collect::<Vec<_>>().join(", ")
}

/// The one of `others` that somebody who wrote `word` probably meant: equal but for case and
/// `_` or `-`, or one typo in three letters, at most three.
pub(crate) fn near<'o>(word: &str, others: impl IntoIterator<Item = &'o str>) -> Option<&'o str> {
    if word.len() > NEAR_BYTES_MAX {
        return None;
    }
    let plain = |word: &str| word.to_lowercase().replace('_', "-");
    let meant = plain(word);
    let typos_max = (word.chars().count() / 3).clamp(1, 3);
    others
        .into_iter()
        .take(NEAR_OTHERS_MAX)
        .filter(|other| other.len() <= NEAR_BYTES_MAX)
        .map(|other| (strsim::osa_distance(&meant, &plain(other)), other))
        .filter(|(typos, other)| *typos <= typos_max && *typos < other.chars().count())
        .min_by(|(a, one), (b, other)| {
            // Of equally many typos, a wrong beginning is the rarer.
            let alike = |word| strsim::jaro_winkler(&meant, &plain(word));
            a.cmp(b).then_with(|| alike(other).total_cmp(&alike(one)))
        })
        .map(|(_, other)| other)
}

/// The keys that lead to a place, without owning them.
#[derive(Clone, Copy)]
pub(super) struct Trail<'a> {
    up: Option<&'a Trail<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Top,
    Key(&'a str),
    Item(usize),
}

impl Trail<'static> {
    pub(super) const TOP: Self = Self { up: None, step: Step::Top };
}

impl<'a> Trail<'a> {
    pub(super) fn key(&'a self, key: &'a str) -> Trail<'a> {
        Trail { up: Some(self), step: Step::Key(key) }
    }

    pub(super) fn item(&'a self, at: usize) -> Trail<'a> {
        Trail { up: Some(self), step: Step::Item(at) }
    }
}

impl fmt::Display for Trail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(up) = self.up {
            up.fmt(f)?;
        }
        let first = self.up.is_none_or(|up| matches!(up.step, Step::Top));
        let dot = if first { "" } else { "." };
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
        match self.step {
            Step::Top => Ok(()),
            Step::Item(at) => write!(f, "[{at}]"),
            Step::Key(key) if key.len() <= QUOTED_CHARS_MAX && key.chars().all(plain) => {
                write!(f, "{dot}{key}")
            }
            Step::Key(key) => write!(f, "{dot}{}", quoted(key)),
        }
    }
}
