//! How to reach an operator's broker.

use std::{fmt, fmt::Write};

/// How to reach a broker. `Debug` shows no secret.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The servers, without credentials. None means that nobody has named a broker: see
    /// [`LocalBroker`](crate::LocalBroker).
    pub servers: Vec<String>,
    /// Who we are.
    pub auth: Auth,
}

/// How to prove who we are.
#[derive(Clone, Debug, Default)]
pub enum Auth {
    /// Not at all.
    #[default]
    None,
    /// By a token.
    Token(Secret),
}

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
