//! Values from JSON, as their types decide, and the texts of durations and timestamps.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::Value as Json;

use super::{Value, ValueError, carried, signed};
use crate::{Field, Lent, Type, Variant, limits::DEPTH_MAX};

pub(super) fn from_json(ty: &Type, json: &Json, depth: usize) -> Result<Value, ValueError> {
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

pub(super) fn lent_from_text(text: &str) -> Result<Value, ValueError> {
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

pub(super) fn any_from_json(json: &Json) -> Value {
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
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => humantime::parse_duration(text).ok(),
    }
}

/// Writes a duration exactly, in the units that [`parse_duration`] reads.
pub(super) fn show_duration(span: Duration) -> String {
    humantime::format_duration(span).to_string().replace(' ', "")
}

/// Reads RFC 3339 in UTC (`2026-11-23T21:00:00.5Z`) as time since 1970.
pub(super) fn parse_timestamp(text: &str) -> Option<Duration> {
    humantime::parse_rfc3339(text).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()
}

/// Writes RFC 3339 with as many digits of a second as it takes to be exact. Years past 9999, which
/// it cannot say, become the last moment that it can.
pub(super) fn show_timestamp(time: SystemTime) -> String {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let nanos = humantime::format_rfc3339_nanos(time.min(SystemTime::UNIX_EPOCH + LAST));
    let text = nanos.to_string();
    let shortest = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    format!("{shortest}Z")
}
