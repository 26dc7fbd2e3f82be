//! YAML text as a tree in which everything has its position.
//!
//! `saphyr-parser` reads it: YAML 1.2 (so `on` is text), a position for every event, no recursion and
//! two small dependencies; the crates above it end at the first error or read YAML 1.1's booleans.

use std::collections::HashMap;

use bus_schema::limits::DEPTH_MAX;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};

use super::problem::{Problems, Trail, quoted};

/// Deepest nesting: two levels for each driver of the deepest path, one for each of a value's, and
/// a few for what is around them.
const NESTING_MAX: usize = 3 * DEPTH_MAX + 8;
/// What the anchors and aliases of a file may stand for. Without a bound, one line doubles the next.
const ALIASED_BYTES_MAX: usize = 1 << 20;
/// What a node counts besides its text.
const NODE_BYTES: usize = 16;

/// A place in the file, both from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) line: u32,
    pub(super) column: u32,
}

impl Mark {
    pub(super) const START: Self = Self { line: 1, column: 1 };

    /// The place behind `text`.
    pub(super) fn after(text: &str) -> Self {
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let last = text.rsplit('\n').next().unwrap_or("");
        Self {
            line: narrow(1 + text.matches('\n').count()),
            column: narrow(1 + last.chars().count()),
        }
    }
}

impl From<Marker> for Mark {
    fn from(marker: Marker) -> Self {
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { line: narrow(marker.line().max(1)), column: narrow(marker.col() + 1) }
    }
}

/// A node of the tree.
#[derive(Clone, Debug)]
pub(super) struct Yaml {
    /// Where it begins.
    pub(super) at: Mark,
    /// Where the key it belongs to begins, or else itself.
    pub(super) under: Mark,
    pub(super) data: Data,
}

#[derive(Clone, Debug)]
pub(super) enum Data {
    Scalar(Scalar),
    List(Vec<Yaml>),
    Map(Vec<Entry>),
}

/// A key and its value. No two of a mapping have one key.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: Mark,
    pub(super) value: Yaml,
}

#[derive(Clone, Debug)]
pub(super) struct Scalar {
    pub(super) text: String,
    /// Not quoted, and no block: it may be a number.
    pub(super) plain: bool,
}

/// What a scalar is by itself, by the core schema of YAML 1.2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Plain {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text,
}

impl Scalar {
    pub(super) fn plain(&self) -> Plain {
        if !self.plain {
            return Plain::Text;
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Plain::Null,
            "true" | "True" | "TRUE" => Plain::Bool(true),
            "false" | "False" | "FALSE" => Plain::Bool(false),
            text => number(text).unwrap_or(Plain::Text),
        }
    }
}

fn number(text: &str) -> Option<Plain> {
    let radix = |digits: &str, radix| {
        let plain = digits.bytes().all(|b| b.is_ascii_alphanumeric());
        i128::from_str_radix(digits, radix).ok().filter(|_| plain).map(Plain::Integer)
    };
    match text {
        ".nan" | ".NaN" | ".NAN" => return Some(Plain::Float(f64::NAN)),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Some(Plain::Float(f64::INFINITY));
        }
        "-.inf" | "-.Inf" | "-.INF" => return Some(Plain::Float(f64::NEG_INFINITY)),
        _ => {}
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    // Rust reads `inf` and `nan` as numbers too; YAML does not.
    let numeric = |b: u8| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E');
    if !text.bytes().all(numeric) {
        return None;
    }
    let integer = text.parse().ok().map(Plain::Integer);
    integer.or_else(|| text.parse().ok().map(Plain::Float))
}

