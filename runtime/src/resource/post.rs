//! Questions of an exporter to JetStream, and who waits for which answer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bus_schema::{Incarnation, limits::OUTAGE_MAX, subject::Inbox};
use bytes::Bytes;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::ResourceError;
use crate::{
    bus::{BusError, Conn, Incoming, Subscription, random},
    exporter::Core,
};

/// An answer that has not come in this time is asked for again: the broker may have been away.
const PATIENCE: Duration = Duration::from_secs(5);

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Incoming>>>>;

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Post {
    conn: Conn,
    inbox: Inbox,
    waiting: Waiting,
}

/// Gives a reply subject up when nobody waits for it any more.
struct Token<'a>(&'a Post, u64);

impl Drop for Token<'_> {
    fn drop(&mut self) {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

impl Post {
    /// Opens an inbox of its own for files: their answers are large, and many.
    pub(super) async fn open(core: &Core) -> Result<Self, BusError> {
        let inbox = Inbox::of_exporter(&core.root, &core.name, Incarnation(random()));
        let conn = core.bulk.clone();
        let answers = conn.subscribe(inbox.wildcard()).await?;
        let wildcard = inbox.wildcard();
        conn.confirm(inbox.token(random()), core.name.as_str(), &[&wildcard]).await?;
        let post = Self { conn, inbox, waiting: Waiting::default() };
        let (reading, stop) = (post.clone(), core.stop.clone());
        core.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = reading.read(answers) => {}
            }
        });
        Ok(post)
    }

    async fn read(&self, mut answers: Subscription) {
        while let Some(answer) = answers.next().await {
            let Some(token) = self.inbox.read(answer.subject()) else { continue };
            let waiting =
                self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&token);
            if let Some(waiting) = waiting {
                let _ = waiting.send(answer); // whoever asked may have given up
            }
        }
    }

    /// Asks until there is an answer, over an outage of the broker too.
    pub(super) async fn ask(&self, subject: &str) -> Result<Incoming, ResourceError> {
        let began = Instant::now();
        while began.elapsed() < OUTAGE_MAX {
            let (tx, rx) = oneshot::channel();
            let token = Token(self, random());
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(token.1, tx);
            let reply = self.inbox.token(token.1);
            let asked = async {
                self.conn.request(subject.to_owned(), reply, Bytes::new()).await?;
                Ok::<_, BusError>(timeout(PATIENCE, rx).await)
            };
            match timeout(OUTAGE_MAX, asked).await {
                Ok(Ok(Ok(Ok(answer)))) => return Ok(answer),
                Ok(Ok(_no_answer)) => {}
                Ok(Err(error)) => return Err(ResourceError::Broker(error.to_string())),
                Err(_elapsed) => break,
            }
        }
        Err(ResourceError::Broker(BusError::Away(OUTAGE_MAX).to_string()))
    }
}
