//! Answers: how an outcome is put into the words that the caller used.

use bus_schema::{
    Args, Failure, Fault, FaultKind, Method, Refusal, RefusalCode, Type, Value, codec,
    limits::{OVERHEAD_BYTES_MAX, PAYLOAD_BYTES_MAX},
    message::{Form, Opened, Outcome, Reply, Unknown},
};
use bytes::Bytes;
use serde_json::{Value as Json, json};

use super::usage::Ended;

/// How the caller speaks, and so how it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    /// In messages, with arguments in this form.
    Message(Form),
    /// In JSON by hand.
    Json,
    /// To open a stream, with arguments in this form.
    Open(Form),
}

/// An answer ready to go, and to go again.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The message; without the result if that goes in parts.
    pub(crate) message: Bytes,
    /// The service API's headers (ADR-32), on refusals and on JSON errors.
    pub(crate) error: Option<(u16, String)>,
    /// A result too large for one message.
    pub(crate) large: Option<Bytes>,
    /// How what is answered ended.
    pub(crate) ended: Ended,
}

impl Answer {
    /// What it counts against the budget of kept outcomes.
    pub(crate) fn bytes(&self) -> usize {
        self.message.len() + self.large.as_ref().map_or(0, Bytes::len)
    }

    /// The answer to a call that ended with `result`, for a broker that takes `payload_max`.
    pub(crate) fn to_call(
        voice: Voice,
        method: &Method,
        result: Result<Vec<u8>, Failure>,
        payload_max: usize,
    ) -> Self {
        let result = result.and_then(|bytes| spoken(voice, method, bytes));
        match result {
            Ok(bytes) if bytes.len() + OVERHEAD_BYTES_MAX <= payload_max => {
                Self::done(voice, &bytes)
            }
            Ok(bytes) if bytes.len() <= PAYLOAD_BYTES_MAX && voice != Voice::Json => Self {
                message: Bytes::new(),
                error: None,
                large: Some(bytes.into()),
                ended: Ended::Well,
            },
            Ok(bytes) => {
                let len = bytes.len();
                let limit = if voice == Voice::Json { payload_max } else { PAYLOAD_BYTES_MAX };
                let text = format!("the result of {len} bytes is over the limit of {limit}");
                Self::failed(voice, Fault::new(FaultKind::TooLarge, text).into())
            }
            Err(failure) => Self::failed(voice, failure),
        }
    }

    fn done(voice: Voice, result: &[u8]) -> Self {
        let message = match voice {
            Voice::Json => [&b"{\"result\":"[..], result, b"}"].concat().into(),
            _ => Reply::encode_result(result),
        };
        Self { message, error: None, large: None, ended: Ended::Well }
    }

    /// The answer to an operation that failed or was refused.
    pub(crate) fn failed(voice: Voice, failure: Failure) -> Self {
        let (code, text) = match &failure {
            Failure::Refused(refusal) => (http_like(&refusal.code), refusal.text.clone()),
            Failure::Fault(fault) => (500, fault.text.clone()),
        };
        let refused = matches!(failure, Failure::Refused(_));
        let ended = Ended::from(&failure);
        let message = match (voice, failure) {
            (Voice::Json, Failure::Refused(r)) => {
                json_error("refused", r.code.as_str(), &r.text, Some(false))
            }
            (Voice::Json, Failure::Fault(f)) => {
                json_error("fault", f.kind.as_str(), &f.text, Some(true))
            }
            (Voice::Message(_), Failure::Refused(r)) => {
                codec::encode(&Reply { outcome: Outcome::Refused(r) })
            }
            (Voice::Message(_), Failure::Fault(f)) => {
                codec::encode(&Reply { outcome: Outcome::Fault(f) })
            }
            (Voice::Open(_), Failure::Refused(r)) => codec::encode(&Opened::Refused(r)),
            (Voice::Open(_), Failure::Fault(f)) => codec::encode(&Opened::Fault(f)),
        };
        let error = (refused || voice == Voice::Json).then_some((code, text));
        Self { message, error, large: None, ended }
    }

    /// The answer where nobody knows how it ended.
    pub(crate) fn unknown(voice: Voice, why: Unknown) -> Self {
        let message = match voice {
            Voice::Json => {
                let text = "the outcome is unknown: read the device's state before you retry";
                json_error("unknown", "outcome-unknown", text, Some(true))
            }
            Voice::Message(_) => codec::encode(&Reply { outcome: Outcome::Unknown(why) }),
            Voice::Open(_) => codec::encode(&Opened::Unknown(why)),
        };
        Self { message, error: None, large: None, ended: Ended::Unknown }
    }
}

