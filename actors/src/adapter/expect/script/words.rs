//! The words of a line.

use std::{collections::BTreeMap, iter::Peekable, str::Chars};

/// One word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// As it stands.
    Bare(String),
    /// In quotes, escapes and variables read.
    Text(Vec<u8>),
    /// Between slashes.
    Regex(String),
}

/// Splits a line.
pub(super) fn words(line: &str, variables: &BTreeMap<String, String>) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        let word = match c {
            c if c.is_whitespace() => continue,
            '#' => break,
            '"' => Word::Text(text(&mut rest, variables)?),
            '/' => Word::Regex(regex(&mut rest)?),
            c => {
                let mut bare = String::from(c);
                while let Some(c) = rest.next_if(|c| !c.is_whitespace() && !"\"/#".contains(*c)) {
                    bare.push(c);
                }
                Word::Bare(bare)
            }
        };
        if rest.peek().is_some_and(|c| !c.is_whitespace() && *c != '#') {
            return Err(format!("there must be a space after {word}"));
        }
        words.push(word);
    }
    Ok(words)
}

fn regex(rest: &mut Peekable<Chars<'_>>) -> Result<String, String> {
    let mut expression = String::new();
    loop {
        match rest.next() {
            None => return Err("the expression does not end: / is missing".to_owned()),
            Some('/') => return Ok(expression),
            Some('\\') if rest.next_if_eq(&'/').is_some() => expression.push('/'),
            Some('\\') => {
                expression.push('\\');
                expression.extend(rest.next());
            }
            Some(c) => expression.push(c),
        }
    }
}

fn text(
    rest: &mut Peekable<Chars<'_>>,
    variables: &BTreeMap<String, String>,
) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    loop {
        match rest.next() {
            None => return Err("the text does not end: \" is missing".to_owned()),
            Some('"') => return Ok(text),
            Some('\\') => text.push(escape(rest)?),
            Some('$') if rest.next_if_eq(&'{').is_some() => {
                text.extend_from_slice(variable(rest, variables)?.as_bytes());
            }
            Some(c) => text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

fn escape(rest: &mut Peekable<Chars<'_>>) -> Result<u8, String> {
    Ok(match rest.next() {
        Some('r') => b'\r',
        Some('n') => b'\n',
        Some('t') => b'\t',
        Some('e') => 0x1b,
        Some('"') => b'"',
        Some('\\') => b'\\',
        Some('$') => b'$',
        Some('x') => {
            let mut digit = || rest.next().and_then(|c| c.to_digit(16)?.try_into().ok());
            let (high, low): (Option<u8>, Option<u8>) = (digit(), digit());
            let byte = high.zip(low).map(|(high, low)| high << 4 | low);
            byte.ok_or_else(|| "after \\x come two hex digits, as in \\x1b".to_owned())?
        }
        other => {
            let other = other.map_or_else(String::new, String::from);
            return Err(format!(
                "there is no \\{other}: there are \\r \\n \\t \\e \\\" \\\\ \\$ \\xNN"
            ));
        }
    })
}

fn variable<'a>(
    rest: &mut Peekable<Chars<'_>>,
    variables: &'a BTreeMap<String, String>,
) -> Result<&'a str, String> {
    let mut name = String::new();
    loop {
        match rest.next() {
            Some('}') => break,
            Some('"') | None => return Err(format!("${{{name} does not end: }} is missing")),
            Some(c) => name.push(c),
        }
    }
    let value = variables.get(&name);
    value.map(String::as_str).ok_or_else(|| {
        format!("${{{name}}} has no value: give one by --set {name}=VALUE, or write \\${{ for ${{")
    })
}
