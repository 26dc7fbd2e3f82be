//! `#[derive(Describe)]`: a struct or an enum has a type of the wire.

use proc_macro2::{TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{Data, DataEnum, DeriveInput, Field, Fields, FieldsNamed, Ident, Variant, ext::IdentExt};

use crate::{
    case::Rule,
    contract::collect,
    docs,
    serde_attr::{Default, SerdeAttr},
};

pub(crate) fn expand(input: &DeriveInput) -> TokenStream {
    let ident = &input.ident;
    let body = body(input).unwrap_or_else(|error| {
        let error = error.to_compile_error();
        quote!({ #error ::core::unreachable!() })
    });
    // Also with an error, so that the uses of the type are not errors too.
    let (params, names, bounds) = input.generics.split_for_impl();
    quote! {
        #[automatically_derived]
        impl #params ::bus_schema::Describe for #ident #names #bounds {
            fn describe() -> ::bus_schema::Type {
                #body
            }
        }
    }
}

fn body(input: &DeriveInput) -> syn::Result<TokenStream> {
    if !input.generics.params.is_empty() {
        let why = "a described type has no generics: it has one name and one form on the wire";
        return Err(syn::Error::new_spanned(&input.generics, why));
    }
    let attr = SerdeAttr::parse(&input.attrs)?;
    let refuse = |what: &dyn ToTokens, why: &str| Err(syn::Error::new_spanned(what, why));
    match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => describe_struct(&input.ident, &attr, fields),
            _ => refuse(
                &input.ident,
                "a described struct has named fields, which its callers read: name them, or \
                 implement `Describe` by hand",
            ),
        },
        Data::Enum(data) => describe_enum(&input.ident, &attr, data),
        Data::Union(data) => refuse(&data.union_token, "a union has no form on the wire"),
    }
}

