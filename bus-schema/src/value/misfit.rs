//! Why a value is not of a type, for whoever sent it.

use std::fmt;

use super::{Value, ValueError, article, carried};
use crate::{Field, Type, Variant};

/// Most of a text that is quoted back.
const QUOTED_CHARS_MAX: usize = 80;

impl Value {
    /// What is wrong with it as a `ty`, and what would be right; `None` if it is one.
    pub(crate) fn misfit(&self, ty: &Type) -> Option<ValueError> {
        let fits = match (ty, self) {
            (Type::Any, _) | (Type::Optional(_), Self::Nil) => true,
            (Type::Optional(inner), value) => return value.misfit(inner),
            (Type::List(item), Self::List(list)) => {
                let found = list.iter().enumerate().find_map(|(at, value)| {
                    Some(value.misfit(item)?.inside(format_args!("[{at}]")))
                });
                return found;
            }
            (Type::Map(of), Self::Map(map)) => {
                return map.iter().find_map(|(key, value)| within(key, value, of));
            }
            (Type::Struct { fields, .. }, Self::Map(map)) => return structure(fields, map),
            (Type::Enum { variants, .. }, value) => match variant(variants, value) {
                Some(ended) => return ended,
                None => false,
            },
            (Type::Timestamp, value) => value.as_timestamp().is_some(),
            (Type::Duration, value) => value.as_duration().is_some(),
            (Type::Unit, Self::Nil)
            | (Type::Bool, Self::Bool(_))
            | (Type::U64, Self::U64(_))
            | (Type::F64, Self::F64(_) | Self::I64(_) | Self::U64(_))
            | (Type::Text, Self::Text(_))
            | (Type::Bytes, Self::Bytes(_))
            | (Type::Resource, Self::Map(_))
            | (Type::I64, Self::I64(_)) => true,
            (Type::I64, Self::U64(n)) => i64::try_from(*n).is_ok(),
            _ => false,
        };
        let wrong = || ValueError::new(format!("expected {}, got {}", wanted(ty), Shown(self)));
        (!fits).then(wrong)
    }
}

/// What serde says of a value that its type on the wire allows and the Rust type, which is narrower,
/// does not, in the words of people: an integer that is out of range is told with the range.
pub fn plainly(said: &str) -> String {
    let Some((got, wanted)) = said
        .strip_prefix("invalid value: integer `")
        .and_then(|rest| rest.split_once("`, expected "))
    else {
        return said.to_owned();
    };
    let range = match wanted {
        "u8" => "0 to 255",
        "u16" => "0 to 65535",
        "u32" => "0 to 4294967295",
        "i8" => "-128 to 127",
        "i16" => "-32768 to 32767",
        "i32" => "-2147483648 to 2147483647",
        nonzero if nonzero.starts_with("a nonzero") => return "must not be 0".to_owned(),
        _ => return said.to_owned(),
    };
    format!("expected an integer from {range}, got {got}")
}

/// The type, with its form in MessagePack where that is not plain.
fn wanted(ty: &Type) -> String {
    match ty {
        Type::Bytes => "bytes".to_owned(),
        Type::Duration => "a duration {secs, nanos}".to_owned(),
        Type::Timestamp => "a timestamp {secs_since_epoch, nanos_since_epoch}".to_owned(),
        other => article(other),
    }
}

fn within(key: &str, value: &Value, ty: &Type) -> Option<ValueError> {
    Some(value.misfit(ty)?.inside(format_args!(".{key}")))
}

fn structure(fields: &[Field], map: &[(String, Value)]) -> Option<ValueError> {
    fields.iter().find_map(|field| match map.iter().find(|(key, _)| *key == field.name) {
        Some((key, value)) => within(key, value, &field.ty),
        None if field.optional || matches!(field.ty, Type::Optional(_)) => None,
        None => Some(ValueError::new(format!("field {:?} is missing", field.name))),
    })
}

/// `None` if it is not even the form of a variant.
fn variant(variants: &[Variant], value: &Value) -> Option<Option<ValueError>> {
    match value {
        Value::Text(word) => (*carried(variants, word)? == Type::Unit).then_some(None),
        Value::Map(map) => match map.as_slice() {
            [(word, value)] => Some(within(word, value, carried(variants, word)?)),
            _ => None,
        },
        _ => None,
    }
}

/// A value in the words of an error: short, and bytes are told from text.
struct Shown<'v>(&'v Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Nil => f.write_str("nil"),
            Value::Bool(b) => write!(f, "{b}"),
            Value::I64(n) => write!(f, "{n}"),
            Value::U64(n) => write!(f, "{n}"),
            Value::F64(x) => write!(f, "{x}"),
            Value::Text(text) => {
                write!(f, "{:?}", text.chars().take(QUOTED_CHARS_MAX).collect::<String>())
            }
            Value::Bytes(bytes) => write!(f, "{} byte(s)", bytes.len()),
            Value::List(list) => write!(f, "a list of {}", list.len()),
            Value::Map(map) => write!(f, "a map of {}", map.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn said(ty: &Type, value: &Value) -> Option<String> {
        value.misfit(ty).map(|error| error.to_string())
    }

    #[test]
    fn a_value_of_another_type_is_told_from_what_was_expected() {
        let text = |text: &str| Value::Text(text.to_owned());
        let many = Type::List(Box::new(Type::Map(Box::new(Type::I64))));
        let nested = Value::List(vec![Value::Map(vec![("a".to_owned(), text("x"))])]);
        for (ty, value, expected) in [
            (Type::U64, text("5"), "expected u64, got \"5\""),
            (Type::U64, Value::I64(-5), "expected u64, got -5"),
            (Type::I64, Value::U64(u64::MAX), "expected i64, got 18446744073709551615"),
            (Type::Text, Value::Bytes(Bytes::from_static(b"ab")), "expected text, got 2 byte(s)"),
            (Type::Bytes, text("hi"), "expected bytes, got \"hi\""),
            (Type::Duration, Value::U64(2), "expected a duration {secs, nanos}, got 2"),
            (Type::Bool, Value::Nil, "expected bool, got nil"),
            (Type::F64, Value::List(vec![]), "expected f64, got a list of 0"),
            (many, nested, "[0].a: expected i64, got \"x\""),
        ] {
            assert_eq!(said(&ty, &value).as_deref(), Some(expected));
        }
        for (ty, value) in [
            (Type::I64, Value::U64(5)),
            (Type::F64, Value::I64(-5)),
            (Type::Optional(Box::new(Type::Text)), Value::Nil),
            (Type::Any, Value::Map(vec![])),
            (Type::Duration, Value::duration(std::time::Duration::from_millis(1))),
        ] {
            assert_eq!(said(&ty, &value), None, "{ty} {value:?}");
        }
    }

    #[test]
    fn an_integer_that_is_out_of_range_is_told_with_the_range() {
        let said = serde_json::from_str::<u16>("99999").unwrap_err();
        let said = said.to_string();
        let (said, _) = said.split_once(" at line").unwrap();
        assert_eq!(plainly(said), "expected an integer from 0 to 65535, got 99999");
        assert_eq!(plainly("the fuse is blown"), "the fuse is blown");
    }
}
