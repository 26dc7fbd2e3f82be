//! Names: how Rust's become the wire's.

use proc_macro2::Span;
use syn::LitStr;

/// `limits::NAME_BYTES_MAX`, which a macro cannot see: `bus-schema` depends on this crate.
const NAME_BYTES_MAX: usize = 64;

/// A Rust type's name in kebab-case: `UsbMux` is `usb-mux`, `TFTPServer` is `tftp-server`.
pub(crate) fn kebab(ident: &str) -> String {
    let chars: Vec<char> = ident.trim_start_matches("r#").chars().collect();
    let mut name = String::new();
    for (at, c) in chars.iter().enumerate() {
        let after_small = at > 0 && !chars[at - 1].is_uppercase() && chars[at - 1] != '_';
        let before_small = at > 0 && chars.get(at + 1).is_some_and(|next| next.is_lowercase());
        if c.is_uppercase() && (after_small || before_small) && !name.ends_with('-') {
            name.push('-');
        }
        name.push(if *c == '_' { '-' } else { c.to_ascii_lowercase() });
    }
    name
}

/// Whether `name` can be a token of a subject.
pub(crate) fn check_name(name: &str, span: Span) -> syn::Result<()> {
    let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    if (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(plain)
        && !name.starts_with('-')
    {
        return Ok(());
    }
    let problem = format!(
        "{name:?} cannot be a name on the bus: use 1 to {NAME_BYTES_MAX} of a-z, 0-9, '_' and '-'; \
         `name = \"…\"` gives it another than the Rust one"
    );
    Err(syn::Error::new(span, problem))
}

/// serde's `rename_all`.
#[derive(Clone, Copy)]
pub(crate) enum Rule {
    Lower,
    Upper,
    Pascal,
    Camel,
    Snake,
    ScreamingSnake,
    Kebab,
    ScreamingKebab,
}

impl Rule {
    pub(crate) fn parse(word: &LitStr) -> syn::Result<Self> {
        Ok(match word.value().as_str() {
            "lowercase" => Self::Lower,
            "UPPERCASE" => Self::Upper,
            "PascalCase" => Self::Pascal,
            "camelCase" => Self::Camel,
            "snake_case" => Self::Snake,
            "SCREAMING_SNAKE_CASE" => Self::ScreamingSnake,
            "kebab-case" => Self::Kebab,
            "SCREAMING-KEBAB-CASE" => Self::ScreamingKebab,
            _ => return Err(syn::Error::new(word.span(), "serde knows no such case")),
        })
    }

    /// What serde makes of a variant, which is written in PascalCase.
    pub(crate) fn variant(self, ident: &str) -> String {
        match self {
            Self::Pascal => ident.to_owned(),
            Self::Lower => ident.to_ascii_lowercase(),
            Self::Upper => ident.to_ascii_uppercase(),
            Self::Camel => lower_first(ident),
            Self::Snake => snake(ident),
            Self::ScreamingSnake => snake(ident).to_ascii_uppercase(),
            Self::Kebab => snake(ident).replace('_', "-"),
            Self::ScreamingKebab => snake(ident).to_ascii_uppercase().replace('_', "-"),
        }
    }

    /// What serde makes of a field, which is written in snake_case.
    pub(crate) fn field(self, ident: &str) -> String {
        match self {
            Self::Lower | Self::Snake => ident.to_owned(),
            Self::Upper | Self::ScreamingSnake => ident.to_ascii_uppercase(),
            Self::Pascal => pascal(ident),
            Self::Camel => lower_first(&pascal(ident)),
            Self::Kebab => ident.replace('_', "-"),
            Self::ScreamingKebab => ident.to_ascii_uppercase().replace('_', "-"),
        }
    }
}

fn lower_first(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |c| c.to_ascii_lowercase().to_string() + chars.as_str())
}

/// serde's way: an underscore before every capital, also between two.
fn snake(ident: &str) -> String {
    let mut name = String::new();
    for (at, c) in ident.char_indices() {
        if at > 0 && c.is_uppercase() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

fn pascal(ident: &str) -> String {
    let words = ident.split('_').map(|word| {
        let mut chars = word.chars();
        chars
            .next()
            .map_or_else(String::new, |c| c.to_ascii_uppercase().to_string() + chars.as_str())
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_become_kebab_case() {
        for (ident, name) in [
            ("Power", "power"),
            ("UsbMux", "usb-mux"),
            ("TFTPServer", "tftp-server"),
            ("Http2", "http2"),
            ("ExampleDriver", "example-driver"),
        ] {
            assert_eq!(kebab(ident), name);
        }
    }
}
