//! What was seen, for people.

use std::fmt;

/// Most bytes that are shown: some screens full.
const SHOWN_BYTES_MAX: usize = 2 << 10;

/// What came since the last match: the end of it, with its control characters shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The last bytes of it.
    pub tail: Vec<u8>,
    /// How many there were in all.
    pub bytes: u64,
}

impl Seen {
    pub(super) fn of(buffer: &[u8], dropped: u64) -> Self {
        let tail = buffer[buffer.len().saturating_sub(SHOWN_BYTES_MAX)..].to_vec();
        Self { tail, bytes: dropped + buffer.len() as u64 }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tail, bytes } = self;
        match (tail.len() as u64, bytes) {
            (_, 0) => return f.write_str("nothing was seen"),
            (shown, all) if shown < *all => write!(f, "the last {shown} of {all} bytes seen:")?,
            (_, all) => write!(f, "seen ({all} bytes):")?,
        }
        for line in tail.split_inclusive(|byte| *byte == b'\n') {
            write!(f, "\n  | {}", escaped(line))?;
        }
        Ok(())
    }
}

/// Text with its control characters shown: `\r`, `\n`, `\e`, `\x07`. What is no UTF-8 is shown byte
/// by byte.
pub(super) fn escaped(bytes: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => shown.push_str("\\n"),
                '\r' => shown.push_str("\\r"),
                '\t' => shown.push_str("\\t"),
                '\x1b' => shown.push_str("\\e"),
                '\\' => shown.push_str("\\\\"),
                '\0'..='\x7f' if c.is_control() => {
                    shown.push_str(&format!("\\x{:02x}", u32::from(c)))
                }
                c if c.is_control() => shown.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
                c => shown.push(c),
            }
        }
        for byte in chunk.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shown
}
