//! A value whose type is known only at run time, and its MessagePack, JSON and typed-word forms.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, SeqAccess, Visitor},
    ser::{SerializeMap, SerializeSeq},
};
use serde_json::Value as Json;

use crate::{Field, Lent, Type, Variant, limits::DEPTH_MAX};

/// Any value of the wire, as MessagePack has it. Maps keep their order.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Nil,
    /// True or false.
    Bool(bool),
    /// An integer below zero.
    I64(i64),
    /// An integer from zero.
    U64(u64),
    /// A floating-point number.
    F64(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Bytes),
    /// A list.
    List(Vec<Value>),
    /// Text keys to values.
    Map(Vec<(String, Value)>),
}

/// Why a JSON value or a word does not fit a type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}{problem}")]
pub struct ValueError {
    /// Where in the value: empty, or `.field[2]: `.
    at: String,
    /// What is wrong there and what would be right.
    problem: String,
}

impl ValueError {
    fn new(problem: impl Into<String>) -> Self {
        Self { at: String::new(), problem: problem.into() }
    }

    fn wanted(ty: &Type, got: impl fmt::Display) -> Self {
        Self::new(format!("expected {}, got {got}", article(ty)))
    }

    fn inside(mut self, step: impl fmt::Display) -> Self {
        let rest = self.at.strip_suffix(": ").unwrap_or(&self.at).to_owned();
        self.at = format!("{step}{rest}: ");
        self
    }
}

/// The type with an example where a bare word would not help.
fn article(ty: &Type) -> String {
    match ty {
        Type::Duration => "a duration (2s, 1m30s, 250ms, or a number of seconds)".to_owned(),
        Type::Timestamp => "a timestamp (2026-11-23T21:00:00Z, or seconds since 1970)".to_owned(),
        Type::Bytes => "bytes (text, or {\"base64\": …})".to_owned(),
        Type::Struct { name, fields } => {
            let names: Vec<_> = fields.iter().map(|f| f.name.as_str()).collect();
            format!("{name} {{{}}}", names.join(", "))
        }
        Type::Enum { .. } => format!("one of {ty}"),
        _ => ty.to_string(),
    }
}

impl Value {
    /// Reads the JSON form that `ty` decides.
    ///
    /// # Errors
    ///
    /// [`ValueError`], which says where and what would be right.
    pub fn from_json(ty: &Type, json: &Json) -> Result<Self, ValueError> {
        from_json(ty, json, 0)
    }

    /// Reads a word that a person typed where `ty` is expected: text as it stands, numbers,
    /// durations and enum variants plainly, everything else as JSON.
    ///
    /// # Errors
    ///
    /// [`ValueError`], which says what would be right.
    pub fn from_word(ty: &Type, word: &str) -> Result<Self, ValueError> {
        let json = || {
            serde_json::from_str::<Json>(word)
                .map_err(|_| ValueError::wanted(ty, format_args!("{word:?}")))
        };
        match ty {
            Type::Text => Ok(Self::Text(word.to_owned())),
            Type::Optional(_) if matches!(word, "null" | "none") => Ok(Self::Nil),
            Type::Optional(inner) => Self::from_word(inner, word),
            Type::Bytes if !word.starts_with('{') => Ok(Self::Bytes(word.to_owned().into())),
            Type::Bool => match word {
                "true" | "yes" | "on" | "1" => Ok(Self::Bool(true)),
                "false" | "no" | "off" | "0" => Ok(Self::Bool(false)),
                _ => Err(ValueError::wanted(ty, format_args!("{word:?}"))),
            },
            Type::Duration | Type::Timestamp => {
                from_json(ty, &json().unwrap_or_else(|_| Json::String(word.to_owned())), 0)
            }
            Type::Enum { .. } if !word.starts_with(['{', '"']) => {
                from_json(ty, &Json::String(word.to_owned()), 0)
            }
            Type::Resource if !word.starts_with('{') => lent_from_text(word),
            Type::Any => Ok(json()
                .map(|j| any_from_json(&j))
                .unwrap_or_else(|_| Self::Text(word.to_owned()))),
            _ => from_json(ty, &json()?, 0),
        }
    }

