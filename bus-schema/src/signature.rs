//! What can be called: types, methods and interfaces, as data.
//!
//! A signature comes from one Rust definition (by the [`interface`](macro@crate::interface),
//! [`driver`](macro@crate::driver) and [`Describe`](macro@crate::Describe) macros) and is what
//! the registry publishes, what arguments are checked against and what help is printed from.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fmt,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Value;

/// A named, versioned contract that drivers implement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name: `power`, `console`, `network` …
    pub name: String,
    /// Counts changes that are not additions.
    pub version: u32,
    /// One paragraph for people.
    #[serde(default)]
    pub help: String,
    /// Its methods, in declared order.
    pub methods: Vec<Method>,
}

impl Interface {
    /// The method called `name`.
    pub fn method(&self, name: &str) -> Option<&Method> {
        self.methods.iter().find(|method| method.name == name)
    }
}

/// The kind of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// One request, one reply.
    Call,
    /// One request, any number of items, one end.
    StreamingCall,
    /// A duplex byte pipe.
    Stream,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Call => "call",
            Self::StreamingCall => "streaming call",
            Self::Stream => "stream",
        })
    }
}

/// One exported operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Method {
    /// Its name: a token of the subject.
    pub name: String,
    /// Call, streaming call or stream.
    pub kind: Kind,
    /// What it does, for people.
    #[serde(default)]
    pub help: String,
    /// Its parameters, in order. New ones are appended and have defaults.
    pub params: Vec<Field>,
    /// Type of the result, or of one item; [`Type::Unit`] for a stream.
    pub result: Type,
    /// Whether it may run while another call of the same driver does.
    #[serde(default)]
    pub concurrent: bool,
    /// Whether it must not be interrupted once it has begun (a bootloader write).
    #[serde(default)]
    pub uncancellable: bool,
    /// Whether it only observes: it needs no lease, and another's lease does not end it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub observe: bool,
    /// Deadline in ms for callers that name none; absent means the protocol's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

impl fmt::Display for Method {
    /// The signature as people read it: `cycle(wait: duration = 2s) -> nothing`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.name)?;
        for (at, param) in self.params.iter().enumerate() {
            write!(f, "{}{param}", if at == 0 { "" } else { ", " })?;
        }
        match self.kind {
            Kind::Call => write!(f, ") -> {}", self.result),
            Kind::StreamingCall => write!(f, ") -> stream of {}", self.result),
            Kind::Stream => write!(f, ") -> byte stream"),
        }
    }
}

/// A parameter of a method, a field of a struct, or a key of a driver's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: Type,
    /// What it means, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub help: String,
    /// Whether it may be left out.
    #[serde(default)]
    pub optional: bool,
    /// The value it then has, if that can be said.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub default: Option<Value>,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.ty)?;
        match &self.default {
            Some(value) => write!(f, " = {}", value.shown_as(&self.ty)),
            None if self.optional => f.write_str(" = …"),
            None => Ok(()),
        }
    }
}

/// A default of nil is a default: serde's own `Option` would read it as none.
fn present<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(d).map(Some)
}

/// A type of the wire. PROTOCOL.md tables the MessagePack and JSON forms of each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Type {
    /// No value.
    Unit,
    /// True or false.
    Bool,
    /// A signed integer of up to 64 bits.
    I64,
    /// An unsigned integer of up to 64 bits.
    U64,
    /// A floating-point number.
    F64,
    /// UTF-8 text.
    Text,
    /// Bytes.
    Bytes,
    /// A moment.
    Timestamp,
    /// A span of time.
    Duration,
    /// Any number of one type.
    List(Box<Type>),
    /// Text keys to one type.
    Map(Box<Type>),
    /// Named fields.
    Struct {
        /// The type's name, for people.
        name: String,
        /// Its fields.
        fields: Vec<Field>,
    },
    /// One of several named variants.
    Enum {
        /// The type's name, for people.
        name: String,
        /// Its variants.
        variants: Vec<Variant>,
    },
    /// A value or nothing.
    Optional(Box<Type>),
    /// Data that a client lends to a driver.
    Resource,
    /// Any value.
    Any,
}

/// One variant of an enum: a plain word, or a word that carries one value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// The word on the wire.
    pub name: String,
    /// What it means, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub help: String,
    /// What it carries; [`Type::Unit`] for a plain word.
    pub carries: Type,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit => f.write_str("nothing"),
            Self::Bool => f.write_str("bool"),
            Self::I64 => f.write_str("i64"),
            Self::U64 => f.write_str("u64"),
            Self::F64 => f.write_str("f64"),
            Self::Text => f.write_str("text"),
            Self::Bytes => f.write_str("bytes"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::List(item) => write!(f, "list of {item}"),
            Self::Map(value) => write!(f, "map of {value}"),
            Self::Struct { name, .. } => f.write_str(name),
            Self::Enum { variants, .. } => {
                let words: Vec<_> = variants.iter().map(|v| v.name.as_str()).collect();
                f.write_str(&words.join("|"))
            }
            Self::Optional(inner) => write!(f, "{inner}?"),
            Self::Resource => f.write_str("resource"),
            Self::Any => f.write_str("any"),
        }
    }
}

/// A Rust type that has a type of the wire. Derive it for structs and enums.
///
/// `u8` has none on purpose: `Vec<u8>` would travel as a list of numbers. Use [`Bytes`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no type of the wire",
    label = "arguments, results and items need one",
    note = "derive `bus_schema::Describe` for it; bytes are `Bytes`, a small number is a `u16`"
)]
pub trait Describe {
    /// The type's description.
    fn describe() -> Type;
}

macro_rules! describe {
    ($($rust:ty => $wire:expr),* $(,)?) => {
        $(impl Describe for $rust {
            fn describe() -> Type { $wire }
        })*
    };
}

describe! {
    () => Type::Unit,
    bool => Type::Bool,
    i8 => Type::I64, i16 => Type::I64, i32 => Type::I64, i64 => Type::I64, isize => Type::I64,
    u16 => Type::U64, u32 => Type::U64, u64 => Type::U64, usize => Type::U64,
    f32 => Type::F64, f64 => Type::F64,
    String => Type::Text, Box<str> => Type::Text, std::path::PathBuf => Type::Text,
    Bytes => Type::Bytes,
    SystemTime => Type::Timestamp,
    Duration => Type::Duration,
    crate::DriverId => Type::Text, // not `Uuid`: serde writes that as bytes here, as text in JSON
    Value => Type::Any,
}

impl Describe for Cow<'_, str> {
    fn describe() -> Type {
        Type::Text
    }
}

impl<T: Describe> Describe for Vec<T> {
    fn describe() -> Type {
        Type::List(Box::new(T::describe()))
    }
}

impl<T: Describe> Describe for Option<T> {
    fn describe() -> Type {
        Type::Optional(Box::new(T::describe()))
    }
}

impl<T: Describe> Describe for Box<T> {
    fn describe() -> Type {
        T::describe()
    }
}

impl<T: Describe> Describe for BTreeMap<String, T> {
    fn describe() -> Type {
        Type::Map(Box::new(T::describe()))
    }
}

impl<T: Describe, S> Describe for HashMap<String, T, S> {
    fn describe() -> Type {
        Type::Map(Box::new(T::describe()))
    }
}
