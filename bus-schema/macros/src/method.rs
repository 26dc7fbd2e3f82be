//! One operation, read from the signature of its Rust method.

use quote::ToTokens;
use syn::{
    Attribute, Expr, FnArg, GenericArgument, Ident, LitStr, Pat, PatType, PathArguments,
    ReturnType, Signature, Type, ext::IdentExt, parse_quote,
};

use crate::{case, contract::collect, docs};

/// serde encodes tuples of up to 16, and arguments travel as one.
const PARAMS_MAX: usize = 16;

/// Helper attributes, which are ours and taken off again.
const HELPERS: [&str; 3] = ["method", "export", "safe"];

pub(crate) struct Method {
    pub(crate) ident: Ident,
    /// Its name on the bus.
    pub(crate) name: String,
    pub(crate) docs: Vec<Attribute>,
    pub(crate) context: Option<Context>,
    pub(crate) params: Vec<Param>,
    pub(crate) kind: Kind,
    pub(crate) output: Output,
    /// `false` for one that blocks its thread.
    pub(crate) is_async: bool,
    pub(crate) marks: Marks,
}

/// The parameter that is no argument.
pub(crate) struct Context {
    pub(crate) ty: Type,
    pub(crate) by_ref: bool,
}

pub(crate) struct Param {
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    pub(crate) help: String,
    pub(crate) default: Option<Expr>,
    /// Whether it is lent: the runtime makes it of what travels, and of the operation.
    pub(crate) is_lent: bool,
}

/// What the last parameter makes of a method; it is no argument either.
pub(crate) enum Kind {
    Call,
    StreamingCall { items: Box<Type>, item: Box<Type> },
    Stream { pipe: Box<Type> },
}

/// What a method gives back.
pub(crate) struct Output {
    pub(crate) ty: Type,
    /// Whether it is in a `Result`, whose error becomes a fault.
    pub(crate) fallible: bool,
}

/// `#[method(…)]`.
#[derive(Default)]
pub(crate) struct Marks {
    pub(crate) concurrent: bool,
    pub(crate) uncancellable: bool,
    pub(crate) observe: bool,
    pub(crate) deadline_ms: Option<u64>,
    name: Option<LitStr>,
}

impl Method {
    pub(crate) fn parse(attrs: &[Attribute], sig: &Signature) -> syn::Result<Self> {
        refuse_shape(attrs, sig)?;
        let mut inputs: Vec<&PatType> = collect(sig.inputs.iter().skip(1).map(typed))?;
        let context = inputs.first().and_then(|first| Context::of(&first.ty));
        if context.is_some() {
            inputs.remove(0);
        }
        let kind = inputs.last().map_or(Ok(Kind::Call), |last| Kind::of(&last.ty))?;
        if !matches!(kind, Kind::Call) {
            inputs.pop();
        }
        let params = collect(inputs.into_iter().map(Param::parse))?;
        check_params(&params, sig)?;
        let mut marks = Marks::parse(attrs)?;
        marks.concurrent |= !matches!(kind, Kind::Call);
        let name = match &marks.name {
            Some(name) => name.value(),
            None => sig.ident.unraw().to_string(),
        };
        case::check_name(&name, marks.name.as_ref().map_or(sig.ident.span(), LitStr::span))?;
        Ok(Self {
            ident: sig.ident.clone(),
            name,
            docs: docs::attributes(attrs),
            context,
            params,
            kind,
            output: Output::of(&sig.output)?,
            is_async: sig.asyncness.is_some(),
            marks,
        })
    }
}

/// Takes our attributes off a method, so that rustc sees what it knows.
pub(crate) fn strip(attrs: &mut Vec<Attribute>, sig: &mut Signature) {
    attrs.retain(|attr| !is_helper(attr));
    for input in &mut sig.inputs {
        if let FnArg::Typed(input) = input {
            input.attrs.retain(|a| !a.path().is_ident("default") && !a.path().is_ident("doc"));
        }
    }
}

pub(crate) fn is_helper(attr: &Attribute) -> bool {
    HELPERS.iter().any(|name| attr.path().is_ident(name))
}

