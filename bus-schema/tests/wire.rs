//! The exact bytes of the wire, one file per version.
//!
//! If a test here fails, the protocol broke. Fix the type, never the bytes.

#![expect(clippy::unwrap_used, reason = "a helper of a test may, as a test may")]

#[path = "wire/v1.rs"]
mod v1;

use std::fmt::Debug;

use bus_schema::{
    codec::{self, Message},
    message::Data,
};

/// Bytes written as hex; what follows `|` in a line is their meaning.
fn hex(text: &str) -> Vec<u8> {
    let digits: String = text
        .lines()
        .map(|line| line.split('|').next().unwrap_or_default())
        .flat_map(|line| line.chars().filter(|c| !c.is_whitespace()))
        .collect();
    assert!(digits.len().is_multiple_of(2), "half a byte in {text}");
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn shown(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `message` is these bytes, and these bytes are `message`.
#[track_caller]
fn assert_wire<M: Message + PartialEq + Debug>(message: &M, bytes: &str) {
    let bytes = hex(bytes);
    assert_eq!(shown(&codec::encode(message)), shown(&bytes), "{message:?}");
    assert_eq!(&codec::decode::<M>(&bytes).unwrap(), message);
}

/// [`assert_wire`] for data, which has a codec of its own.
#[track_caller]
fn assert_data(data: &Data, bytes: &str) {
    let bytes = hex(bytes);
    assert_eq!(shown(&data.encode()), shown(&bytes), "{data:?}");
    assert_eq!(&Data::decode(&bytes.into()).unwrap(), data);
}