    /// The JSON form that `ty` decides. A value that does not fit its type (a newer peer's) is
    /// shown as what it is.
    pub fn to_json(&self, ty: &Type) -> Json {
        match (ty, self) {
            (Type::Duration, value) => match value.as_duration() {
                Some(span) => Json::String(show_duration(span)),
                None => self.plain_json(),
            },
            (Type::Timestamp, value) => match value.as_timestamp() {
                Some(time) => Json::String(show_timestamp(time)),
                None => self.plain_json(),
            },
            (Type::Optional(inner), value) if *value != Self::Nil => value.to_json(inner),
            (Type::List(item), Self::List(list)) => {
                list.iter().map(|value| value.to_json(item)).collect()
            }
            (Type::Map(of), Self::Map(map)) => {
                map.iter().map(|(key, value)| (key.clone(), value.to_json(of))).collect()
            }
            (Type::Struct { fields, .. }, Self::Map(map)) => {
                let ty =
                    |key: &str| fields.iter().find(|f| f.name == key).map_or(&Type::Any, |f| &f.ty);
                map.iter().map(|(key, value)| (key.clone(), value.to_json(ty(key)))).collect()
            }
            (Type::Enum { variants, .. }, Self::Map(map)) => {
                let ty = |key: &str| carried(variants, key).unwrap_or(&Type::Any);
                map.iter().map(|(key, value)| (key.clone(), value.to_json(ty(key)))).collect()
            }
            _ => self.plain_json(),
        }
    }

    /// The value as a person reads it in a signature or a table: JSON, without quotes around text.
    pub fn shown_as(&self, ty: &Type) -> String {
        match self.to_json(ty) {
            Json::String(text) if matches!(ty, Type::Text | Type::Any) => format!("{text:?}"),
            Json::String(text) => text,
            other => other.to_string(),
        }
    }

    fn plain_json(&self) -> Json {
        match self {
            Self::Nil => Json::Null,
            Self::Bool(b) => (*b).into(),
            Self::I64(n) => (*n).into(),
            Self::U64(n) => (*n).into(),
            Self::F64(x) if x.is_finite() => (*x).into(),
            Self::F64(x) => Json::String(
                if x.is_nan() {
                    "NaN"
                } else if *x > 0.0 {
                    "Infinity"
                } else {
                    "-Infinity"
                }
                .to_owned(),
            ),
            Self::Text(text) => text.clone().into(),
            Self::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => text.into(),
                Err(_) => serde_json::json!({ "base64": BASE64.encode(bytes) }),
            },
            Self::List(list) => list.iter().map(Self::plain_json).collect(),
            Self::Map(map) => map.iter().map(|(k, v)| (k.clone(), v.plain_json())).collect(),
        }
    }

    /// The field `key` of a map.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(map) => map.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    fn as_u64(&self) -> Option<u64> {
        match self {
            Self::U64(n) => Some(*n),
            _ => None,
        }
    }

    /// A duration is `{secs, nanos}` on the wire, as serde writes it.
    fn as_duration(&self) -> Option<Duration> {
        let nanos =
            u32::try_from(self.get("nanos")?.as_u64()?).ok().filter(|n| *n < 1_000_000_000)?;
        Some(Duration::new(self.get("secs")?.as_u64()?, nanos))
    }

    /// A timestamp is `{secs_since_epoch, nanos_since_epoch}` on the wire, as serde writes it.
    fn as_timestamp(&self) -> Option<SystemTime> {
        let nanos = u32::try_from(self.get("nanos_since_epoch")?.as_u64()?)
            .ok()
            .filter(|n| *n < 1_000_000_000)?;
        let span = Duration::new(self.get("secs_since_epoch")?.as_u64()?, nanos);
        SystemTime::UNIX_EPOCH.checked_add(span)
    }

    fn duration(span: Duration) -> Self {
        Self::Map(vec![
            ("secs".to_owned(), Self::U64(span.as_secs())),
            ("nanos".to_owned(), Self::U64(span.subsec_nanos().into())),
        ])
    }

    fn timestamp(since_epoch: Duration) -> Self {
        Self::Map(vec![
            ("secs_since_epoch".to_owned(), Self::U64(since_epoch.as_secs())),
            ("nanos_since_epoch".to_owned(), Self::U64(since_epoch.subsec_nanos().into())),
        ])
    }
}

fn carried<'a>(variants: &'a [Variant], name: &str) -> Option<&'a Type> {
    variants.iter().find(|v| v.name == name).map(|v| &v.carries)
}

