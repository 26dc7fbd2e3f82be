//! What is waited for.

use std::{fmt, ops::Range};

use regex::bytes::{Regex, RegexBuilder};

use super::seen::escaped;

/// A compiled expression may not take more memory than this.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// What is waited for: some text, a regular expression, or the end of the stream.
#[derive(Clone, Debug)]
pub struct Pattern(Is);

#[derive(Clone, Debug)]
enum Is {
    Literal(Vec<u8>),
    Regex(Box<Regex>),
    End,
}

/// Why something is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// The expression cannot be read.
    #[error("{0}")]
    Syntax(String),
    /// It would match before anything was said.
    #[error("{0} matches where nothing was said: say what is to come")]
    MatchesNothing(String),
}

/// Where a pattern matched.
pub(super) struct Found {
    pub(super) at: Range<usize>,
    pub(super) groups: Vec<Option<Range<usize>>>,
}

impl Pattern {
    /// This text, byte for byte.
    ///
    /// # Errors
    ///
    /// [`BadPattern`] if it is empty.
    pub fn literal(text: impl Into<Vec<u8>>) -> Result<Self, BadPattern> {
        let text = text.into();
        match text.is_empty() {
            true => Err(BadPattern::MatchesNothing("\"\"".to_owned())),
            false => Ok(Self(Is::Literal(text))),
        }
    }

    /// A regular expression over bytes, in the syntax of the crate `regex`: `.` is any byte but a
    /// line feed, `$` is the end of what has come so far, `(?i)` before it ignores case.
    ///
    /// # Errors
    ///
    /// [`BadPattern`] if it cannot be read, or matches where nothing was said.
    pub fn regex(expression: &str) -> Result<Self, BadPattern> {
        let mut builder = RegexBuilder::new(expression);
        let built = builder.unicode(false).size_limit(REGEX_BYTES_MAX).build();
        let regex = built.map_err(|error| BadPattern::Syntax(error.to_string()))?;
        match regex.is_match(b"") {
            true => Err(BadPattern::MatchesNothing(format!("/{expression}/"))),
            false => Ok(Self(Is::Regex(Box::new(regex)))),
        }
    }

    /// The end of the stream.
    pub fn end() -> Self {
        Self(Is::End)
    }

    /// Where it matches in `buffer`, of which the first `searched` bytes hold no match.
    fn find(&self, buffer: &[u8], searched: usize, ended: bool) -> Option<Found> {
        let found = |at| Found { at, groups: Vec::new() };
        match &self.0 {
            Is::Literal(text) => {
                // One that began in what was searched may end in what is new.
                let from = searched.saturating_sub(text.len() - 1);
                let at = buffer[from..].windows(text.len()).position(|piece| piece == text)?;
                Some(found(from + at..from + at + text.len()))
            }
            Is::Regex(regex) => {
                let captures = regex.captures(buffer)?;
                let at = captures.get(0)?.range();
                let groups = captures.iter().skip(1).map(|group| Some(group?.range())).collect();
                Some(Found { at, groups })
            }
            Is::End => ended.then(|| found(buffer.len()..buffer.len())),
        }
    }
}

/// The match that begins first; of two that begin at one place, that of the pattern that is first.
pub(super) fn first(
    patterns: &[Pattern],
    buffer: &[u8],
    searched: usize,
    ended: bool,
) -> Option<(usize, Found)> {
    let matches = patterns.iter().enumerate();
    let matches = matches.filter_map(|(at, p)| Some((at, p.find(buffer, searched, ended)?)));
    matches.min_by_key(|(_, found)| found.at.start)
}

impl From<&str> for Pattern {
    /// This text, which must not be empty: an empty one never comes.
    fn from(text: &str) -> Self {
        Self::literal(text).unwrap_or_else(|_| Self::end())
    }
}

impl From<String> for Pattern {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Is::Literal(text) => write!(f, "\"{}\"", escaped(text)),
            Is::Regex(regex) => write!(f, "/{regex}/"),
            Is::End => f.write_str("the end"),
        }
    }
}
