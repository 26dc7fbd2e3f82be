//! One viewer: a WebSocket, and a stream.

use axum::{
    body::Bytes,
    extract::ws::{CloseFrame, Message, WebSocket, close_code},
};
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use runtime::ByteStream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split};

use super::{NovncTrouble, Shared};
use crate::network::COPY_BYTES;

/// The longest reason of a close: a control frame has 125 bytes, and 2 are the code.
const REASON_BYTES_MAX: usize = 123;

/// How a viewer's session ended.
enum Ended {
    /// The viewer left.
    Left,
    /// The screen ended.
    Over,
    /// The screen broke off.
    Failed(std::io::Error),
    /// The viewer said something that is no part of it.
    Wrong,
}

/// Shows the screen to one viewer, to the end.
pub(super) async fn show(shared: &Shared, socket: WebSocket) {
    let (mut to_viewer, from_viewer) = socket.split();
    let (code, reason) = match Box::pin(shared.method.open()).await {
        Ok(stream) => {
            let (from, to) = split(stream);
            let ended = tokio::select! {
                ended = up(from_viewer, to) => ended,
                ended = down(from, &mut to_viewer) => ended,
            };
            match ended {
                Ended::Left => return,
                Ended::Over => (close_code::NORMAL, "the screen has ended".to_owned()),
                Ended::Wrong => (close_code::UNSUPPORTED, "it takes binary messages".to_owned()),
                Ended::Failed(error) => {
                    let reason = error.to_string();
                    if let Ok(error) = error.downcast() {
                        let _ = shared.troubled.try_send(NovncTrouble::Cut(error)); // nobody asks
                    }
                    (close_code::ERROR, reason)
                }
            }
        }
        Err(error) => {
            let reason = error.to_string();
            let _ = shared.troubled.try_send(NovncTrouble::Refused(error)); // nobody asks
            (close_code::ERROR, reason)
        }
    };
    let frame = CloseFrame { code, reason: cut(&reason).into() };
    let _ = to_viewer.send(Message::Close(Some(frame))).await; // the viewer may have left
}

async fn up(mut from: SplitStream<WebSocket>, mut to: WriteHalf<ByteStream>) -> Ended {
    while let Some(Ok(message)) = from.next().await {
        match message {
            Message::Binary(bytes) => {
                if let Err(error) = to.write_all(&bytes).await {
                    return Ended::Failed(error);
                }
            }
            Message::Text(_) => return Ended::Wrong,
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Close(_) => break,
        }
    }
    Ended::Left
}

async fn down(mut from: ReadHalf<ByteStream>, to: &mut SplitSink<WebSocket, Message>) -> Ended {
    let mut block = vec![0; COPY_BYTES];
    loop {
        match from.read(&mut block).await {
            Ok(0) => return Ended::Over,
            Ok(read) => {
                let message = Message::Binary(Bytes::copy_from_slice(&block[..read]));
                if to.send(message).await.is_err() {
                    return Ended::Left;
                }
            }
            Err(error) => return Ended::Failed(error),
        }
    }
}

fn cut(reason: &str) -> &str {
    let mut ends = (0..=reason.len().min(REASON_BYTES_MAX)).rev();
    let end = ends.find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
    &reason[..end]
}