fn from_json(ty: &Type, json: &Json, depth: usize) -> Result<Value, ValueError> {
    if depth > DEPTH_MAX {
        return Err(ValueError::new(format!("nested deeper than {DEPTH_MAX}")));
    }
    let wrong = || ValueError::wanted(ty, kind_of(json));
    match ty {
        Type::Unit => json.is_null().then_some(Value::Nil).ok_or_else(wrong),
        Type::Bool => json.as_bool().map(Value::Bool).ok_or_else(wrong),
        Type::I64 => {
            integer(json).and_then(|n| i64::try_from(n).ok()).map(signed).ok_or_else(wrong)
        }
        Type::U64 => {
            integer(json).and_then(|n| u64::try_from(n).ok()).map(Value::U64).ok_or_else(wrong)
        }
        Type::F64 => match json {
            Json::String(text) => match text.as_str() {
                "NaN" => Ok(Value::F64(f64::NAN)),
                "Infinity" => Ok(Value::F64(f64::INFINITY)),
                "-Infinity" => Ok(Value::F64(f64::NEG_INFINITY)),
                _ => Err(wrong()),
            },
            _ => json.as_f64().map(Value::F64).ok_or_else(wrong),
        },
        Type::Text => json.as_str().map(|text| Value::Text(text.to_owned())).ok_or_else(wrong),
        Type::Bytes => bytes_from_json(json).ok_or_else(wrong),
        Type::Timestamp => match json {
            Json::String(text) => parse_timestamp(text),
            _ => json.as_f64().and_then(|s| Duration::try_from_secs_f64(s).ok()),
        }
        .map(Value::timestamp)
        .ok_or_else(wrong),
        Type::Duration => match json {
            Json::String(text) => parse_duration(text),
            _ => json.as_f64().and_then(|s| Duration::try_from_secs_f64(s).ok()),
        }
        .map(Value::duration)
        .ok_or_else(wrong),
        Type::List(item) => {
            let list = json.as_array().ok_or_else(wrong)?;
            let read = |(at, json)| {
                from_json(item, json, depth + 1).map_err(|e| e.inside(format_args!("[{at}]")))
            };
            list.iter().enumerate().map(read).collect::<Result<_, _>>().map(Value::List)
        }
        Type::Map(of) => {
            let map = json.as_object().ok_or_else(wrong)?;
            let read = |(key, json): (&String, &Json)| {
                let value = from_json(of, json, depth + 1);
                value.map(|v| (key.clone(), v)).map_err(|e| e.inside(format_args!(".{key}")))
            };
            map.iter().map(read).collect::<Result<_, _>>().map(Value::Map)
        }
        Type::Struct { fields, .. } => {
            struct_from_json(fields, json.as_object().ok_or_else(wrong)?, depth)
        }
        Type::Enum { variants, .. } => {
            enum_from_json(variants, json, depth).unwrap_or_else(|| Err(wrong()))
        }
        Type::Optional(_) if json.is_null() => Ok(Value::Nil),
        Type::Optional(inner) => from_json(inner, json, depth + 1),
        Type::Resource => lent_from_json(json),
        Type::Any => Ok(any_from_json(json)),
    }
}

/// A resource in JSON is what it is on the wire, or a bare URL.
fn lent_from_json(json: &Json) -> Result<Value, ValueError> {
    if let Json::String(text) = json {
        return lent_from_text(text);
    }
    let lent: Lent = serde_json::from_value(json.clone())
        .map_err(|error| ValueError::new(format!("expected a resource: {error}")))?;
    lent.check().map_err(ValueError::new)?;
    Value::of(&lent).ok_or_else(|| ValueError::wanted(&Type::Resource, kind_of(json)))
}

fn lent_from_text(text: &str) -> Result<Value, ValueError> {
    let wrong = |problem: String| {
        let right = "a resource is a URL, or what `@FILE` lends";
        ValueError::new(format!("{problem}: {right}"))
    };
    let lent = Lent::url(text).map_err(wrong)?;
    Value::of(&lent).ok_or_else(|| ValueError::wanted(&Type::Resource, "a text"))
}

