//! A plain NATS client: another implementation, a forger, a source of garbage.

use std::time::Duration;

use async_nats::{Client, ConnectOptions, HeaderMap, Message, Subscriber};
use bus_schema::{
    ClientName, DriverId, ExporterName, codec,
    message::Call,
    subject::{DriverVerb, ExporterVerb, FromClient, Inbox, To},
};
use bytes::Bytes;
use futures_util::StreamExt as _;

use crate::Lab;

/// How long an answer may take. One that must not come is waited for by asking for another.
const PATIENCE: Duration = Duration::from_secs(20);

/// A plain NATS client.
#[derive(Debug)]
pub struct Peer {
    /// The connection.
    pub nats: Client,
    root: bus_schema::Root,
}

impl Peer {
    pub(crate) async fn connect(lab: &Lab) -> anyhow::Result<Self> {
        let options = ConnectOptions::with_token(lab.token()?);
        let nats = options.connect(&lab.settings.servers[0]).await?;
        Ok(Self { nats, root: lab.root.clone() })
    }

    /// The subject on which `client` calls `method` of the root driver of `bench`.
    pub fn subject(&self, client: &str, verb: DriverVerb, method: &str) -> String {
        let exporter: ExporterName = "bench".parse().expect("a name");
        let id = DriverId::at(&exporter, &bus_schema::Path::ROOT);
        self.say(client, To::Driver(verb, id, method.parse().expect("a method name")))
    }

    /// The subject on which `client` asks something of `bench`.
    pub fn ask(&self, client: &str, verb: ExporterVerb) -> String {
        self.say(client, To::Exporter(verb))
    }

    /// Any subject of `client` to `bench`.
    pub fn say(&self, client: &str, to: To) -> String {
        let (client, exporter) =
            (client.parse().expect("a name"), "bench".parse().expect("a name"));
        FromClient { client, exporter, to }.under(&self.root)
    }

    /// A fresh reply subject of `client`.
    pub fn inbox(&self, client: &str) -> String {
        let client: ClientName = client.parse().expect("a name");
        let token = uuid::Uuid::new_v4().as_u64_pair();
        Inbox::of_client(&self.root, &client, bus_schema::Session(token.0)).token(token.1)
    }

    /// The mark of whoever speaks on `subject`.
    pub fn mark(&self, subject: &str) -> String {
        let rest = subject.strip_prefix(&format!("{}.v1.", self.root)).expect("of the protocol");
        let mut tokens = rest.split('.');
        let (class, name) = (tokens.next().expect("a class"), tokens.next().expect("a name"));
        match class {
            "x" => Inbox::mark_of_exporter(&self.root, &name.parse().expect("a name")),
            _ => Inbox::mark_of_client(&self.root, &name.parse().expect("a name")),
        }
    }

    /// Says something that is not answered, as whoever speaks on `subject`.
    pub async fn tell(&self, subject: &str, body: impl Into<Bytes>) -> anyhow::Result<()> {
        self.send(subject, Some(&self.mark(subject)), None, body).await
    }

    /// Listens.
    pub async fn listen(&self, subject: &str) -> anyhow::Result<Subscriber> {
        let messages = self.nats.subscribe(subject.to_owned()).await?;
        // `flush` is no round trip: only a message that came back went through the broker.
        let own = self.nats.new_inbox();
        let mut sentinel = self.nats.subscribe(own.clone()).await?;
        self.nats.publish(own, Bytes::new()).await?;
        next(&mut sentinel).await?;
        Ok(messages)
    }

    /// Sends a request as `client`, with a reply subject of `client`, and waits for the answer.
    pub async fn request(
        &self,
        client: &str,
        subject: &str,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Message> {
        let reply = self.inbox(client);
        let mut answers = self.listen(&reply).await?;
        self.nats.publish_with_reply(subject.to_owned(), reply, body.into()).await?;
        next(&mut answers).await
    }

    /// Sends anything.
    pub async fn send(
        &self,
        subject: &str,
        reply: Option<&str>,
        headers: Option<HeaderMap>,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<()> {
        let (subject, headers) = (subject.to_owned(), headers.unwrap_or_default());
        match reply {
            Some(reply) => {
                let reply = reply.to_owned();
                let sent =
                    self.nats.publish_with_reply_and_headers(subject, reply, headers, body.into());
                sent.await?;
            }
            None => self.nats.publish_with_headers(subject, headers, body.into()).await?,
        }
        Ok(())
    }
}

/// The next message.
async fn next(messages: &mut Subscriber) -> anyhow::Result<Message> {
    let message = tokio::time::timeout(PATIENCE, messages.next()).await?;
    message.ok_or_else(|| anyhow::anyhow!("the subscription has ended"))
}

/// A call without an id and without arguments, as anybody could write it.
pub fn bare_call() -> Bytes {
    codec::encode(&Call { args: Bytes::from_static(&[0x90]), ..Call::default() })
}
