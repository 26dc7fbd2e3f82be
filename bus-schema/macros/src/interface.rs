//! `#[interface]`: a trait becomes a contract.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{ItemTrait, ReturnType, TraitItem, TraitItemFn, parse_quote};

use crate::{
    client,
    contract::{Callee, Contract, collect},
    dispatch, docs,
    method::{self, Method},
    options::Options,
};

pub(crate) fn expand(options: &Options, item: ItemTrait) -> TokenStream {
    let generated = read(options, &item).and_then(|contract| {
        let clients = client::expand(&contract)?;
        let dispatch = dispatch::expand(&contract);
        Ok(quote!(#dispatch #clients))
    });
    // The trait is emitted also if it is wrong, so that the one mistake is not followed by others.
    let generated = generated.unwrap_or_else(|error| error.to_compile_error());
    let emitted = emit(item);
    quote!(#emitted #generated)
}

fn read(options: &Options, item: &ItemTrait) -> syn::Result<Contract> {
    if let Some(path) = options.interfaces.first() {
        return Err(syn::Error::new_spanned(path, "there are `name = \"…\"` and `version = n`"));
    }
    if !item.generics.params.is_empty() {
        let why = "an interface has no generics: its types are told to callers who know no Rust";
        return Err(syn::Error::new_spanned(&item.generics, why));
    }
    let contract = Contract {
        base: item.ident.clone(),
        vis: item.vis.clone(),
        name: options.name_or(&item.ident)?,
        version: options.version()?,
        help: docs::help(&item.attrs),
        methods: collect(item.items.iter().map(|item| match item {
            TraitItem::Fn(item) => Method::parse(&item.attrs, &item.sig),
            other => Err(syn::Error::new_spanned(other, "an interface has methods only")),
        }))?,
        callee: Callee::Trait(item.ident.clone()),
    };
    contract.check()?;
    Ok(contract)
}

/// The trait as rustc sees it.
fn emit(mut item: ItemTrait) -> ItemTrait {
    item.colon_token.get_or_insert_default();
    item.supertraits.push(parse_quote!(::core::marker::Send));
    item.supertraits.push(parse_quote!(::core::marker::Sync));
    item.supertraits.push(parse_quote!('static));
    for item in &mut item.items {
        if let TraitItem::Fn(item) = item {
            method::strip(&mut item.attrs, &mut item.sig);
            desugar(item);
        }
    }
    item
}

/// Operations are tasks that move between threads, so futures are `Send`; a plain `async fn` of a
/// trait cannot say that. Implementors may still write `async fn`.
fn desugar(item: &mut TraitItemFn) {
    if item.sig.asyncness.take().is_none() {
        return;
    }
    let output = match &item.sig.output {
        ReturnType::Default => quote!(()),
        ReturnType::Type(_, ty) => quote!(#ty),
    };
    item.sig.output = parse_quote! {
        -> impl ::core::future::Future<Output = #output> + ::core::marker::Send
    };
    if let Some(body) = &mut item.default {
        *body = parse_quote!({ async move #body });
    }
}