fn struct_from_json(
    fields: &[Field],
    map: &serde_json::Map<String, Json>,
    depth: usize,
) -> Result<Value, ValueError> {
    if let Some(key) = map.keys().find(|key| !fields.iter().any(|f| f.name == **key)) {
        let names: Vec<_> = fields.iter().map(|f| f.name.as_str()).collect();
        return Err(ValueError::new(format!("no field {key:?}: there are {}", names.join(", "))));
    }
    let mut read = Vec::with_capacity(fields.len());
    for field in fields {
        match map.get(&field.name) {
            Some(json) => {
                let value = from_json(&field.ty, json, depth + 1)
                    .map_err(|e| e.inside(format_args!(".{}", field.name)))?;
                read.push((field.name.clone(), value));
            }
            None if field.optional || matches!(field.ty, Type::Optional(_)) => {}
            None => return Err(ValueError::new(format!("field {:?} is missing", field.name))),
        }
    }
    Ok(Value::Map(read))
}

fn enum_from_json(
    variants: &[Variant],
    json: &Json,
    depth: usize,
) -> Option<Result<Value, ValueError>> {
    match json {
        Json::String(word) => {
            (*carried(variants, word)? == Type::Unit).then(|| Ok(Value::Text(word.clone())))
        }
        Json::Object(map) if map.len() == 1 => {
            let (word, json) = map.iter().next()?;
            let value = from_json(carried(variants, word)?, json, depth + 1);
            Some(
                value
                    .map(|v| Value::Map(vec![(word.clone(), v)]))
                    .map_err(|e| e.inside(format_args!(".{word}"))),
            )
        }
        _ => None,
    }
}

fn any_from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::Nil,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match (n.as_u64(), n.as_i64()) {
            (Some(n), _) => Value::U64(n),
            (_, Some(n)) => Value::I64(n),
            _ => Value::F64(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(list) => Value::List(list.iter().map(any_from_json).collect()),
        Json::Object(map) => {
            Value::Map(map.iter().map(|(k, v)| (k.clone(), any_from_json(v))).collect())
        }
    }
}

fn signed(n: i64) -> Value {
    u64::try_from(n).map_or(Value::I64(n), Value::U64)
}

/// An integer, also where JSON's writer made it `2.0`, or text because it is past 2^53.
fn integer(json: &Json) -> Option<i128> {
    match json {
        Json::Number(n) => {
            n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from)).or_else(|| {
                let x = n.as_f64()?;
                (x.fract() == 0.0 && x.abs() <= 9_007_199_254_740_992.0).then_some(x as i128)
            })
        }
        Json::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn kind_of(json: &Json) -> String {
    match json {
        Json::Null => "null".to_owned(),
        Json::Array(_) => "a list".to_owned(),
        Json::Object(_) => "an object".to_owned(),
        Json::String(text) => format!("{:?}", text.chars().take(80).collect::<String>()),
        plain => plain.to_string(),
    }
}

fn bytes_from_json(json: &Json) -> Option<Value> {
    match json {
        Json::String(text) => Some(Value::Bytes(text.clone().into())),
        Json::Object(map) if map.len() == 1 => {
            BASE64.decode(map.get("base64")?.as_str()?).ok().map(|bytes| Value::Bytes(bytes.into()))
        }
        _ => None,
    }
}

/// Reads `2s`, `250ms`, `1m30s`, `1d3h`, or a plain number of seconds.
fn parse_duration(text: &str) -> Option<Duration> {
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => humantime::parse_duration(text).ok(),
    }
}

/// Writes a duration exactly, in the units that [`parse_duration`] reads.
fn show_duration(span: Duration) -> String {
    humantime::format_duration(span).to_string().replace(' ', "")
}

/// Reads RFC 3339 in UTC (`2026-11-23T21:00:00.5Z`) as time since 1970.
fn parse_timestamp(text: &str) -> Option<Duration> {
    humantime::parse_rfc3339(text).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()
}

