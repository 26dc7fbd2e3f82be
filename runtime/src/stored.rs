//! What JetStream has stored, read by batches of direct gets (ADR-31). No consumer is made: a
//! reader costs the broker nothing while it does not read, and disturbs no other.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bus_schema::subject::Streams;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    bus::{BusError, Incoming, Subject},
    client::Inner,
};

/// Messages of one batch.
const BATCH: usize = 256;
/// How long each answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// A batch that breaks off (the broker was away) is asked for again so often.
const TRIES_MAX: u32 = 3;

/// The messages of one stream on one subject, which may be a pattern, in order.
pub(crate) struct Stored {
    client: Arc<Inner>,
    stream: String,
    subject: String,
    from: From,
    /// Read and not given yet.
    read: Vec<Incoming>,
    ended: bool,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored").field("subject", &self.subject).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
enum From {
    Sequence(u64),
    Time(SystemTime),
}

impl Stored {
    /// From the first.
    pub(crate) fn all(client: &Arc<Inner>, stream: &str, subject: &str) -> Self {
        Self::from(client, stream, subject, From::Sequence(1))
    }

    /// From the first that was stored after `time`, by the broker's clock.
    pub(crate) fn since(
        client: &Arc<Inner>,
        stream: &str,
        subject: &str,
        time: SystemTime,
    ) -> Self {
        Self::from(client, stream, subject, From::Time(time))
    }

    fn from(client: &Arc<Inner>, stream: &str, subject: &str, from: From) -> Self {
        let (client, read, ended) = (client.clone(), Vec::new(), false);
        Self { client, stream: stream.to_owned(), subject: subject.to_owned(), from, read, ended }
    }

    /// The next ones, if there are any. Cancel safe.
    pub(crate) async fn batch(&mut self) -> Result<Vec<Incoming>, BusError> {
        let mut tries = 0;
        while self.read.is_empty() && !self.ended {
            tries += 1;
            match self.read_batch().await {
                Err(error @ (BusError::Denied { .. } | BusError::TurnedAway(_))) => {
                    return Err(error);
                }
                Err(error) if tries == TRIES_MAX && self.read.is_empty() => return Err(error),
                // What came is good; what is missing is asked for by the next batch.
                Ok(()) | Err(_) => {}
            }
        }
        Ok(std::mem::take(&mut self.read))
    }

    async fn read_batch(&mut self) -> Result<(), BusError> {
        let body = match self.from {
            From::Sequence(from) => {
                json!({ "seq": from, "next_by_subj": self.subject, "batch": BATCH })
            }
            From::Time(time) => {
                let time = humantime::format_rfc3339_nanos(time).to_string();
                json!({ "start_time": time, "next_by_subj": self.subject, "batch": BATCH })
            }
        };
        let get = Subject::from(Streams::direct_get_many(&self.stream));
        let mut answers = self.client.jetstream_box(BATCH + 1, &get);
        self.client.control().reached().await?;
        let asked =
            self.client.control().request(get, answers.subject.clone(), body.to_string().into());
        timeout(PATIENCE, asked).await.map_err(|_| self.unfit("the broker is away"))??;
        loop {
            let answer =
                timeout(PATIENCE, answers.next()).await.map_err(|_| self.unfit("no answer"))??;
            if answer.is_no_responders() {
                return Err(self.unfit("there is none on this broker"));
            }
            let number = |name| answer.header(name).and_then(|n| n.parse::<u64>().ok());
            match answer.status() {
                Some(404) => self.ended = true,
                Some(204) => self.ended = number("Nats-Num-Pending").unwrap_or(0) == 0,
                Some(other) => return Err(self.unfit(&format!("status {other}"))),
                None => {
                    if let Some(sequence) = number("Nats-Sequence") {
                        self.from = From::Sequence(sequence + 1);
                    }
                    self.read.push(answer);
                    continue;
                }
            }
            return Ok(());
        }
    }

    fn unfit(&self, why: &str) -> BusError {
        BusError::Unfit(format!("JetStream stream {:?} cannot be read: {why}", self.stream))
    }
}

/// Reads every message of `stream` on `subject` (a pattern), in order.
pub(crate) async fn read_all(
    client: &Arc<Inner>,
    stream: &str,
    subject: &str,
) -> Result<Vec<Incoming>, BusError> {
    let mut stored = Stored::all(client, stream, subject);
    let mut all = Vec::new();
    loop {
        let batch = stored.batch().await?;
        if batch.is_empty() {
            return Ok(all);
        }
        all.extend(batch);
    }
}

/// The subject that a stored message was published on.
pub(crate) fn stored_subject(message: &Incoming) -> &str {
    message.header("Nats-Subject").unwrap_or_default()
}
