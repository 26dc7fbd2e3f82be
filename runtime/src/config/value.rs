//! Reads a driver's configuration as its type says.

use bus_schema::{Field, Type, Value, Variant};
use serde_json::{Value as Json, json};

use super::{
    problem::{Problems, Trail, listed, quoted},
    yaml::{Data, Entry, Mark, Plain, Scalar, Yaml},
};

/// The value of `yaml` as `ty`. `None` if it has none; `problems` says why, all reasons at once.
pub(super) fn read(
    yaml: &Yaml,
    ty: &Type,
    trail: &Trail<'_>,
    problems: &mut Problems,
) -> Option<Value> {
    match (ty, &yaml.data) {
        (Type::Optional(_), _) if yaml.is_null() => Some(Value::Nil),
        (Type::Optional(inner), _) => read(yaml, inner, trail, problems),
        (Type::Any | Type::Resource, _) => Some(any(yaml)),
        (Type::List(item), Data::List(list)) => {
            let items = list.iter().enumerate();
            let values: Vec<_> =
                items.map(|(at, yaml)| read(yaml, item, &trail.item(at), problems)).collect();
            values.into_iter().collect::<Option<_>>().map(Value::List)
        }
        (Type::Map(_) | Type::Struct { .. }, Data::Map(map)) => {
            entries(&map.iter().collect::<Vec<_>>(), ty, yaml.under, trail, problems)
        }
        (Type::Enum { variants, .. }, _) => variant(yaml, variants, trail, problems),
        (Type::Bytes, Data::Map(_)) => {
            let value = Value::from_json(ty, &json_of(yaml)).ok();
            value.or_else(|| wrong(yaml, ty, trail, problems))
        }
        (_, Data::Scalar(scalar)) => plain(scalar, ty).or_else(|| wrong(yaml, ty, trail, problems)),
        _ => wrong(yaml, ty, trail, problems),
    }
}

/// The value of a mapping whose owner is at `owner`, as a struct, a map, or (empty) nothing.
pub(super) fn entries(
    map: &[&Entry],
    ty: &Type,
    owner: Mark,
    trail: &Trail<'_>,
    problems: &mut Problems,
) -> Option<Value> {
    match ty {
        Type::Struct { fields, .. } => structure(map, fields, owner, trail, problems),
        Type::Map(of) => {
            let value = |e: &Entry, problems: &mut Problems| {
                Some((e.key.clone(), read(&e.value, of, &trail.key(&e.key), problems)?))
            };
            let values: Vec<_> = map.iter().map(|entry| value(entry, problems)).collect();
            values.into_iter().collect::<Option<_>>().map(Value::Map)
        }
        _ => structure(map, &[], owner, trail, problems).map(|_| Value::Nil),
    }
}

fn structure(
    map: &[&Entry],
    fields: &[Field],
    owner: Mark,
    trail: &Trail<'_>,
    problems: &mut Problems,
) -> Option<Value> {
    let names: Vec<_> = fields.iter().map(|field| field.name.as_str()).collect();
    let unknown = || map.iter().filter(|entry| !names.contains(&entry.key.as_str()));
    for Entry { key, at, .. } in unknown() {
        problems.unknown_key(*at, trail, key, &names);
    }
    let mut good = unknown().next().is_none();
    let mut values = Vec::with_capacity(fields.len());
    for Field { name, ty, optional, .. } in fields {
        match map.iter().find(|entry| entry.key == *name) {
            Some(entry) => match read(&entry.value, ty, &trail.key(name), problems) {
                Some(value) => values.push((name.clone(), value)),
                None => good = false,
            },
            None if *optional || matches!(ty, Type::Optional(_)) => {}
            None => {
                let text = format!("the key {name:?} is missing: {}", wanted(ty));
                problems.add(owner, trail, text);
                good = false;
            }
        }
    }
    good.then_some(Value::Map(values))
}

fn variant(
    yaml: &Yaml,
    variants: &[Variant],
    trail: &Trail<'_>,
    problems: &mut Problems,
) -> Option<Value> {
    let (word, at, carried) = match &yaml.data {
        Data::Scalar(scalar) if !yaml.is_null() => (&scalar.text, yaml.at, None),
        Data::Map(map) if map.len() == 1 => (&map[0].key, map[0].at, Some(&map[0].value)),
        _ => {
            let text = format!("expected {}, got {}", one_of(variants), yaml.what());
            problems.add(yaml.at, trail, text);
            return None;
        }
    };
    let Some(Variant { carries, .. }) = variants.iter().find(|v| v.name == *word) else {
        let text = format!("expected {}, got {}", one_of(variants), quoted(word));
        problems.add_near(at, trail, text, word, variants.iter().map(|v| v.name.as_str()));
        return None;
    };
    match (carries, carried) {
        (Type::Unit, None) => Some(Value::Text(word.clone())),
        (Type::Unit, Some(_)) => {
            problems.add(at, trail, format_args!("{word:?} stands alone: write just {word}"));
            None
        }
        (ty, None) => {
            let text = format!("{word:?} needs a value: write {word}: …, which is {}", wanted(ty));
            problems.add(at, trail, text);
            None
        }
        (ty, Some(yaml)) => {
            let value = read(yaml, ty, &trail.key(word), problems)?;
            Some(Value::Map(vec![(word.clone(), value)]))
        }
    }
}

