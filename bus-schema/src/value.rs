//! A value whose type is known only at run time, and its MessagePack, JSON and typed-word forms.

mod json;
mod misfit;
mod msgpack;

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde_json::Value as Json;

use self::json::{any_from_json, from_json, lent_from_text, show_duration, show_timestamp};
pub use self::misfit::plainly;
use crate::{Type, Variant};

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

fn signed(n: i64) -> Value {
    u64::try_from(n).map_or(Value::I64(n), Value::U64)
}

#[cfg(test)]
mod tests {
    use super::{
        json::{parse_duration, parse_timestamp},
        *,
    };
    use crate::Field;

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
