//! `PowerInterface`: the descriptor, and the way from a decoded message to a driver's method.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;

use crate::{
    contract::Contract,
    docs,
    method::{Kind, Method, Param},
};

/// The type that stands for the interface where no driver is at hand.
pub(crate) fn expand(contract: &Contract) -> TokenStream {
    let Contract { base, vis, .. } = contract;
    let ident = contract.interface_ident();
    let names = contract.methods.iter().map(|method| &method.name);
    let describe = describe(contract);
    let dispatches =
        [Way::Call, Way::StreamingCall, Way::Stream].into_iter().map(|way| way.dispatch(contract));
    let doc = format!("The interface of [`{base}`]: what it can do, as data, and its dispatch.");
    quote! {
        #[doc = #doc]
        #[derive(::core::clone::Clone, ::core::marker::Copy, ::core::fmt::Debug)]
        #vis struct #ident;

        impl #ident {
            /// The names of its methods on the bus, in declared order.
            pub const METHODS: &'static [&'static str] = &[#(#names),*];

            #describe
            #(#dispatches)*
        }
    }
}

fn describe(contract: &Contract) -> TokenStream {
    let Contract { name, version, help, .. } = contract;
    let methods = contract.methods.iter().map(describe_method);
    quote! {
        /// What the interface can do. Made once.
        pub fn describe() -> ::std::sync::Arc<::bus_schema::Interface> {
            static INTERFACE: ::std::sync::OnceLock<::std::sync::Arc<::bus_schema::Interface>> =
                ::std::sync::OnceLock::new();
            ::std::sync::Arc::clone(INTERFACE.get_or_init(|| {
                ::std::sync::Arc::new(::bus_schema::Interface {
                    name: ::std::string::String::from(#name),
                    version: #version,
                    help: ::std::string::String::from(#help),
                    methods: ::std::vec![#(#methods),*],
                })
            }))
        }
    }
}

fn describe_method(method: &Method) -> TokenStream {
    let Method { name, .. } = method;
    let help = docs::help(&method.docs);
    let params = method.params.iter().map(describe_param);
    let (kind, result) = match &method.kind {
        Kind::Call => (quote!(Call), &method.output.ty),
        Kind::StreamingCall { item, .. } => (quote!(StreamingCall), &**item),
        Kind::Stream { .. } => (quote!(Stream), &syn::parse_quote!(())),
    };
    let (concurrent, uncancellable) = (method.marks.concurrent, method.marks.uncancellable);
    let observe = method.marks.observe;
    let deadline_ms = option(method.marks.deadline_ms.map(|ms| quote!(#ms)));
    quote! {
        ::bus_schema::Method {
            name: ::std::string::String::from(#name),
            kind: ::bus_schema::Kind::#kind,
            help: ::std::string::String::from(#help),
            params: ::std::vec![#(#params),*],
            result: <#result as ::bus_schema::Describe>::describe(),
            concurrent: #concurrent,
            uncancellable: #uncancellable,
            observe: #observe,
            deadline_ms: #deadline_ms,
        }
    }
}

fn describe_param(param: &Param) -> TokenStream {
    let Param { ty, help, default, .. } = param;
    let name = param.name();
    let optional = default.is_some();
    let default = match default {
        Some(default) => quote!(::bus_schema::Value::of::<#ty>(&#default)),
        None => option(None),
    };
    quote! {
        ::bus_schema::Field {
            name: ::std::string::String::from(#name),
            ty: <#ty as ::bus_schema::Describe>::describe(),
            help: ::std::string::String::from(#help),
            optional: #optional,
            default: #default,
        }
    }
}

pub(crate) fn option(value: Option<TokenStream>) -> TokenStream {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}

/// The three methods of `Serve` that dispatch, and what differs between them.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    Call,
    StreamingCall,
    Stream,
}

impl Way {
    fn takes(self, method: &Method) -> bool {
        matches!(
            (self, &method.kind),
            (Self::Call, Kind::Call)
                | (Self::StreamingCall, Kind::StreamingCall { .. })
                | (Self::Stream, Kind::Stream { .. })
        )
    }

    pub(crate) fn ident(self) -> TokenStream {
        match self {
            Self::Call => quote!(call),
            Self::StreamingCall => quote!(streaming_call),
            Self::Stream => quote!(stream),
        }
    }

    pub(crate) fn kind(self) -> TokenStream {
        match self {
            Self::Call => quote!(::bus_schema::Kind::Call),
            Self::StreamingCall => quote!(::bus_schema::Kind::StreamingCall),
            Self::Stream => quote!(::bus_schema::Kind::Stream),
        }
    }

    /// The parameter that a call has not, as a declaration and as an argument.
    pub(crate) fn channel(self) -> (TokenStream, TokenStream) {
        match self {
            Self::Call => (TokenStream::new(), TokenStream::new()),
            Self::StreamingCall => (quote!(channel: ::bus_schema::RawItems), quote!(channel)),
            Self::Stream => (quote!(channel: ::bus_schema::RawPipe), quote!(channel)),
        }
    }

    pub(crate) fn serving(self) -> TokenStream {
        match self {
            Self::Call => quote!(::bus_schema::Serving<::std::vec::Vec<u8>>),
            _ => quote!(::bus_schema::Serving<()>),
        }
    }

    fn dispatch(self, contract: &Contract) -> TokenStream {
        let (ident, kind, serving) = (self.ident(), self.kind(), self.serving());
        let (channel, _) = self.channel();
        let (params, bounds, driver) = contract.callee.signature();
        let methods = contract.methods.iter().enumerate().filter(|(_, m)| self.takes(m));
        let arms: Vec<_> = methods.map(|(at, method)| arm(contract, at, method)).collect();
        // Without an arm nothing is used, and rustc would say so.
        let unused = arms.is_empty().then(|| match self {
            Self::Call => quote!(let _ = (driver, cx, args);),
            _ => quote!(let _ = (driver, cx, args, channel);),
        });
        quote! {
            #[doc(hidden)]
            pub fn #ident #params(
                driver: ::std::sync::Arc<#driver>,
                cx: ::bus_schema::RawContext,
                method: &str,
                args: ::bus_schema::Args,
                #channel
            ) -> #serving #bounds {
                match method {
                    #(#arms)*
                    _ => {
                        #unused
                        let refusal =
                            ::bus_schema::refuse_method(&[Self::describe()], method, #kind);
                        ::std::boxed::Box::pin(::core::future::ready(
                            ::core::result::Result::Err(refusal.into()),
                        ))
                    }
                }
            }
        }
    }
}

/// One operation: all arguments are read, and nothing is left over, before the driver hears of it.
fn arm(contract: &Contract, at: usize, method: &Method) -> TokenStream {
    // Located at the method, so that a future that is not `Send` is reported there.
    let span = Span::call_site().located_at(method.ident.span());
    let name = &method.name;
    let names: Vec<_> = (0..method.params.len()).map(|at| format_ident!("arg_{at}")).collect();
    let reads = names.iter().zip(&method.params).map(|(name, param)| read(name, param));
    let borrows = names.iter().zip(&method.params).filter(|(_, param)| param.is_lent).map(borrow);
    let channel = match &method.kind {
        Kind::Call => TokenStream::new(),
        Kind::StreamingCall { items, .. } => convert(quote!(channel), items, quote!(RawItems)),
        Kind::Stream { pipe } => convert(quote!(channel), pipe, quote!(RawPipe)),
    };
    let run = run(contract, method, &names);
    let finish = match method.kind {
        Kind::Call => {
            let ty = &method.output.ty;
            quote_spanned!(span=> ::core::result::Result::Ok(::bus_schema::encode_value::<#ty>(&result)?))
        }
        _ => quote_spanned!(span=> { let () = result; ::core::result::Result::Ok(()) }),
    };
    quote_spanned! {span=>
        #name => ::std::boxed::Box::pin(async move {
            let interface = Self::describe();
            let mut reader = args.reader(&interface.methods[#at])?;
            #(#reads)*
            reader.finish()?;
            #(#borrows)*
            #channel
            #run
            #finish
        }),
    }
}

fn read(name: &syn::Ident, param: &Param) -> TokenStream {
    let ty = &param.ty;
    match &param.default {
        None if param.is_lent => quote!(let #name = reader.take::<::bus_schema::Lent>()?;),
        None => quote!(let #name = reader.take::<#ty>()?;),
        // A function and no closure: the expression is to see nothing of what is around it here.
        Some(default) => quote! {
            let #name = {
                fn default() -> #ty { #default }
                reader.take_or::<#ty>(default)?
            };
        },
    }
}

/// What was lent, as the author's type. After all arguments were read: it may begin to move.
fn borrow((name, param): (&syn::Ident, &Param)) -> TokenStream {
    let raw = quote! {
        let #name = ::bus_schema::RawResource { lent: #name, cx: cx.clone() };
    };
    let convert = convert(quote!(#name), &param.ty, quote!(RawResource));
    quote!(#raw #convert)
}

/// The author's type from the host's opaque one, by the impl that the runtime has for its own.
fn convert(name: TokenStream, ty: &syn::Type, raw: TokenStream) -> TokenStream {
    // Located at the type, so that a foreign one of the same name is reported there.
    let span = Span::call_site().located_at(ty.span());
    quote_spanned! {span=>
        let #name = <#ty as ::core::convert::TryFrom<::bus_schema::#raw>>::try_from(#name)?;
    }
}

/// Runs the method as `result`, on the host's thread for blocking work if it blocks.
pub(crate) fn run(contract: &Contract, method: &Method, names: &[syn::Ident]) -> TokenStream {
    let span = Span::call_site().located_at(method.ident.span());
    let path = contract.callee.path();
    let ident = &method.ident;
    let (context, cx) = match &method.context {
        Some(context) => {
            let by_ref = context.by_ref.then(|| quote!(&));
            (convert(quote!(cx), &context.ty, quote!(RawContext)), Some(quote!(#by_ref cx,)))
        }
        None => (TokenStream::new(), None),
    };
    let channel = (!matches!(method.kind, Kind::Call)).then(|| quote!(channel));
    let call = quote_spanned!(span=> #path::#ident(&driver, #cx #(#names,)* #channel));
    let call = match method.is_async {
        true => quote_spanned!(span=> #context let result = #call.await;),
        false => quote_spanned! {span=>
            let blocking = ::std::sync::Arc::clone(cx.blocking());
            #context
            let result = ::bus_schema::block(blocking, move || #call).await?;
        },
    };
    match method.output.fallible {
        true => quote_spanned! {span=>
            #call
            let result = result.map_err(::core::convert::Into::<::bus_schema::Fault>::into)?;
        },
        false => call,
    }
}
