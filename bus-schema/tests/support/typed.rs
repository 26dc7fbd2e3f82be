//! Any type of the wire, and any value of it.

use bus_schema::{Field, Type, Value, Variant};
use proptest::{
    collection::{btree_map, btree_set, vec},
    prelude::*,
};

/// The last second of the year 9999, past which RFC 3339 cannot speak.
const LAST_SECOND: u64 = 253_402_300_799;

pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z ]{0,12}", "\\PC{0,8}"]
}

/// Every type but a resource, whose form is not decided.
pub(crate) fn types() -> impl Strategy<Value = Type> {
    let leaf = prop_oneof![
        Just(Type::Unit),
        Just(Type::Bool),
        Just(Type::I64),
        Just(Type::U64),
        Just(Type::F64),
        Just(Type::Text),
        Just(Type::Bytes),
        Just(Type::Timestamp),
        Just(Type::Duration),
        Just(Type::Any),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|ty| Type::List(Box::new(ty))),
            inner.clone().prop_map(|ty| Type::Map(Box::new(ty))),
            inner.clone().prop_map(|ty| Type::Optional(Box::new(ty))),
            btree_map("[a-z]{1,6}", (inner.clone(), any::<bool>()), 0..4).prop_map(structure),
            btree_map("[a-z]{1,6}", prop_oneof![Just(Type::Unit), inner], 1..4)
                .prop_map(enumeration),
        ]
    })
}

fn structure(fields: std::collections::BTreeMap<String, (Type, bool)>) -> Type {
    let field =
        |(name, (ty, optional))| Field { name, ty, help: String::new(), optional, default: None };
    Type::Struct { name: "S".to_owned(), fields: fields.into_iter().map(field).collect() }
}

fn enumeration(variants: std::collections::BTreeMap<String, Type>) -> Type {
    let variant = |(name, carries)| Variant { name, help: String::new(), carries };
    Type::Enum { name: "E".to_owned(), variants: variants.into_iter().map(variant).collect() }
}

/// What any JSON has: no bytes, which it would show as text.
pub(crate) fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(integer),
        any::<u64>().prop_map(Value::U64),
        prop::num::f64::NORMAL.prop_map(Value::F64),
        text().prop_map(Value::Text),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::List),
            btree_map(text(), inner, 0..3).prop_map(|map| Value::Map(map.into_iter().collect())),
        ]
    })
}

/// As the decoder has it: below zero or not.
fn integer(n: i64) -> Value {
    u64::try_from(n).map_or(Value::I64(n), Value::U64)
}

fn pair(keys: [&str; 2], values: (u64, u32)) -> Value {
    let [first, second] = keys.map(str::to_owned);
    Value::Map(vec![(first, Value::U64(values.0)), (second, Value::U64(values.1.into()))])
}

/// A value of `ty`.
pub(crate) fn value_of(ty: &Type) -> BoxedStrategy<Value> {
    let nanos = || prop_oneof![Just(0), 0..1_000_000_000_u32];
    match ty {
        Type::Unit => Just(Value::Nil).boxed(),
        Type::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Type::I64 => any::<i64>().prop_map(integer).boxed(),
        Type::U64 => any::<u64>().prop_map(Value::U64).boxed(),
        Type::F64 => {
            let kinds = prop::num::f64::NORMAL
                | prop::num::f64::SUBNORMAL
                | prop::num::f64::ZERO
                | prop::num::f64::INFINITE;
            kinds.prop_map(Value::F64).boxed()
        }
        Type::Text => text().prop_map(Value::Text).boxed(),
        Type::Bytes => vec(any::<u8>(), 0..12).prop_map(|b| Value::Bytes(b.into())).boxed(),
        Type::Timestamp => (0..=LAST_SECOND, nanos())
            .prop_map(|at| pair(["secs_since_epoch", "nanos_since_epoch"], at))
            .boxed(),
        Type::Duration => (prop_oneof![0..100_000_u64, any::<u64>()], nanos())
            .prop_map(|span| pair(["secs", "nanos"], span))
            .boxed(),
        Type::List(item) => vec(value_of(item), 0..3).prop_map(Value::List).boxed(),
        Type::Map(of) => btree_map(text(), value_of(of), 0..3)
            .prop_map(|map| Value::Map(map.into_iter().collect()))
            .boxed(),
        Type::Struct { fields, .. } => struct_of(fields),
        Type::Enum { variants, .. } => {
            prop::sample::select(variants.clone()).prop_flat_map(variant_of).boxed()
        }
        Type::Optional(inner) => prop_oneof![Just(Value::Nil), value_of(inner)].boxed(),
        Type::Resource | Type::Any => anything().boxed(),
    }
}

fn struct_of(fields: &[Field]) -> BoxedStrategy<Value> {
    let left_out = btree_set(0..fields.len().max(1), 0..=fields.len());
    let fields = fields.to_vec();
    let values: Vec<_> = fields.iter().map(|field| value_of(&field.ty)).collect();
    (values, left_out)
        .prop_map(move |(values, left_out)| {
            let there = fields.iter().zip(values).enumerate();
            let there = there.filter(|(at, (field, _))| !field.optional || !left_out.contains(at));
            Value::Map(there.map(|(_, (field, value))| (field.name.clone(), value)).collect())
        })
        .boxed()
}

fn variant_of(variant: Variant) -> BoxedStrategy<Value> {
    let Variant { name, carries, .. } = variant;
    match carries {
        Type::Unit => Just(Value::Text(name)).boxed(),
        ty => value_of(&ty).prop_map(move |v| Value::Map(vec![(name.clone(), v)])).boxed(),
    }
}