/// Writes RFC 3339 with as many digits of a second as it takes to be exact. Years past 9999, which
/// it cannot say, become the last moment that it can.
fn show_timestamp(time: SystemTime) -> String {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let nanos = humantime::format_rfc3339_nanos(time.min(SystemTime::UNIX_EPOCH + LAST));
    let text = nanos.to_string();
    let shortest = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    format!("{shortest}Z")
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Nil => s.serialize_unit(),
            Self::Bool(b) => s.serialize_bool(*b),
            Self::I64(n) => s.serialize_i64(*n),
            Self::U64(n) => s.serialize_u64(*n),
            Self::F64(x) => s.serialize_f64(*x),
            Self::Text(text) => s.serialize_str(text),
            Self::Bytes(bytes) => s.serialize_bytes(bytes),
            Self::List(list) => {
                let mut seq = s.serialize_seq(Some(list.len()))?;
                list.iter().try_for_each(|value| seq.serialize_element(value))?;
                seq.end()
            }
            Self::Map(map) => {
                let mut out = s.serialize_map(Some(map.len()))?;
                map.iter().try_for_each(|(key, value)| out.serialize_entry(key, value))?;
                out.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bool(b))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
        Ok(signed(n))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
        Ok(Value::U64(n))
    }

    fn visit_f64<E>(self, x: f64) -> Result<Value, E> {
        Ok(Value::F64(x))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(Bytes::copy_from_slice(bytes)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        // No reserve from the claimed length: a five-byte message may claim 2^32 elements.
        let mut list = Vec::new();
        while let Some(value) = seq.next_element()? {
            list.push(value);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Value>()? {
            let key = match key {
                Value::Text(key) => key,
                Value::U64(n) => n.to_string(),
                Value::I64(n) => n.to_string(),
                _ => return Err(de::Error::custom("the keys of a map are text")),
            };
            entries.push((key, map.next_value()?));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(ty: Type, word: &str) -> Result<Value, String> {
        Value::from_word(&ty, word).map_err(|e| e.to_string())
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, ms) in [
            ("2s", 2_000),
            ("250ms", 250),
            ("1m30s", 90_000),
            ("0.5", 500),
            ("2", 2_000),
            ("1d3h", 97_200_000),
        ] {
            assert_eq!(
                word(Type::Duration, text),
                Ok(Value::duration(Duration::from_millis(ms))),
                "{text}"
            );
        }
        for bad in ["", "2x", "-1s", "s", "1e400"] {
            let said = word(Type::Duration, bad).unwrap_err();
            assert!(said.contains("2s"), "{bad}: {said}");
        }
    }

    #[test]
    fn durations_and_timestamps_read_back_what_they_write() {
        for span in [0, 1, 999, 1_000_000, 1_500_000_000, 60_000_000_000, 93_784_000_000_001] {
            let span = Duration::from_nanos(span);
            assert_eq!(parse_duration(&show_duration(span)), Some(span), "{span:?}");
        }
        for text in ["1970-01-01T00:00:00Z", "2000-02-29T23:59:59.5Z", "2026-11-23T21:00:00Z"] {
            let since = parse_timestamp(text).unwrap();
            assert_eq!(show_timestamp(SystemTime::UNIX_EPOCH + since), text);
        }
    }

    #[test]
    fn integers_of_64_bits_survive_json() {
        let big = u64::MAX;
        let value = Value::from_json(&Type::U64, &serde_json::json!(big)).unwrap();
        assert_eq!(value, Value::U64(big));
        assert_eq!(value.to_json(&Type::U64), serde_json::json!(big));
        assert!(Value::from_json(&Type::U64, &serde_json::json!(-1)).is_err());
    }

    #[test]
    fn bytes_that_are_no_text_travel_as_base64() {
        for bytes in [&b"\xff"[..], b"\xff\xfe", b"\xff\xfe\xfd", b"\xff\xfe\xfd\xfc"] {
            let value = Value::Bytes(Bytes::copy_from_slice(bytes));
            let json = value.to_json(&Type::Bytes);
            assert_eq!(Value::from_json(&Type::Bytes, &json), Ok(value), "{json}");
        }
    }

    #[test]
    fn a_wrong_value_says_where_and_what_would_be_right() {
        let field = |name: &str, ty| Field {
            name: name.to_owned(),
            ty,
            help: String::new(),
            optional: false,
            default: None,
        };
        let ty = Type::List(Box::new(Type::Struct {
            name: "Reading".to_owned(),
            fields: vec![field("volts", Type::F64)],
        }));
        let said = |json: &str| {
            Value::from_json(&ty, &serde_json::from_str(json).unwrap()).unwrap_err().to_string()
        };
        assert_eq!(said(r#"[{"volts": "x"}]"#), "[0].volts: expected f64, got \"x\"");
        assert_eq!(said(r#"[{"volt": 1}]"#), "[0]: no field \"volt\": there are volts");
        assert_eq!(said(r#"[{}]"#), "[0]: field \"volts\" is missing");
    }
}