fn json_error(what: &str, code: &str, text: &str, may_have_acted: Option<bool>) -> Bytes {
    let error = json!({ "error": {
        "kind": what, "code": code, "text": text, "may_have_acted": may_have_acted,
    }});
    error.to_string().into()
}

/// Numbers for `Nats-Service-Error-Code`, by the meaning that HTTP gives them.
fn http_like(code: &RefusalCode) -> u16 {
    match code {
        RefusalCode::NoDriver | RefusalCode::UnknownMethod | RefusalCode::UnknownVerb => 404,
        RefusalCode::WrongKind => 405,
        RefusalCode::BadArguments | RefusalCode::Malformed | RefusalCode::WrongVersion => 400,
        RefusalCode::IdReused => 409,
        RefusalCode::Busy => 429,
        RefusalCode::TooLarge => 413,
        RefusalCode::Restarting | RefusalCode::Failed | RefusalCode::ShuttingDown => 503,
        RefusalCode::Expired => 408,
        RefusalCode::NotLeased => 423,
        RefusalCode::NotAllowed => 403,
        RefusalCode::Other(_) => 500,
    }
}

/// A result in the caller's form.
fn spoken(voice: Voice, method: &Method, result: Vec<u8>) -> Result<Vec<u8>, Failure> {
    if voice == Voice::Message(Form::Typed) {
        return Ok(result);
    }
    let value = Value::from_msgpack(&result)
        .map_err(|e| Fault::device(format_args!("the driver's result cannot be read: {e}")))?;
    Ok(value.to_json(&method.result).to_string().into())
}

/// Arguments in the form that drivers take: a MessagePack array of the declared types.
///
/// # Errors
///
/// *bad arguments*, with the signature.
pub(crate) fn arguments(form: Form, args: Bytes, method: &Method) -> Result<Args, Refusal> {
    match form {
        Form::Typed => Ok(Args(args)),
        Form::Words if args.is_empty() => Ok(Args::default()),
        Form::Words => match Value::from_msgpack(&args) {
            Ok(Value::List(words)) => typed(method, words.len(), |at, field| match &words[at] {
                Value::Text(word) => Value::from_word(&field.ty, word).map_err(|e| e.to_string()),
                contents @ Value::Bytes(_) => Ok(contents.clone()),
                lent @ Value::Map(_) if field.ty == Type::Resource => Ok(lent.clone()),
                other => Err(format!("a word is text or bytes, not {}", other.to_json(&Type::Any))),
            }),
            _ => Err(bad(method, "words are an array of texts")),
        },
    }
}

/// Arguments of a call in JSON: `{"args": […]}`, or nothing at all.
///
/// # Errors
///
/// *malformed* or *bad arguments*.
pub(crate) fn json_arguments(body: &[u8], method: &Method) -> Result<Args, Refusal> {
    if body.is_empty() {
        return Ok(Args::default());
    }
    let body: Json = serde_json::from_slice(body).map_err(|e| {
        Refusal::new(RefusalCode::Malformed, format_args!("the body is no JSON: {e}"))
    })?;
    let object = body.as_object().ok_or_else(|| bad(method, "the body is {\"args\": […]}"))?;
    if let Some(key) =
        object.keys().find(|key| !matches!(key.as_str(), "args" | "id" | "deadline_ms"))
    {
        return Err(bad(
            method,
            format_args!("no key {key:?}: there are args, id and deadline_ms"),
        ));
    }
    let list = match object.get("args") {
        None => &Vec::new(),
        Some(Json::Array(list)) => list,
        Some(_) => return Err(bad(method, "\"args\" is a list in declared order")),
    };
    typed(method, list.len(), |at, field| {
        Value::from_json(&field.ty, &list[at]).map_err(|e| e.to_string())
    })
}

fn typed(
    method: &Method,
    count: usize,
    read: impl Fn(usize, &bus_schema::Field) -> Result<Value, String>,
) -> Result<Args, Refusal> {
    let takes = method.params.len();
    if count > takes {
        return Err(bad(method, format_args!("takes {takes} argument(s), got {count}")));
    }
    let mut values = Vec::with_capacity(count);
    for (at, field) in method.params.iter().take(count).enumerate() {
        let value = read(at, field).map_err(|problem| {
            bad(method, format_args!("argument {} ({}): {problem}", at + 1, field.name))
        })?;
        values.push(value);
    }
    let bytes = rmp_serde::to_vec_named(&values).expect("values are made of what MessagePack has");
    Ok(Args(bytes.into()))
}

fn bad(method: &Method, problem: impl std::fmt::Display) -> Refusal {
    Refusal::new(RefusalCode::BadArguments, format_args!("{problem}; the method is {method}"))
}