impl Yaml {
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.data, Data::Scalar(scalar) if scalar.plain() == Plain::Null)
    }

    /// What it is, for *expected …, got …*.
    pub(super) fn what(&self) -> String {
        match &self.data {
            Data::List(_) => "a list".to_owned(),
            Data::Map(_) => "a mapping".to_owned(),
            Data::Scalar(scalar) => match scalar.plain() {
                Plain::Null => "nothing".to_owned(),
                Plain::Bool(_) | Plain::Integer(_) | Plain::Float(_) => {
                    scalar.text.chars().take(80).collect()
                }
                Plain::Text => format!("the text {}", quoted(&scalar.text)),
            },
        }
    }

    /// The node that `steps` lead to, or the last one on the way that there is.
    pub(super) fn nearest(&self, steps: &[String]) -> &Self {
        let next = steps.split_first().and_then(|(step, rest)| {
            let below = match &self.data {
                Data::Map(map) => map.iter().find(|e| e.key == *step).map(|e| &e.value),
                Data::List(list) => step.parse::<usize>().ok().and_then(|at| list.get(at)),
                Data::Scalar(_) => None,
            };
            below.map(|below| (below, rest))
        });
        next.map_or(self, |(below, rest)| below.nearest(rest))
    }
}

/// Reads the one document of `text`. `None` if that cannot be done; `problems` says why.
pub(super) fn read(text: &str, problems: &mut Problems) -> Option<Yaml> {
    let mut builder = Builder::new(problems);
    for event in Parser::new_from_str(text) {
        let done = match event {
            Ok((event, span)) => builder.take(event, span),
            Err(error) => Err(Stop::At((*error.marker()).into(), error.info().to_owned())),
        };
        if let Err(Stop::At(at, text)) = done {
            let path = builder.path();
            builder.problems.add(at, path, text);
            return None;
        }
    }
    let root = builder.root;
    if root.is_none() {
        problems.add(Mark::START, Trail::TOP, "the file is empty");
    }
    root
}

/// Why reading ends before the end.
enum Stop {
    At(Mark, String),
}

/// A list or mapping that has begun.
struct Open {
    at: Mark,
    anchor: usize,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Yaml>),
    Map { entries: Vec<Entry>, seen: HashMap<String, Mark>, key: Option<(String, Mark)> },
}

/// A node that has a name, with its cost and height.
struct Anchored {
    yaml: Yaml,
    bytes: usize,
    height: usize,
}

struct Builder<'p> {
    problems: &'p mut Problems,
    open: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    aliased_bytes: usize,
    documents: usize,
    root: Option<Yaml>,
}

impl<'p> Builder<'p> {
    fn new(problems: &'p mut Problems) -> Self {
        Self {
            problems,
            open: Vec::new(),
            anchors: HashMap::new(),
            aliased_bytes: 0,
            documents: 0,
            root: None,
        }
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        let at = Mark::from(span.start);
        match event {
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                Err(Stop::At(at, "a tag (!…) has no meaning here: put text in quotes".to_owned()))
            }
            Event::Scalar(text, style, anchor, None) => {
                let plain = style == ScalarStyle::Plain;
                let data = Data::Scalar(Scalar { text: text.into_owned(), plain });
                self.put(Yaml { at, under: at, data }, anchor)
            }
            Event::SequenceStart(anchor, None) => {
                self.begin(Open { at, anchor, kind: OpenKind::List(Vec::new()) })
            }
            Event::MappingStart(anchor, None) => {
                let (entries, seen) = (Vec::new(), HashMap::new());
                let kind = OpenKind::Map { entries, seen, key: None };
                self.begin(Open { at, anchor, kind })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::DocumentStart(_) => {
                self.documents += 1;
                match self.documents {
                    1 => Ok(()),
                    _ => Err(Stop::At(at, "a second document: a file holds one".to_owned())),
                }
            }
            Event::DocumentEnd | Event::StreamStart | Event::StreamEnd | Event::Nothing => Ok(()),
        }
    }

