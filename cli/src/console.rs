//! A terminal in raw mode, and the key that leaves it.

use std::{fmt, io, str::FromStr};

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

/// Puts the terminal of stdin into raw mode, and back when dropped.
#[derive(Debug)]
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// `None` if stdin is no terminal.
    pub(crate) fn enter() -> io::Result<Option<Self>> {
        let stdin = rustix::stdio::stdin();
        if !isatty(stdin) {
            return Ok(None);
        }
        let before = tcgetattr(stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin, OptionalActions::Flush, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // If the terminal is gone there is nothing to bring back.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before);
    }
}

/// A control key: `Ctrl-]`, written `^]` as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(u8);

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let low = text.to_ascii_lowercase();
        let letter = low.strip_prefix("ctrl-").or_else(|| low.strip_prefix('^')).unwrap_or("");
        match letter.as_bytes() {
            [letter @ (b'a'..=b'z' | b'[' | b'\\' | b']' | b'^' | b'_')] => {
                Ok(Self(letter.to_ascii_uppercase() & 0x1f))
            }
            _ => Err(format!("{text:?} is no control key: write ctrl-a, or ctrl-]")),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ctrl-{}", char::from(self.0 | 0x40))
    }
}

/// Looks for the escape key in what is typed. No I/O, so that a test can drive it.
#[derive(Debug)]
pub(crate) struct Escape {
    key: Key,
    armed: bool,
}

/// What was typed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// It goes to the device.
    Keys(Vec<u8>),
    /// So does this, and then the person wants to leave.
    Leave(Vec<u8>),
}

impl Escape {
    pub(crate) fn new(key: Key) -> Self {
        Self { key, armed: false }
    }

    /// The escape key and `.` leave; twice the escape key is one; before any other key it is sent
    /// as it is.
    pub(crate) fn read(&mut self, typed: &[u8]) -> Typed {
        let mut keys = Vec::with_capacity(typed.len() + 1);
        for &key in typed {
            match (std::mem::take(&mut self.armed), key) {
                (false, key) if key == self.key.0 => self.armed = true,
                (false, key) => keys.push(key),
                (true, b'.') => return Typed::Leave(keys),
                (true, key) if key == self.key.0 => keys.push(key),
                (true, key) => keys.extend([self.key.0, key]),
            }
        }
        Typed::Keys(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escape() -> Escape {
        Escape::new("ctrl-]".parse().unwrap())
    }

    #[test]
    fn the_escape_key_and_a_dot_leave() {
        assert_eq!(escape().read(b"ls\r\x1d."), Typed::Leave(b"ls\r".to_vec()));
        let mut escape = escape();
        assert_eq!(escape.read(b"a\x1d"), Typed::Keys(b"a".to_vec()));
        assert_eq!(escape.read(b"."), Typed::Leave(Vec::new()));
    }

    #[test]
    fn every_other_key_reaches_the_device() {
        assert_eq!(escape().read(b"\x03.\x1d\x1d."), Typed::Keys(b"\x03.\x1d.".to_vec()));
        assert_eq!(escape().read(b"\x1dx"), Typed::Keys(b"\x1dx".to_vec()));
    }

    #[test]
    fn a_key_is_a_control_key() {
        for (text, shown) in [("ctrl-]", "Ctrl-]"), ("^a", "Ctrl-A"), ("Ctrl-T", "Ctrl-T")] {
            assert_eq!(text.parse::<Key>().unwrap().to_string(), shown);
        }
        for bad in ["a", "", "ctrl-", "ctrl-1", "^ab"] {
            assert!(bad.parse::<Key>().is_err(), "{bad}");
        }
    }
}
