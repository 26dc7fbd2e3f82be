//! What stands in the brackets of `#[interface(…)]` and `#[driver(…)]`.

use syn::{
    Ident, LitInt, LitStr, Path, Token,
    parse::{Parse, ParseStream},
};

use crate::case;

/// `name = "…"`, `version = n`, and the paths of interfaces.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) name: Option<LitStr>,
    version: Option<LitInt>,
    pub(crate) interfaces: Vec<Path>,
}

impl Options {
    /// The interface's name: as given, or made from `ident`.
    pub(crate) fn name_or(&self, ident: &Ident) -> syn::Result<String> {
        let name = match &self.name {
            Some(name) => name.value(),
            None => case::kebab(&ident.to_string()),
        };
        let span = self.name.as_ref().map_or(ident.span(), LitStr::span);
        case::check_name(&name, span)?;
        Ok(name)
    }

    pub(crate) fn version(&self) -> syn::Result<u32> {
        self.version.as_ref().map_or(Ok(1), LitInt::base10_parse)
    }
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut options = Self::default();
        while !input.is_empty() {
            if input.peek(Ident) && input.peek2(Token![=]) {
                let key: Ident = input.parse()?;
                input.parse::<Token![=]>()?;
                match key.to_string().as_str() {
                    "name" => options.name = Some(input.parse()?),
                    "version" => options.version = Some(input.parse()?),
                    _ => return Err(syn::Error::new(key.span(), "there are `name` and `version`")),
                }
            } else {
                options.interfaces.push(input.call(Path::parse_mod_style)?);
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(options)
    }
}
