//! One definition per method: the attributes behind jmp-bus interfaces and drivers.
//!
//! | You want to…                                     | Use |
//! |--------------------------------------------------|-----|
//! | define what many drivers can do                  | [`macro@interface`] on a trait |
//! | serve a driver, with or without own methods      | [`macro@driver`] on an `impl` block |
//! | pass a struct or an enum as argument or result   | `#[derive(Describe)]` |
//!
//! Use them through `bus_schema`, which the generated code names and nothing else.

#![deny(missing_docs)]

use proc_macro::TokenStream;
use syn::{DeriveInput, ItemImpl, ItemTrait, parse_macro_input};

mod case;
mod client;
mod contract;
mod describe;
mod dispatch;
mod docs;
mod driver;
mod interface;
mod method;
mod options;
mod serde_attr;

/// Makes a trait a contract that drivers implement and clients call.
///
/// `#[interface(name = "power", version = 1)]`; the name is otherwise the trait's in kebab-case,
/// the version 1. Each method takes `&self`, then a context if it wants one (`cx: &Context`), then
/// its arguments. Its kind follows from the last parameter: `Items<T>` makes a streaming call,
/// `ByteStream` a stream, anything else a call. `async fn` runs as a task; plain `fn` blocks and
/// runs where that is allowed. An argument of type `Resource` is data that the caller lends, one of
/// type `ResourceWriter` is where data for the caller goes: typed clients take whatever can be lent.
/// An implementor writes the same signatures.
///
/// | on a method or parameter            | meaning |
/// |-------------------------------------|---------|
/// | `#[method(concurrent)]`             | may run beside other calls of the driver |
/// | `#[method(uncancellable)]`          | must not be stopped once it has begun |
/// | `#[method(observe)]`                | only looks: needs no lease, and works during another's |
/// | `#[method(deadline = "10m")]`       | for callers that name none (`ms`, `s`, `m`, `h`) |
/// | `#[method(name = "other")]`         | its name on the bus |
/// | `#[default(Duration::from_secs(2))]`| what an argument is when the caller leaves it out |
///
/// For a trait `Power` it also emits `PowerInterface` (the descriptor and the dispatch),
/// `PowerClient` and `PowerBlocking`.
#[proc_macro_attribute]
pub fn interface(args: TokenStream, item: TokenStream) -> TokenStream {
    let options = parse_macro_input!(args as options::Options);
    interface::expand(&options, parse_macro_input!(item as ItemTrait)).into()
}

/// Makes a type a driver: implements `Serve` from the interfaces listed and the block's exports.
///
/// `#[driver(Power, Console, name = "example", version = 1)]` on an inherent `impl` block. The
/// paths are interfaces that the type implements; where two have a method of one name, the first
/// listed answers. A method marked `#[export]` belongs to the driver's own interface, called like
/// the type in kebab-case unless `name` says otherwise; it is declared as in
/// [`macro@interface`]. The one marked `#[safe]` makes the device safe. All others are private
/// helpers.
#[proc_macro_attribute]
pub fn driver(args: TokenStream, item: TokenStream) -> TokenStream {
    let options = parse_macro_input!(args as options::Options);
    driver::expand(&options, parse_macro_input!(item as ItemImpl)).into()
}

/// Gives a struct with named fields, or an enum, a type of the wire.
///
/// Follows the serde attributes `rename`, `rename_all`, `default`, `skip` and the like, and
/// refuses those that change the wire form unseen (`flatten`, `untagged`, `with` …).
#[proc_macro_derive(Describe, attributes(serde))]
pub fn describe(item: TokenStream) -> TokenStream {
    describe::expand(&parse_macro_input!(item as DeriveInput)).into()
}