fn refuse_shape(attrs: &[Attribute], sig: &Signature) -> syn::Result<()> {
    let refuse = |what: &dyn ToTokens, why: &str| Err(syn::Error::new_spanned(what, why));
    match sig.inputs.first() {
        Some(FnArg::Receiver(this))
            if this.reference.is_some()
                && this.mutability.is_none()
                && this.colon_token.is_none() => {}
        Some(FnArg::Receiver(this)) => {
            let why = "an operation takes `&self`: several run at once, and a driver keeps what \
                       changes in a cell of its own";
            return refuse(this, why);
        }
        _ => return refuse(&sig.ident, "an operation takes `&self`"),
    }
    if !sig.generics.params.is_empty() {
        return refuse(
            &sig.generics,
            "an operation has no generics: its types are told to callers who know no Rust",
        );
    }
    if let Some(cfg) = attrs.iter().find(|a| a.path().is_ident("cfg")) {
        return refuse(cfg, "an operation is always there: put the `cfg` on the whole item");
    }
    Ok(())
}

fn typed(input: &FnArg) -> syn::Result<&PatType> {
    match input {
        FnArg::Typed(input) => Ok(input),
        FnArg::Receiver(this) => Err(syn::Error::new_spanned(this, "`self` comes first")),
    }
}

fn check_params(params: &[Param], sig: &Signature) -> syn::Result<()> {
    if params.len() > PARAMS_MAX {
        let why = format!("an operation has at most {PARAMS_MAX} arguments: pass a struct");
        return Err(syn::Error::new(sig.ident.span(), why));
    }
    let last_required = params.iter().rposition(|param| param.default.is_none());
    collect(params.iter().enumerate().map(|(at, param)| match &param.default {
        Some(default) if last_required.is_some_and(|last| at < last) => Err(syn::Error::new_spanned(default,
            "an argument with a default is followed by others without: arguments travel in order, \
             so only the last ones can be left out",
        )),
        _ => Ok(()),
    }))
    .map(drop)
}

impl Context {
    fn of(ty: &Type) -> Option<Self> {
        let (ty, by_ref) = match ty {
            Type::Reference(reference) => (&*reference.elem, true),
            _ => (ty, false),
        };
        (last_ident(ty)? == "Context").then(|| Self { ty: ty.clone(), by_ref })
    }
}

impl Kind {
    fn of(ty: &Type) -> syn::Result<Self> {
        match last_ident(ty) {
            Some(ident) if ident == "ByteStream" => Ok(Self::Stream { pipe: Box::new(ty.clone()) }),
            Some(ident) if ident == "Items" => match first_argument(ty) {
                Some(item) => Ok(Self::StreamingCall {
                    items: Box::new(ty.clone()),
                    item: Box::new(item.clone()),
                }),
                None => Err(syn::Error::new_spanned(ty, "say of what: `Items<T>`")),
            },
            _ => Ok(Self::Call),
        }
    }
}

impl Param {
    fn parse(input: &PatType) -> syn::Result<Self> {
        let Pat::Ident(pat) = &*input.pat else {
            return Err(syn::Error::new_spanned(
                &input.pat,
                "an argument has a plain name, which callers read in the signature",
            ));
        };
        refuse_unowned(&input.ty, "an argument")?;
        let special = last_ident(&input.ty).map(Ident::to_string);
        match special.as_deref() {
            Some("Context") => {
                return Err(syn::Error::new_spanned(&input.ty, "the context follows `&self`"));
            }
            Some(name @ ("Items" | "ByteStream")) => {
                let why = format!("`{name}` is the last parameter");
                return Err(syn::Error::new_spanned(&input.ty, why));
            }
            _ => {}
        }
        let default = input.attrs.iter().find(|attr| attr.path().is_ident("default"));
        if let (Some(default), Some("Resource" | "ResourceWriter")) = (default, special.as_deref())
        {
            let why = "what is lent has no default: somebody has to lend it";
            return Err(syn::Error::new_spanned(default, why));
        }
        Ok(Self {
            ident: pat.ident.clone(),
            ty: (*input.ty).clone(),
            help: docs::help(&input.attrs),
            default: default.map(Attribute::parse_args).transpose()?,
            is_lent: matches!(special.as_deref(), Some("Resource" | "ResourceWriter")),
        })
    }