fn describe_struct(
    ident: &Ident,
    attr: &SerdeAttr,
    fields: &FieldsNamed,
) -> syn::Result<TokenStream> {
    let defaults = attr.default.as_ref().map(|default| match default {
        Default::Trait => quote!(let defaults = <Self as ::core::default::Default>::default();),
        Default::Path(path) => quote!(let defaults: Self = #path();),
    });
    let fields = describe_fields(ident, attr.rename_all, defaults.is_some(), fields)?;
    let name = attr.rename.clone().unwrap_or_else(|| ident.unraw().to_string());
    Ok(quote! {
        #defaults
        ::bus_schema::Type::Struct { name: ::std::string::String::from(#name), fields: #fields }
    })
}

fn describe_enum(ident: &Ident, attr: &SerdeAttr, data: &DataEnum) -> syn::Result<TokenStream> {
    let name = attr.rename.clone().unwrap_or_else(|| ident.unraw().to_string());
    let variants = collect(data.variants.iter().map(|variant| {
        let own = SerdeAttr::parse(&variant.attrs)?;
        match own.skip {
            true => Ok(None),
            false => describe_variant(ident, attr, &own, variant).map(Some),
        }
    }))?;
    let variants = variants.into_iter().flatten();
    Ok(quote! {
        ::bus_schema::Type::Enum {
            name: ::std::string::String::from(#name),
            variants: ::std::vec![#(#variants),*],
        }
    })
}

fn describe_variant(
    within: &Ident,
    attr: &SerdeAttr,
    own: &SerdeAttr,
    variant: &Variant,
) -> syn::Result<TokenStream> {
    let ident = variant.ident.unraw().to_string();
    let name = match (&own.rename, attr.rename_all) {
        (Some(name), _) => name.clone(),
        (None, Some(rule)) => rule.variant(&ident),
        (None, None) => ident.clone(),
    };
    let help = docs::help(&variant.attrs);
    let carries = match &variant.fields {
        Fields::Unit => quote!(::bus_schema::Type::Unit),
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
            describe_carried(within, &fields.unnamed[0])?
        }
        Fields::Unnamed(fields) => {
            let why = "a variant carries one value: use a struct variant, whose fields have names";
            return Err(syn::Error::new_spanned(fields, why));
        }
        Fields::Named(fields) => {
            let rule = own.rename_all.or(attr.rename_all_fields);
            let fields = describe_fields(within, rule, false, fields)?;
            quote! {
                ::bus_schema::Type::Struct {
                    name: ::std::string::String::from(#ident),
                    fields: #fields,
                }
            }
        }
    };
    Ok(quote! {
        ::bus_schema::Variant {
            name: ::std::string::String::from(#name),
            help: ::std::string::String::from(#help),
            carries: #carries,
        }
    })
}

fn describe_carried(within: &Ident, field: &Field) -> syn::Result<TokenStream> {
    SerdeAttr::parse(&field.attrs)?;
    refuse_recursion(within, field)?;
    let ty = &field.ty;
    Ok(quote!(<#ty as ::bus_schema::Describe>::describe()))
}

fn describe_fields(
    within: &Ident,
    rule: Option<Rule>,
    defaults: bool,
    fields: &FieldsNamed,
) -> syn::Result<TokenStream> {
    let fields = collect(fields.named.iter().map(|field| {
        let attr = SerdeAttr::parse(&field.attrs)?;
        refuse_recursion(within, field)?;
        Ok((!attr.skip).then(|| describe_field(rule, defaults, &attr, field)))
    }))?;
    let fields = fields.into_iter().flatten();
    Ok(quote!(::std::vec![#(#fields),*]))
}

fn describe_field(
    rule: Option<Rule>,
    defaults: bool,
    attr: &SerdeAttr,
    field: &Field,
) -> TokenStream {
    let Field { ident, ty, .. } = field;
    let plain = ident.as_ref().map(|ident| ident.unraw().to_string()).unwrap_or_default();
    let name = match (&attr.rename, rule) {
        (Some(name), _) => name.clone(),
        (None, Some(rule)) => rule.field(&plain),
        (None, None) => plain,
    };
    let help = docs::help(&field.attrs);
    let default = match &attr.default {
        Some(Default::Trait) => Some(quote!(&<#ty as ::core::default::Default>::default())),
        Some(Default::Path(path)) => Some(quote!(&#path())),
        None => defaults.then(|| quote!(&defaults.#ident)),
    };
    let (optional, default) = match default {
        Some(value) => (quote!(true), quote!(::bus_schema::Value::of::<#ty>(#value))),
        // serde takes a missing `Option` as `None`, whatever the alias it is written by.
        None => (
            quote!(::core::matches!(ty, ::bus_schema::Type::Optional(_))),
            quote!(optional.then_some(::bus_schema::Value::Nil)),
        ),
    };
    quote!({
        let ty = <#ty as ::bus_schema::Describe>::describe();
        let optional = #optional;
        ::bus_schema::Field {
            name: ::std::string::String::from(#name),
            ty,
            help: ::std::string::String::from(#help),
            optional,
            default: #default,
        }
    })
}

/// A type within itself has no finite description, and would be found out by a full stack.
fn refuse_recursion(within: &Ident, field: &Field) -> syn::Result<()> {
    match mentions(within, field.ty.to_token_stream()) {
        true => Err(syn::Error::new_spanned(
            &field.ty,
            "a described type cannot hold itself: values are nested to a fixed depth; use `Value`",
        )),
        false => Ok(()),
    }
}

fn mentions(ident: &Ident, tokens: TokenStream) -> bool {
    // `sensor::Reading` within another `Reading` is no recursion.
    let mut in_path = false;
    tokens.into_iter().any(|token| {
        let follows_colons = in_path;
        in_path = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == ':');
        match token {
            TokenTree::Ident(word) => !follows_colons && (word == *ident || word == "Self"),
            TokenTree::Group(group) => mentions(ident, group.stream()),
            _ => false,
        }
    })
}
