//! Streams: duplex byte pipes on chunked subjects, and the items of streaming calls, which are
//! the same machinery with records for chunks.

mod budget;
mod byte_stream;
mod flow;
mod items;
mod pipe_end;
mod pump;
mod switchboard;

pub(crate) use budget::Budget;
pub use byte_stream::ByteStream;
pub(crate) use byte_stream::foreign;
pub(crate) use flow::{Chunk, Flow};
pub(crate) use items::AnyItems;
pub use items::{ItemError, Items};
pub use pipe_end::StreamError;
pub(crate) use pipe_end::{PipeDirection, PipeEnd};
pub(crate) use pump::{DataLine, Line, PeerWatch, Pump, Record, SILENCE, no_stream};
pub(crate) use switchboard::{Heard, Switchboard};
