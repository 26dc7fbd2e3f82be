//! One connection, from its accept to the end of both halves.

use std::io;

use runtime::StreamError;
use tokio::io::copy_bidirectional_with_sizes;

use super::{Forward, Trouble, listener::Connection};
use crate::network::COPY_BYTES;

/// Carries one connection. Each half ends by itself; a failure ends both, and shows at the local
/// end as a reset, never as an end.
pub(super) async fn carry(forward: &Forward, mut local: Connection) {
    let mut stream = match forward.method.open().await {
        Ok(stream) => stream,
        Err(error) => {
            local.cut();
            return forward.tell(Trouble::Refused(error));
        }
    };
    let copied = match &mut local {
        Connection::Tcp(tcp) => {
            copy_bidirectional_with_sizes(tcp, &mut stream, COPY_BYTES, COPY_BYTES).await
        }
        Connection::Unix(unix) => {
            copy_bidirectional_with_sizes(unix, &mut stream, COPY_BYTES, COPY_BYTES).await
        }
    };
    if let Err(error) = copied {
        local.cut();
        // Otherwise the local side hung up; the driver hears of it as the stream is dropped.
        if let Some(error) = broken(error) {
            forward.tell(Trouble::Cut(error));
        }
    }
}

/// How a stream broke off, if it was the stream that failed.
fn broken(error: io::Error) -> Option<StreamError> {
    error.downcast().ok()
}

impl Connection {
    /// Closes it so that the other side sees that something went wrong. A Unix socket has no word
    /// for that.
    fn cut(&self) {
        if let Self::Tcp(tcp) = self {
            let _ = tcp.set_zero_linger();
        }
    }
}
