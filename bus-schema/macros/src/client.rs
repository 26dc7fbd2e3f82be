//! `PowerClient` and `PowerBlocking`: the interface from the other side.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::Attribute;

use crate::{
    contract::{Contract, collect},
    dispatch::option,
    method::{Kind, Method, Param},
};

/// What a client has besides its operations.
const RESERVED: [&str; 2] = ["new", "invoke"];

/// Both clients, async and blocking.
pub(crate) fn expand(contract: &Contract) -> syn::Result<TokenStream> {
    collect(contract.methods.iter().map(|method| {
        match RESERVED.iter().any(|name| method.ident == name) {
            false => Ok(()),
            true => Err(syn::Error::new(
                method.ident.span(),
                "the typed client has a method of this name: call it another in Rust and use \
                 `#[method(name = \"…\")]`",
            )),
        }
    }))?;
    let (future, blocking) = (Style::Async.client(contract), Style::Blocking.client(contract));
    Ok(quote!(#future #blocking))
}

#[derive(Clone, Copy)]
enum Style {
    Async,
    Blocking,
}

impl Style {
    fn client(self, contract: &Contract) -> TokenStream {
        let Contract { base, vis, .. } = contract;
        let (suffix, invoke, how) = match self {
            Self::Async => ("Client", quote!(::bus_schema::Invoke), "Calls"),
            Self::Blocking => {
                ("Blocking", quote!(::bus_schema::InvokeBlocking), "Calls, and waits for,")
            }
        };
        let ident = format_ident!("{base}{suffix}");
        let doc = format!("{how} the `{}` interface of a driver.", contract.name);
        let methods = contract.methods.iter().map(|method| self.method(method, &invoke));
        quote! {
            #[doc = #doc]
            #[derive(::core::clone::Clone, ::core::fmt::Debug)]
            #vis struct #ident<I> {
                invoke: I,
            }

            impl<I: #invoke> #ident<I> {
                /// A client that sends its operations by `invoke`.
                pub fn new(invoke: I) -> Self {
                    Self { invoke }
                }

                /// What it sends them by.
                pub fn invoke(&self) -> &I {
                    &self.invoke
                }

                #(#methods)*
            }
        }
    }

    fn method(self, method: &Method, invoke: &TokenStream) -> TokenStream {
        let Method { ident, name, .. } = method;
        let docs = docs_or(method);
        let params = method.params.iter().map(|param| {
            let (ident, ty) = (&param.ident, &param.ty);
            match param.is_lent {
                false => quote!(#ident: #ty),
                true => quote!(#ident: impl ::core::convert::Into<I::Lend>),
            }
        });
        let idents: Vec<_> = method.params.iter().map(|param| &param.ident).collect();
        let values = method.params.iter().map(|Param { ident, is_lent, .. }| match is_lent {
            false => quote!(#ident),
            true => quote!(&#ident.lent),
        });
        let lent: Vec<_> =
            method.params.iter().filter(|param| param.is_lent).map(|param| &param.ident).collect();
        let (send, ok) = match &method.kind {
            Kind::Call => {
                let ty = &method.output.ty;
                (quote!(call::<#ty>), quote!(#ty))
            }
            Kind::StreamingCall { item, .. } => {
                (quote!(streaming_call::<#item>), quote!(I::Items<#item>))
            }
            Kind::Stream { .. } => (quote!(stream), quote!(I::Pipe)),
        };
        let args = match idents.is_empty() {
            true => quote!(&[(); 0]), // `()` would travel as nil
            false => quote!(&(#(#values,)*)),
        };
        let deadline = option(
            method.marks.deadline_ms.map(|ms| quote!(::core::time::Duration::from_millis(#ms))),
        );
        let (asyncness, wait) = match self {
            Self::Async => (quote!(async), quote!(.await)),
            Self::Blocking => (TokenStream::new(), TokenStream::new()),
        };
        quote! {
            #(#docs)*
            pub #asyncness fn #ident(
                &self,
                #(#params),*
            ) -> ::core::result::Result<#ok, I::Error> {
                #(let #lent = <I as #invoke>::lend(&self.invoke, #lent.into())#wait?;)*
                let out = ::bus_schema::Outgoing::new(#name, #deadline, #args);
                #(let out = out.with(#lent);)*
                <I as #invoke>::#send(&self.invoke, out)#wait
            }
        }
    }
}

/// The method's doc comment. Crates that deny missing ones must not trip over our code.
fn docs_or(method: &Method) -> Vec<Attribute> {
    match method.docs.is_empty() {
        false => method.docs.clone(),
        true => {
            let doc = syn::LitStr::new(&format!("`{}`.", method.name), Span::call_site());
            vec![syn::parse_quote!(#[doc = #doc])]
        }
    }
}
