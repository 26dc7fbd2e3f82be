//! `#[driver]`: an `impl` block becomes what a host serves.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{
    Attribute, FnArg, Generics, Ident, ImplItem, ImplItemFn, ItemImpl, Path, PathArguments, Type,
    parse_quote,
};

use crate::{
    client,
    contract::{Callee, Contract, collect},
    dispatch::{self, Way},
    docs,
    method::{self, Kind, Method},
    options::Options,
};

pub(crate) fn expand(options: &Options, item: ItemImpl) -> TokenStream {
    let generated = Driver::read(options, &item).and_then(|driver| driver.expand());
    let generated = generated.unwrap_or_else(|error| error.to_compile_error());
    let emitted = emit(item);
    quote!(#emitted #generated)
}

/// The block as its author wrote it, without our attributes.
fn emit(mut item: ItemImpl) -> ItemImpl {
    for item in &mut item.items {
        if let ImplItem::Fn(item) = item {
            if has(&item.attrs, "export") || has(&item.attrs, "safe") {
                // On an operation `async` also says that it does not block, so it is of use in one
                // that waits for nothing.
                item.attrs.push(parse_quote!(#[allow(clippy::unused_async)]));
            }
            method::strip(&mut item.attrs, &mut item.sig);
        }
    }
    item
}

struct Driver {
    ty: Box<Type>,
    generics: Generics,
    /// `PowerInterface` for each `Power` listed.
    interfaces: Vec<Path>,
    own: Contract,
    safe: Option<Method>,
}

impl Driver {
    fn read(options: &Options, item: &ItemImpl) -> syn::Result<Self> {
        if let Some((_, path, _)) = &item.trait_ {
            let why = "`#[driver]` goes on the type's own `impl` block, and lists the interfaces";
            return Err(syn::Error::new_spanned(path, why));
        }
        let base = type_ident(&item.self_ty)?;
        let functions: Vec<&ImplItemFn> = item.items.iter().filter_map(function).collect();
        let marked = |mark| functions.iter().copied().filter(move |f| has(&f.attrs, mark));
        let unmarked = functions.iter().filter(|f| !has(&f.attrs, "export"));
        collect(unmarked.map(|function| refuse_unused(function)))?;
        let methods = collect(marked("export").map(|f| Method::parse(&f.attrs, &f.sig)))?;
        let own = Contract {
            name: options.name_or(&base)?,
            base,
            vis: parse_quote!(pub),
            version: options.version()?,
            help: docs::help(&item.attrs),
            methods,
            callee: Callee::Type(item.self_ty.clone(), item.generics.clone()),
        };
        own.check()?;
        Ok(Self {
            ty: item.self_ty.clone(),
            generics: item.generics.clone(),
            interfaces: collect(options.interfaces.iter().map(interface_path))?,
            own,
            safe: read_safe(marked("safe"))?,
        })
    }

    fn expand(&self) -> syn::Result<TokenStream> {
        let serve = self.serve();
        if self.own.methods.is_empty() {
            return Ok(serve);
        }
        let clients = client::expand(&self.own)?;
        let dispatch = dispatch::expand(&self.own);
        let clashes = self.own.methods.iter().flat_map(|method| self.clashes(method));
        Ok(quote!(#serve #dispatch #clients #(#clashes)*))
    }

    fn serve(&self) -> TokenStream {
        let ty = &self.ty;
        let (params, _, bounds) = self.generics.split_for_impl();
        let served = self.served();
        let ways = [Way::Call, Way::StreamingCall, Way::Stream].map(|way| self.forward(way));
        let safe = self.safe.as_ref().map(|method| self.make_safe(method));
        quote! {
            impl #params ::bus_schema::Serve for #ty #bounds {
                fn interfaces(
                    &self,
                ) -> ::std::vec::Vec<::std::sync::Arc<::bus_schema::Interface>> {
                    ::std::vec![#(#served::describe()),*]
                }

                #(#ways)*
                #safe
            }
        }
    }

    /// Every interface in the order in which they are asked for a method.
    fn served(&self) -> Vec<Path> {
        let own = self.own.interface_ident();
        let own = (!self.own.methods.is_empty()).then(|| Path::from(own));
        self.interfaces.iter().cloned().chain(own).collect()
    }

    /// One method of `Serve`: to the first interface that knows the name.
    fn forward(&self, way: Way) -> TokenStream {
        let (ident, kind, serving) = (way.ident(), way.kind(), way.serving());
        let (declared, channel) = way.channel();
        let served = self.served();
        let unused = served.is_empty().then(|| quote!(let _ = (cx, args, (#channel));));
        quote! {
            fn #ident(
                self: ::std::sync::Arc<Self>,
                cx: ::bus_schema::RawContext,
                method: &str,
                args: ::bus_schema::Args,
                #declared
            ) -> #serving {
                #(if #served::METHODS.contains(&method) {
                    return #served::#ident(self, cx, method, args, #channel);
                })*
                #unused
                let interfaces = ::bus_schema::Serve::interfaces(&*self);
                let refusal = ::bus_schema::refuse_method(&interfaces, method, #kind);
                ::std::boxed::Box::pin(::core::future::ready(
                    ::core::result::Result::Err(refusal.into()),
                ))
            }
        }
    }

    fn make_safe(&self, method: &Method) -> TokenStream {
        let span = Span::call_site().located_at(method.ident.span());
        let run = dispatch::run(&self.own, method, &[]);
        let cx = (method.is_async && method.context.is_none()).then(|| quote!(let _ = cx;));
        quote_spanned! {span=>
            fn safe(
                self: ::std::sync::Arc<Self>,
                cx: ::bus_schema::RawContext,
            ) -> ::core::option::Option<::bus_schema::Serving<()>> {
                let driver = self;
                #cx
                ::core::option::Option::Some(::std::boxed::Box::pin(async move {
                    #run
                    ::core::result::Result::Ok(result)
                }))
            }
        }
    }

    /// An export that a listed interface also has would never be called. What that interface has
    /// is known to rustc and not to us.
    fn clashes(&self, method: &Method) -> Vec<TokenStream> {
        let span = Span::call_site().located_at(method.ident.span());
        let name = &method.name;
        let clash = |interface: &Path| {
            let why = format!("a listed interface has an operation {name:?} already");
            quote_spanned! {span=>
                const _: () = ::core::assert!(
                    !::bus_schema::__private::contains(#interface::METHODS, #name),
                    #why
                );
            }
        };
        self.interfaces.iter().map(clash).collect()
    }
}

fn function(item: &ImplItem) -> Option<&ImplItemFn> {
    match item {
        ImplItem::Fn(function) => Some(function),
        _ => None,
    }
}

fn has(attrs: &[Attribute], mark: &str) -> bool {
    attrs.iter().any(|attr| attr.path().is_ident(mark))
}

/// A mark without effect is one that somebody believes in.
fn refuse_unused(function: &ImplItemFn) -> syn::Result<()> {
    let of_params = function.sig.inputs.iter().flat_map(|input| match input {
        FnArg::Typed(input) => &*input.attrs,
        FnArg::Receiver(_) => &[],
    });
    let marks = ["method", "default"];
    let mut attrs = function.attrs.iter().chain(of_params);
    match attrs.find(|attr| marks.iter().any(|mark| attr.path().is_ident(mark))) {
        Some(attr) => {
            Err(syn::Error::new_spanned(attr, "the method is not exported: add `#[export]`"))
        }
        None => Ok(()),
    }
}

fn read_safe<'a>(mut marked: impl Iterator<Item = &'a ImplItemFn>) -> syn::Result<Option<Method>> {
    let Some(function) = marked.next() else { return Ok(None) };
    if let Some(second) = marked.next() {
        return Err(syn::Error::new(second.sig.ident.span(), "a driver has one way to be safe"));
    }
    let method = Method::parse(&function.attrs, &function.sig)?;
    match method.params.is_empty() && matches!(method.kind, Kind::Call) {
        true => Ok(Some(method)),
        false => Err(syn::Error::new_spanned(
            &function.sig.inputs,
            "nobody calls this: it takes `&self` and at most a context",
        )),
    }
}

/// `lab::PowerInterface` for `lab::Power`.
fn interface_path(path: &Path) -> syn::Result<Path> {
    let mut path = path.clone();
    match path.segments.last_mut() {
        Some(last) if matches!(last.arguments, PathArguments::None) => {
            last.ident = format_ident!("{}Interface", last.ident);
            Ok(path)
        }
        _ => Err(syn::Error::new_spanned(path, "an interface has no generics")),
    }
}

fn type_ident(ty: &Type) -> syn::Result<Ident> {
    match ty {
        Type::Path(path) => path.path.segments.last().map(|segment| segment.ident.clone()),
        _ => None,
    }
    .ok_or_else(|| syn::Error::new_spanned(ty, "a driver is a type with a name"))
}