/// The value of a scalar as a type that has no parts.
fn plain(scalar: &Scalar, ty: &Type) -> Option<Value> {
    let text = || Json::String(scalar.text.clone());
    match (ty, scalar.plain()) {
        (Type::Unit, Plain::Null) => Some(Value::Nil),
        (Type::Bool, Plain::Bool(b)) => Some(Value::Bool(b)),
        (Type::I64, Plain::Integer(n)) => i64::try_from(n).ok().map(signed),
        (Type::U64, Plain::Integer(n)) => u64::try_from(n).ok().map(Value::U64),
        (Type::F64, Plain::Integer(n)) => Some(Value::F64(n as f64)),
        (Type::F64, Plain::Float(x)) => Some(Value::F64(x)),
        (Type::Text, Plain::Text) => Some(Value::Text(scalar.text.clone())),
        (Type::Bytes, Plain::Text) => Some(Value::Bytes(scalar.text.clone().into())),
        (Type::Duration, Plain::Text | Plain::Integer(_) | Plain::Float(_))
        | (Type::Timestamp, Plain::Text) => Value::from_json(ty, &text()).ok(),
        (Type::Timestamp, Plain::Integer(n)) => Value::from_json(ty, &json!(n as f64)).ok(),
        (Type::Timestamp, Plain::Float(x)) => Value::from_json(ty, &json!(x)).ok(),
        _ => None,
    }
}

fn signed(n: i64) -> Value {
    u64::try_from(n).map_or(Value::I64(n), Value::U64)
}

/// Says what was expected and what is there. Always `None`, to be the value.
fn wrong(yaml: &Yaml, ty: &Type, trail: &Trail<'_>, problems: &mut Problems) -> Option<Value> {
    let got = match &yaml.data {
        Data::Scalar(scalar) => (scalar.plain(), scalar.text.as_str()),
        _ => (Plain::Null, ""),
    };
    let text = match (ty, got) {
        // Not shown: it may be a password.
        (Type::Text | Type::Bytes, (Plain::Bool(_), _)) => quote_it("a boolean"),
        (Type::Text | Type::Bytes, (Plain::Integer(_) | Plain::Float(_), _)) => {
            quote_it("a number")
        }
        (Type::I64 | Type::U64 | Type::F64, (Plain::Text, text)) if text.parse::<f64>().is_ok() => {
            format!("expected {}, got {}: leave out the quotes", wanted(ty), yaml.what())
        }
        _ => format!("expected {}, got {}", wanted(ty), yaml.what()),
    };
    problems.add(yaml.at, trail, text);
    None
}

pub(super) fn quote_it(got: &str) -> String {
    format!("expected text, got {got}: put it in quotes")
}

/// What would be right, for people.
fn wanted(ty: &Type) -> String {
    match ty {
        Type::Unit => "nothing".to_owned(),
        Type::Bool => "true or false".to_owned(),
        Type::I64 => "an integer".to_owned(),
        Type::U64 => "an integer from zero".to_owned(),
        Type::F64 => "a number".to_owned(),
        Type::Bytes => "bytes (text, or {base64: …})".to_owned(),
        Type::Timestamp => "a timestamp (2026-11-23T21:00:00Z, or seconds since 1970)".to_owned(),
        Type::Duration => "a duration (2s, 1m30s, 250ms, or a number of seconds)".to_owned(),
        Type::List(item) => format!("a {}", Type::List(item.clone())),
        Type::Map(_) => "a mapping".to_owned(),
        Type::Struct { fields, .. } => {
            format!("a mapping with the keys {}", listed(fields.iter().map(|f| f.name.as_str())))
        }
        Type::Enum { variants, .. } => one_of(variants),
        Type::Optional(inner) => wanted(inner),
        Type::Text | Type::Resource | Type::Any => ty.to_string(),
    }
}

fn one_of(variants: &[Variant]) -> String {
    format!("one of {}", listed(variants.iter().map(|v| v.name.as_str())))
}

/// The value of a node by itself.
fn any(yaml: &Yaml) -> Value {
    match &yaml.data {
        Data::List(list) => Value::List(list.iter().map(any).collect()),
        Data::Map(map) => Value::Map(map.iter().map(|e| (e.key.clone(), any(&e.value))).collect()),
        Data::Scalar(scalar) => match scalar.plain() {
            Plain::Null => Value::Nil,
            Plain::Bool(b) => Value::Bool(b),
            Plain::Integer(n) => match (u64::try_from(n), i64::try_from(n)) {
                (Ok(n), _) => Value::U64(n),
                (_, Ok(n)) => Value::I64(n),
                _ => Value::F64(n as f64),
            },
            Plain::Float(x) => Value::F64(x),
            Plain::Text => Value::Text(scalar.text.clone()),
        },
    }
}

fn json_of(yaml: &Yaml) -> Json {
    any(yaml).to_json(&Type::Any)
}