    fn begin(&mut self, open: Open) -> Result<(), Stop> {
        if self.open.len() >= NESTING_MAX {
            return Err(Stop::At(open.at, format!("nested deeper than {NESTING_MAX}")));
        }
        self.open.push(open);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Stop> {
        let Some(Open { at, anchor, kind }) = self.open.pop() else { return Ok(()) };
        let data = match kind {
            OpenKind::List(list) => Data::List(list),
            OpenKind::Map { entries, .. } => Data::Map(entries),
        };
        self.put(Yaml { at, under: at, data }, anchor)
    }

    fn alias(&mut self, anchor: usize, at: Mark) -> Result<(), Stop> {
        let Some(Anchored { yaml, bytes, height }) = self.anchors.get(&anchor) else {
            return Err(Stop::At(at, "an alias inside of what it stands for".to_owned()));
        };
        if self.open.len() + height > NESTING_MAX {
            return Err(Stop::At(at, format!("nested deeper than {NESTING_MAX}")));
        }
        let (yaml, bytes) = (yaml.clone(), *bytes);
        self.spend(at, bytes)?;
        self.put(yaml, 0)
    }

    fn spend(&mut self, at: Mark, bytes: usize) -> Result<(), Stop> {
        self.aliased_bytes = self.aliased_bytes.saturating_add(bytes);
        if self.aliased_bytes <= ALIASED_BYTES_MAX {
            return Ok(());
        }
        let text = format!("the anchors and aliases stand for more than {ALIASED_BYTES_MAX} bytes");
        Err(Stop::At(at, text))
    }

    /// Puts a finished node where it belongs.
    fn put(&mut self, yaml: Yaml, anchor: usize) -> Result<(), Stop> {
        if anchor > 0 {
            let (bytes, height) = size(&yaml);
            self.spend(yaml.at, bytes)?; // before the copy is made
            self.anchors.insert(anchor, Anchored { yaml: yaml.clone(), bytes, height });
        }
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(yaml),
            Some(OpenKind::List(list)) => list.push(yaml),
            Some(OpenKind::Map { key, .. }) => match key.take() {
                None => *key = Some(key_of(yaml)?),
                Some((key, at)) => self.entry(key, at, yaml),
            },
        }
        Ok(())
    }

    fn entry(&mut self, key: String, at: Mark, value: Yaml) {
        let Some(OpenKind::Map { entries, seen, .. }) = self.open.last_mut().map(|o| &mut o.kind)
        else {
            return;
        };
        match seen.get(&key).copied() {
            Some(first) => self.twice(&key, at, first),
            None => {
                seen.insert(key.clone(), at);
                entries.push(Entry { key, at, value: Yaml { under: at, ..value } });
            }
        }
    }

    fn twice(&mut self, key: &str, at: Mark, first: Mark) {
        let mut path = self.path();
        step(&mut path, key);
        let text = format!("the key {} is there twice, first in line {}", quoted(key), first.line);
        self.problems.add(at, path, text);
    }

    /// The keys that lead to what is being read.
    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            match &open.kind {
                OpenKind::List(list) => path.push_str(&format!("[{}]", list.len())),
                OpenKind::Map { key: None, .. } => {}
                OpenKind::Map { key: Some((key, _)), .. } => step(&mut path, key),
            }
        }
        path
    }
}

fn step(path: &mut String, key: &str) {
    let dot = if path.is_empty() { "" } else { "." };
    path.push_str(&format!("{dot}{}", Trail::TOP.key(key)));
}

fn key_of(yaml: Yaml) -> Result<(String, Mark), Stop> {
    match yaml.data {
        Data::Scalar(scalar) if scalar.text == "<<" && scalar.plain => {
            Err(Stop::At(yaml.at, "merging (<<) is no part of YAML 1.2: write the keys".to_owned()))
        }
        Data::Scalar(Scalar { text, .. }) if text.is_empty() => {
            Err(Stop::At(yaml.at, "an empty key".to_owned()))
        }
        Data::Scalar(scalar) => Ok((scalar.text, yaml.at)),
        _ => Err(Stop::At(yaml.at, format!("a key is a text, not {}", yaml.what()))),
    }
}

/// What a copy of a node costs, and how deep it is.
fn size(yaml: &Yaml) -> (usize, usize) {
    let sum = |(bytes, height): (usize, usize), (b, h): (usize, usize)| (bytes + b, height.max(h));
    let (bytes, height) = match &yaml.data {
        Data::Scalar(scalar) => return (NODE_BYTES + scalar.text.len(), 0),
        Data::List(list) => list.iter().map(size).fold((0, 0), sum),
        Data::Map(map) => map
            .iter()
            .map(|entry| (entry.key.len(), size(&entry.value)))
            .fold((0, 0), |all, (key, (bytes, height))| sum(all, (key + bytes, height))),
    };
    (bytes + NODE_BYTES, height + 1)
}
