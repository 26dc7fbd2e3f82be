//! What QEMU is told, and what it answers: one JSON object a line.

use std::time::Duration;

use bus_schema::{Fault, FaultKind};
use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader},
    time::timeout,
};
use tracing::debug;

/// Longest line that is read. The longest answer is `query-qmp-schema`, with 200 KiB.
const LINE_BYTES_MAX: usize = 16 << 20;
/// How long QEMU has to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A connection to QEMU's monitor.
#[derive(Debug)]
pub(super) struct Qmp<S> {
    socket: BufReader<S>,
    /// What has come of the next line: a call that is given up loses nothing of it.
    line: Vec<u8>,
    /// The number of the last command.
    last: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Qmp<S> {
    /// Greets QEMU.
    pub(super) async fn greet(socket: S) -> Result<Self, Fault> {
        let mut qmp = Self { socket: BufReader::new(socket), line: Vec::new(), last: 0 };
        let greeting = timeout(ANSWER_WITHIN, qmp.next()).await;
        let greeting = greeting.map_err(|_| silent("greeting"))??;
        if greeting.get("QMP").is_none() {
            return Err(Fault::device("what answers is not QEMU's monitor"));
        }
        qmp.execute("qmp_capabilities", None).await?;
        Ok(qmp)
    }

    /// Runs one command and gives what it returns.
    pub(super) async fn execute(
        &mut self,
        command: &str,
        arguments: Option<Json>,
    ) -> Result<Json, Fault> {
        self.last += 1;
        let mut request = json!({ "execute": command, "id": self.last });
        if let Some(arguments) = arguments {
            request["arguments"] = arguments;
        }
        let line = format!("{request}\n");
        let answer = async {
            self.socket.write_all(line.as_bytes()).await?;
            loop {
                let mut answer = self.next().await?;
                if answer.get("id").and_then(Json::as_u64) != Some(self.last) {
                    // An event, or the answer to a command that was given up.
                    debug!(%answer, "qemu says");
                } else if let Some(error) = answer.get("error") {
                    let why = error.get("desc").and_then(Json::as_str).unwrap_or("no reason given");
                    return Err(Fault::device(format_args!("{command}: {why}")));
                } else {
                    return Ok(answer["return"].take());
                }
            }
        };
        timeout(ANSWER_WITHIN, answer).await.map_err(|_| silent(command))?
    }

    /// The next object. Cancel safe.
    async fn next(&mut self) -> Result<Json, Fault> {
        loop {
            let come = self.socket.fill_buf().await?;
            if come.is_empty() {
                return Err(Fault::new(FaultKind::Unreachable, "QEMU has ended"));
            }
            let end = come.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(come.len(), |end| end + 1);
            self.line.extend_from_slice(&come[..taken]);
            self.socket.consume(taken);
            if self.line.len() > LINE_BYTES_MAX {
                return Err(Fault::device("QEMU does not end its line"));
            }
            if end.is_some() {
                let line = std::mem::take(&mut self.line);
                return serde_json::from_slice(&line)
                    .map_err(|error| Fault::device(format_args!("QEMU's answer: {error}")));
            }
        }
    }
}

fn silent(what: &str) -> Fault {
    Fault::timeout(format_args!("QEMU did not answer {what} within {ANSWER_WITHIN:?}"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};

    use super::*;

    /// What a QEMU says, whatever it is asked.
    async fn says(text: &str) -> (Qmp<DuplexStream>, DuplexStream) {
        let (ours, mut qemu) = duplex(1 << 20);
        let greeting = "{\"QMP\": {}}\n{\"return\": {}, \"id\": 1}\n";
        qemu.write_all(format!("{greeting}{text}").as_bytes()).await.unwrap();
        (Qmp::greet(ours).await.unwrap(), qemu)
    }

    #[tokio::test]
    async fn an_answer_is_found_between_events() {
        let text =
            "{\"event\": \"RESUME\"}\n{\"id\": 9, \"return\": 1}\n{\"id\": 2, \"return\": 5}\n";
        let (mut qmp, mut qemu) = says(text).await;
        let answer = qmp.execute("query-status", Some(json!({ "a": 1 }))).await.unwrap();
        assert_eq!(answer, json!(5));
        let mut asked = vec![0; 1000];
        let len = qemu.read(&mut asked).await.unwrap();
        let asked = String::from_utf8_lossy(&asked[..len]).into_owned();
        assert!(asked.contains("\"execute\":\"query-status\""), "{asked}");
        assert!(asked.ends_with("}\n") && asked.contains("\"arguments\":{\"a\":1}"), "{asked}");
    }

    #[tokio::test]
    async fn an_error_is_a_fault_with_its_reason() {
        let (mut qmp, _qemu) =
            says("{\"id\": 2, \"error\": {\"desc\": \"no such thing\"}}\n").await;
        let fault = qmp.execute("eject", None).await.unwrap_err();
        assert_eq!(fault, Fault::device("eject: no such thing"));
    }

    #[tokio::test]
    async fn garbage_and_an_end_are_faults() {
        let (mut qmp, qemu) = says("}{\n").await;
        assert_eq!(qmp.execute("a", None).await.unwrap_err().kind, FaultKind::Device);
        drop(qemu);
        let fault = qmp.execute("b", None).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Unreachable);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_qemu_is_a_timeout() {
        let (mut qmp, _qemu) = says("").await;
        assert_eq!(qmp.execute("a", None).await.unwrap_err().kind, FaultKind::Timeout);
    }
}
