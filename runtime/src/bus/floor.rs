//! Bare async-nats: the floor that the bench measures beside, and nothing else uses. No envelope,
//! no headers, its best concurrency.

use std::{
    fmt,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::StreamExt as _;

use super::BusError;
use crate::Settings;

/// A bare connection.
#[derive(Clone)]
pub struct Bare(async_nats::Client);

/// A bare subscription.
#[derive(Debug)]
pub struct BareMessages(async_nats::Subscriber);

impl fmt::Debug for Bare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bare")
    }
}

fn closed<E>(_: E) -> BusError {
    BusError::Closed
}

impl Bare {
    /// Connects.
    ///
    /// # Errors
    ///
    /// [`BusError::Connect`].
    pub async fn connect(settings: &Settings) -> Result<Self, BusError> {
        let connecting = settings.options()?.connect(&settings.servers);
        let connect = |source| BusError::Connect { server: settings.servers.join(", "), source };
        connecting.await.map(Self).map_err(connect)
    }

    /// Gives every request on `subject` its own bytes back, until the connection is closed.
    ///
    /// # Errors
    ///
    /// [`BusError::Closed`].
    pub async fn echo(&self, subject: String) -> Result<(), BusError> {
        let mut requests = self.subscribe(subject).await?.0;
        while let Some(request) = requests.next().await {
            if let Some(reply) = request.reply {
                self.0.publish(reply, request.payload).await.map_err(closed)?;
            }
        }
        Ok(())
    }

    /// One request.
    ///
    /// # Errors
    ///
    /// [`BusError::Closed`] whatever the reason: the bench has only one.
    pub async fn request(&self, subject: String, payload: Bytes) -> Result<Bytes, BusError> {
        Ok(self.0.request(subject, payload).await.map_err(closed)?.payload)
    }

    /// Subscribes, and waits until the broker knows.
    ///
    /// # Errors
    ///
    /// [`BusError::Closed`].
    pub async fn subscribe(&self, subject: String) -> Result<BareMessages, BusError> {
        let messages = self.subscribe_only(subject).await?;
        self.round_trip().await;
        Ok(messages)
    }

    /// Subscribes; see [`round_trip`](Self::round_trip).
    ///
    /// # Errors
    ///
    /// [`BusError::Closed`].
    pub async fn subscribe_only(&self, subject: String) -> Result<BareMessages, BusError> {
        self.0.subscribe(subject).await.map(BareMessages).map_err(closed)
    }

    /// Waits until the broker knows of every subscription: whatever answers this (nobody does),
    /// they went before it.
    pub async fn round_trip(&self) {
        let _ = self.0.request(self.0.new_inbox(), Bytes::new()).await;
    }

    /// Publishes.
    ///
    /// # Errors
    ///
    /// [`BusError::Closed`].
    pub async fn publish(&self, subject: String, payload: Bytes) -> Result<(), BusError> {
        self.0.publish(subject, payload).await.map_err(closed)
    }

    /// Publishes `count` messages to JetStream with `in_flight` of them unacknowledged at a time.
    ///
    /// # Errors
    ///
    /// [`BusError::Closed`].
    pub async fn store(
        &self,
        subject: String,
        payload: Bytes,
        count: usize,
        in_flight: usize,
    ) -> Result<(), BusError> {
        let inbox = self.0.new_inbox();
        let mut acks = self.0.subscribe(inbox.clone()).await.map_err(closed)?;
        let mut unacked = 0;
        for _ in 0..count {
            let sent = self.0.publish_with_reply(subject.clone(), inbox.clone(), payload.clone());
            sent.await.map_err(closed)?;
            unacked += 1;
            while unacked >= in_flight {
                acks.next().await.ok_or(BusError::Closed)?;
                unacked -= 1;
            }
        }
        while unacked > 0 {
            acks.next().await.ok_or(BusError::Closed)?;
            unacked -= 1;
        }
        Ok(())
    }

    /// Publishes `count` messages to JetStream, each on its own subject, with `in_flight` of them
    /// unacknowledged at a time.
    ///
    /// # Errors
    ///
    /// [`BusError::Closed`].
    pub async fn store_each(
        &self,
        subject: impl Fn(usize) -> String,
        payload: impl Fn(usize) -> Bytes,
        count: usize,
        in_flight: usize,
    ) -> Result<(), BusError> {
        let stored = (0..count).map(|at| self.request(subject(at), payload(at)));
        let mut stored = futures_util::stream::iter(stored).buffer_unordered(in_flight);
        while let Some(ack) = stored.next().await {
            ack?;
        }
        Ok(())
    }

    /// Makes `count` requests with `in_flight` of them unanswered at a time; gives the bytes that
    /// came.
    ///
    /// # Errors
    ///
    /// [`BusError::Closed`].
    pub async fn fetch_many(
        &self,
        subject: impl Fn(usize) -> String,
        count: usize,
        in_flight: usize,
    ) -> Result<usize, BusError> {
        let fetched = (0..count).map(|at| self.request(subject(at), Bytes::new()));
        let mut fetched = futures_util::stream::iter(fetched).buffer_unordered(in_flight);
        let mut bytes = 0;
        while let Some(answer) = fetched.next().await {
            bytes += answer?.len();
        }
        Ok(bytes)
    }

    /// Makes `requests` requests with `in_flight` of them unanswered at a time; gives the time it
    /// took. `subject` names the subject of each.
    ///
    /// # Errors
    ///
    /// [`BusError::Closed`].
    pub async fn request_many(
        &self,
        subject: impl Fn(usize) -> String,
        payload: Bytes,
        requests: usize,
        in_flight: usize,
    ) -> Result<Duration, BusError> {
        let began = Instant::now();
        let mut open = futures_util::stream::FuturesUnordered::new();
        for at in 0..requests {
            open.push(self.request(subject(at), payload.clone()));
            if open.len() >= in_flight {
                open.next().await.ok_or(BusError::Closed)??;
            }
        }
        while let Some(answer) = open.next().await {
            answer?;
        }
        Ok(began.elapsed())
    }
}

impl BareMessages {
    /// The next message's bytes.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.0.next().await.map(|message| message.payload)
    }

    /// The next message's bytes and where its answer goes.
    pub async fn next_request(&mut self) -> Option<(Bytes, Option<String>)> {
        let message = self.0.next().await?;
        Some((message.payload, message.reply.map(|reply| reply.to_string())))
    }
}
