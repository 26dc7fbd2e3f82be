//! The serde attributes that a described type may have, and those it may not.

use syn::{Attribute, ExprPath, LitStr, Token, meta::ParseNestedMeta};

use crate::case::Rule;

/// What `#[serde(…)]` says about a type, a variant or a field.
#[derive(Default)]
pub(crate) struct SerdeAttr {
    pub(crate) rename: Option<String>,
    pub(crate) rename_all: Option<Rule>,
    /// Of an enum: the rule for the fields of its struct variants.
    pub(crate) rename_all_fields: Option<Rule>,
    pub(crate) default: Option<Default>,
    pub(crate) skip: bool,
}

/// Where a value comes from that the sender left out.
pub(crate) enum Default {
    Trait,
    Path(Box<ExprPath>),
}

impl SerdeAttr {
    pub(crate) fn parse(attrs: &[Attribute]) -> syn::Result<Self> {
        let mut read = Self::default();
        for attr in attrs.iter().filter(|attr| attr.path().is_ident("serde")) {
            attr.parse_nested_meta(|meta| read.word(&meta))?;
        }
        Ok(read)
    }

    fn word(&mut self, meta: &ParseNestedMeta<'_>) -> syn::Result<()> {
        let word = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
        match word.as_str() {
            "rename" => self.rename = Some(text(meta)?.value()),
            "rename_all" => self.rename_all = Some(Rule::parse(&text(meta)?)?),
            "rename_all_fields" => self.rename_all_fields = Some(Rule::parse(&text(meta)?)?),
            "default" if meta.input.peek(Token![=]) => {
                self.default = Some(Default::Path(Box::new(text(meta)?.parse()?)));
            }
            "default" => self.default = Some(Default::Trait),
            "skip" => self.skip = true,
            // These change what is accepted or left out, and nothing that is described.
            "deny_unknown_fields" | "other" => {}
            "alias" | "skip_serializing_if" | "crate" | "bound" | "expecting" => {
                text(meta)?;
            }
            _ => return Err(meta.error(refusal(&word))),
        }
        Ok(())
    }
}

fn text(meta: &ParseNestedMeta<'_>) -> syn::Result<LitStr> {
    if !meta.input.peek(Token![=]) {
        return Err(meta.error("one name for both directions: `name = \"…\"`"));
    }
    meta.value()?.parse()
}

/// Why not, and what to do.
fn refusal(word: &str) -> String {
    let instead = match word {
        "flatten" => "write the fields out, or nest them",
        "untagged" | "tag" | "content" => "leave the variant's name as the tag",
        "with" | "serialize_with" | "deserialize_with" | "getter" | "remote" => {
            "give the field a type that has the wire form you want"
        }
        "from" | "into" | "try_from" | "transparent" => {
            "use the other type itself, or implement `Describe` by hand"
        }
        "skip_serializing" | "skip_deserializing" => "use `skip`, or a type for each direction",
        _ => return format!("`{word}` is not understood by `Describe`: implement it by hand"),
    };
    format!("`{word}` changes the wire form unseen, so it cannot be described: {instead}")
}
