//! One interface, read: what a trait or a driver's exports come to.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Generics, Ident, Visibility};

use crate::method::Method;

/// What descriptor, dispatch and clients are generated from.
pub(crate) struct Contract {
    /// What the generated types are called after: the trait, or the driver's type.
    pub(crate) base: Ident,
    pub(crate) vis: Visibility,
    pub(crate) name: String,
    pub(crate) version: u32,
    pub(crate) help: String,
    pub(crate) methods: Vec<Method>,
    pub(crate) callee: Callee,
}

/// Who runs the methods, in the dispatch.
pub(crate) enum Callee {
    /// Any type with the trait of this name.
    Trait(Ident),
    /// This type, with the generics of its `impl` block.
    Type(Box<syn::Type>, Generics),
}

impl Callee {
    /// Parameters and `where` clause of a dispatching function, and the driver's type in it.
    pub(crate) fn signature(&self) -> (TokenStream, TokenStream, TokenStream) {
        match self {
            Self::Trait(name) => (quote!(<D: #name>), TokenStream::new(), quote!(D)),
            Self::Type(ty, generics) => {
                let (params, _, bounds) = generics.split_for_impl();
                (quote!(#params), quote!(#bounds), quote!(#ty))
            }
        }
    }

    /// The path that a method's name is appended to.
    pub(crate) fn path(&self) -> TokenStream {
        match self {
            Self::Trait(name) => quote!(<D as #name>),
            Self::Type(ty, _) => quote!(<#ty>),
        }
    }
}

impl Contract {
    pub(crate) fn interface_ident(&self) -> Ident {
        format_ident!("{}Interface", self.base)
    }

    /// Refuses what is only wrong between methods.
    pub(crate) fn check(&self) -> syn::Result<()> {
        collect(self.methods.iter().enumerate().map(|(at, method)| {
            match self.methods[..at].iter().any(|earlier| earlier.name == method.name) {
                false => Ok(()),
                true => Err(syn::Error::new(
                    method.ident.span(),
                    format!("the interface has an operation {:?} already", method.name),
                )),
            }
        }))
        .map(drop)
    }
}

/// All results or all errors: an author should not have to build once for each mistake.
pub(crate) fn collect<T>(results: impl IntoIterator<Item = syn::Result<T>>) -> syn::Result<Vec<T>> {
    let mut good = Vec::new();
    let mut bad: Option<syn::Error> = None;
    for result in results {
        match (result, &mut bad) {
            (Ok(value), _) => good.push(value),
            (Err(error), Some(bad)) => bad.combine(error),
            (Err(error), None) => bad = Some(error),
        }
    }
    bad.map_or(Ok(good), Err)
}
