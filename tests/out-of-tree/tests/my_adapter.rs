//! An adapter of one's own: a value that says what is wanted, and what it gives.

use actors::{ClientAdapter, EchoNetwork, StreamMethod};
use runtime::{CallError, blocking, serve};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, WriteHalf};

/// Talks to a device that answers each line with a line.
struct LineAdapter {
    ending: &'static str,
}

/// A device that is talked to.
struct Lines {
    from: BufReader<tokio::io::ReadHalf<runtime::ByteStream>>,
    to: WriteHalf<runtime::ByteStream>,
    ending: &'static str,
}

impl ClientAdapter for LineAdapter {
    type Adapted = Lines;
    type Error = CallError;

    async fn adapt(self, method: StreamMethod) -> Result<Lines, CallError> {
        let (from, to) = tokio::io::split(method.open().await?);
        Ok(Lines { from: BufReader::new(from), to, ending: self.ending })
    }
}

impl Lines {
    async fn ask(&mut self, question: &str) -> std::io::Result<String> {
        self.to.write_all(format!("{question}{}", self.ending).as_bytes()).await?;
        let mut answer = String::new();
        self.from.read_line(&mut answer).await?;
        Ok(answer.trim_end().to_owned())
    }
}

#[tokio::test]
async fn an_adapter_of_ones_own_takes_any_stream_method() {
    let served = serve(EchoNetwork).await.unwrap();
    let adapter = LineAdapter { ending: "\r\n" };
    let mut lines = StreamMethod::connect(served.driver()).adapt(adapter).await.unwrap();
    assert_eq!(lines.ask("*IDN?").await.unwrap(), "*IDN?");
    drop(lines);
    served.shutdown().await.unwrap();
}

#[test]
fn and_blocks_for_code_that_blocks() {
    let served = blocking::serve(EchoNetwork).unwrap();
    let method = StreamMethod::connect(served.driver().to_async());
    let mut lines = LineAdapter { ending: "\n" }.adapt_blocking(method).unwrap();
    assert_eq!(blocking::wait(lines.ask("*IDN?")).unwrap(), "*IDN?");
    drop(lines);
    served.shutdown().unwrap();
}
