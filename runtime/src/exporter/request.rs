//! A request as it is after the gate: checked, typed and admitted.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use bus_schema::{
    CallId, ClientName, Kind, Method, Refusal, RefusalCode, StreamId, codec,
    limits::{DEADLINE, DEADLINE_MAX, PAYLOAD_BYTES_MAX},
    message::{self, Form, Parts},
    subject::DriverVerb,
};
use bytes::Bytes;
use tokio::time::Instant;

use super::{answer::Voice, lease::Pass, ledger::Receipt, outbox::ReplyTo, slot::MethodRef};

/// What a message asks for, before it is admitted.
pub(crate) struct Asked {
    pub(crate) voice: Voice,
    pub(crate) id: Option<CallId>,
    pub(crate) age: Duration,
    pub(crate) repeated: bool,
    pub(crate) deadline: Duration,
    pub(crate) done_below: u64,
    pub(crate) epoch: Option<u64>,
    /// Whether its reply may come together with others.
    pub(crate) together: bool,
    pub(crate) body: Body,
    pub(crate) open: Option<Box<OpenAsked>>,
}

/// Where the arguments are.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// Here, in this form.
    Args(Form, Bytes),
    /// Here, as JSON.
    Json(Bytes),
    /// To be fetched.
    Parts(Form, Parts),
}

/// What an `open` asks for besides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenAsked {
    pub(crate) stream: StreamId,
    pub(crate) credit: u64,
    pub(crate) detached: bool,
}

/// A request that may be executed.
pub(crate) struct Request {
    pub(crate) caller: ClientName,
    pub(crate) id: Option<CallId>,
    pub(crate) voice: Voice,
    pub(crate) method: MethodRef,
    pub(crate) body: Body,
    /// Boxed, as is all that is rare: the operation of a call fits what allocators keep at hand.
    pub(crate) open: Option<Box<OpenAsked>>,
    pub(crate) received: std::time::Instant,
    /// Whether the ledger has it as running already.
    pub(crate) begun: bool,
    pub(crate) deadline: Instant,
    /// What it was let in under; none for one that only observes.
    pub(crate) pass: Option<Pass>,
    pub(crate) reply_to: ReplyTo,
    pub(crate) receipt: Receipt,
}

impl Asked {
    /// Reads a message.
    ///
    /// # Errors
    ///
    /// The refusal, and how the sender seems to speak.
    pub(crate) fn read(verb: DriverVerb, payload: Bytes) -> Result<Self, (Voice, Refusal)> {
        match verb {
            DriverVerb::Call if codec::is_json(&payload) => Self::json(payload),
            DriverVerb::Call => {
                let call = codec::decode::<message::Call>(&payload)
                    .map_err(|e| (Voice::Message(Form::Typed), Refusal::from(&e)))?;
                Ok(Self::call(call))
            }
            DriverVerb::Open => {
                let open = codec::decode::<message::Open>(&payload)
                    .map_err(|e| (Voice::Open(Form::Typed), Refusal::from(&e)))?;
                Ok(Self::open(open))
            }
        }
    }

    fn call(call: message::Call) -> Self {
        let body = match call.parts {
            Some(parts) => Body::Parts(call.form, parts),
            None => Body::Args(call.form, call.args),
        };
        Self {
            voice: Voice::Message(call.form),
            id: call.id,
            age: Duration::from_millis(call.age_ms),
            repeated: call.attempt > 0 || call.age_ms > 0,
            deadline: Duration::from_millis(call.deadline_ms).min(DEADLINE_MAX),
            done_below: call.done_below,
            epoch: call.epoch,
            together: call.together,
            body,
            open: None,
        }
    }

    fn open(open: message::Open) -> Self {
        let message::Open { stream, credit, detached, .. } = open;
        Self {
            voice: Voice::Open(open.form),
            id: Some(open.id),
            age: Duration::from_millis(open.age_ms),
            repeated: open.attempt > 0 || open.age_ms > 0,
            deadline: Duration::from_millis(open.deadline_ms).min(DEADLINE_MAX),
            done_below: open.done_below,
            epoch: open.epoch,
            together: false,
            body: Body::Args(open.form, open.args),
            open: Some(Box::new(OpenAsked { stream, credit, detached })),
        }
    }

    fn json(payload: Bytes) -> Result<Self, (Voice, Refusal)> {
        #[derive(serde::Deserialize, Default)]
        struct Head {
            id: Option<CallId>,
            deadline_ms: Option<u64>,
        }
        let head: Head = match payload.is_empty() {
            true => Head::default(),
            false => serde_json::from_slice(&payload).map_err(|e| {
                let text = format!("the body is no JSON request: {e}");
                (Voice::Json, Refusal::new(RefusalCode::Malformed, text))
            })?,
        };
        let deadline = head.deadline_ms.map_or(DEADLINE, Duration::from_millis).min(DEADLINE_MAX);
        Ok(Self {
            voice: Voice::Json,
            id: head.id,
            age: Duration::ZERO,
            repeated: false,
            deadline,
            done_below: 0,
            epoch: None,
            together: false,
            body: Body::Json(payload),
            open: None,
        })
    }

    /// Whether the method can be asked for like this, and what it asks for is within bounds.
    pub(crate) fn check(&self, method: &Method) -> Result<(), Refusal> {
        let fits = match method.kind {
            Kind::Call => self.open.is_none(),
            Kind::StreamingCall | Kind::Stream => self.open.is_some(),
        };
        if !fits {
            let verb = if self.open.is_some() { "opened" } else { "called" };
            let text = format!(
                "{} is a {} and cannot be {verb}; the method is {method}",
                method.name, method.kind
            );
            return Err(Refusal::new(RefusalCode::WrongKind, text));
        }
        match self.body {
            Body::Parts(_, parts) if parts.bytes > PAYLOAD_BYTES_MAX as u64 => {
                let text = format!(
                    "arguments of {} bytes are over the limit of {PAYLOAD_BYTES_MAX}",
                    parts.bytes
                );
                Err(Refusal::new(RefusalCode::TooLarge, text).with_limit(PAYLOAD_BYTES_MAX as u64))
            }
            _ => Ok(()),
        }
    }

    /// Bytes that the arguments take while the call waits.
    pub(crate) fn bytes(&self) -> usize {
        match &self.body {
            Body::Args(_, bytes) | Body::Json(bytes) => bytes.len(),
            Body::Parts(_, parts) => usize::try_from(parts.bytes).unwrap_or(usize::MAX),
        }
    }

    /// Tells a repeat from another call under the same id. (A repeat of a call with large
    /// arguments offers them as another stream: their length has to do.)
    pub(crate) fn fingerprint(&self, method: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        method.hash(&mut hasher);
        match &self.body {
            Body::Args(_, bytes) | Body::Json(bytes) => bytes.hash(&mut hasher),
            Body::Parts(_, parts) => parts.bytes.hash(&mut hasher),
        }
        hasher.finish()
    }
}
