//! Texts that stay hidden.

use std::{fmt, fmt::Write};

/// A text that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text. Do not print it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// As many random bytes, in hex.
    pub(crate) fn random(bytes: usize) -> Self {
        let mut text = String::with_capacity(2 * bytes);
        for _ in 0..bytes {
            let _ = write!(text, "{:02x}", rand::random::<u8>()); // a String takes everything
        }
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
