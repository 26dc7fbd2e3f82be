//! serde attributes that would make the description a lie.

use bus_schema::Describe;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Describe)]
struct Inner {
    volts: f64,
}

#[derive(Serialize, Deserialize, Describe)]
struct Flat {
    #[serde(flatten)]
    inner: Inner,
}

#[derive(Serialize, Deserialize, Describe)]
#[serde(untagged)]
enum Untagged {
    Number(u32),
    Text(String),
}

#[derive(Serialize, Deserialize, Describe)]
#[serde(tag = "kind")]
enum Tagged {
    On,
}

#[derive(Serialize, Deserialize, Describe)]
struct With {
    #[serde(with = "somewhere")]
    wait_ms: u32,
}

mod somewhere {
    pub fn serialize<S: serde::Serializer>(_: &u32, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_unit()
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(_: D) -> Result<u32, D::Error> {
        Ok(0)
    }
}

fn main() {}
