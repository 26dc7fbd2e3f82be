//! Streams: duplex byte pipes on chunked subjects, and the items of streaming calls, which are
//! the same machinery with records for chunks.

mod budget;
mod byte_stream;
mod flow;
mod items;
mod pump;
mod switchboard;

pub(crate) use budget::Budget;
pub use byte_stream::{ByteStream, StreamError};
pub(crate) use byte_stream::End as PipeEnd;
pub(crate) use flow::{Chunk, Flow};
pub use items::Items;
pub(crate) use pump::{Line, Pump};
pub(crate) use switchboard::{Heard, Switchboard};
