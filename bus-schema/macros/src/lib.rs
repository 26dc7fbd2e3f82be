//! One definition per method (stub).
use proc_macro::TokenStream;
/// stub
#[proc_macro_attribute]
pub fn interface(_: TokenStream, item: TokenStream) -> TokenStream {
    item
}
/// stub
#[proc_macro_attribute]
pub fn driver(_: TokenStream, item: TokenStream) -> TokenStream {
    item
}
/// stub
#[proc_macro_derive(Describe, attributes(serde))]
pub fn describe(_: TokenStream) -> TokenStream {
    TokenStream::new()
}