    /// Its name on the bus. An implementor's `_unused` is still called `unused` there.
    pub(crate) fn name(&self) -> String {
        let name = self.ident.unraw().to_string();
        match name.trim_start_matches('_') {
            "" => name,
            plain => plain.to_owned(),
        }
    }
}

impl Output {
    fn of(output: &ReturnType) -> syn::Result<Self> {
        let ReturnType::Type(_, ty) = output else {
            return Ok(Self { ty: parse_quote!(()), fallible: false });
        };
        let fallible = last_ident(ty).is_some_and(|ident| ident == "Result");
        let ty = match first_argument(ty) {
            Some(value) if fallible => value.clone(),
            None if fallible => {
                return Err(syn::Error::new_spanned(ty, "say of what: `Result<T, E>`"));
            }
            _ => (**ty).clone(),
        };
        refuse_unowned(&ty, "a result")?;
        Ok(Self { ty, fallible })
    }
}

/// What is decoded from a message, or sent in one, borrows from nobody.
fn refuse_unowned(ty: &Type, what: &str) -> syn::Result<()> {
    let why = match ty {
        Type::Reference(_) => "owns its data (`String`, `Vec<T>`, `Bytes`)",
        Type::ImplTrait(_) => "has a named type; a method that waits is an `async fn`",
        _ => return Ok(()),
    };
    Err(syn::Error::new_spanned(ty, format!("{what} travels in a message: it {why}")))
}

impl Marks {
    fn parse(attrs: &[Attribute]) -> syn::Result<Self> {
        let mut marks = Self::default();
        for attr in attrs.iter().filter(|attr| attr.path().is_ident("method")) {
            attr.parse_nested_meta(|meta| {
                if meta.path.is_ident("concurrent") {
                    marks.concurrent = true;
                } else if meta.path.is_ident("uncancellable") {
                    marks.uncancellable = true;
                } else if meta.path.is_ident("observe") {
                    marks.observe = true;
                } else if meta.path.is_ident("deadline") {
                    marks.deadline_ms = Some(parse_deadline(&meta.value()?.parse()?)?);
                } else if meta.path.is_ident("name") {
                    marks.name = Some(meta.value()?.parse()?);
                } else {
                    let why =
                        "there are `concurrent`, `uncancellable`, `observe`, `deadline` and `name`";
                    return Err(meta.error(why));
                }
                Ok(())
            })?;
        }
        Ok(marks)
    }
}

/// Reads `250ms`, `30s`, `10m` or `2h` as ms. A day is the protocol's longest.
fn parse_deadline(text: &LitStr) -> syn::Result<u64> {
    const DAY_MS: u64 = 24 * 3_600_000;
    let value = text.value();
    let digits = value.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &value[digits.len()..] {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let ms = unit.and_then(|unit| digits.parse::<u64>().ok()?.checked_mul(unit));
    ms.filter(|ms| (1..=DAY_MS).contains(ms)).ok_or_else(|| {
        syn::Error::new(text.span(), "a deadline is a number with ms, s, m or h, up to 24h")
    })
}

/// The `Items` of `runtime::Items<Reading>`.
fn last_ident(ty: &Type) -> Option<&Ident> {
    match ty {
        Type::Path(path) => path.path.segments.last().map(|segment| &segment.ident),
        Type::Group(group) => last_ident(&group.elem),
        Type::Paren(paren) => last_ident(&paren.elem),
        _ => None,
    }
}

/// The `Reading` of `runtime::Items<Reading>`.
fn first_argument(ty: &Type) -> Option<&Type> {
    match ty {
        Type::Path(path) => match &path.path.segments.last()?.arguments {
            PathArguments::AngleBracketed(list) => list.args.iter().find_map(|arg| match arg {
                GenericArgument::Type(ty) => Some(ty),
                _ => None,
            }),
            _ => None,
        },
        Type::Group(group) => first_argument(&group.elem),
        Type::Paren(paren) => first_argument(&paren.elem),
        _ => None,
    }
}
