//! `jmp-bus stream`: the items of a streaming call.

use bus_schema::{CallId, ClientName, Type, Value, message::Form};
use bytes::Bytes;
use runtime::CallError;
use serde_json::json;

use crate::{
    advice::CliError,
    args::Format,
    output::Output,
    request::{Asked, packed, words},
    session::Session,
};

/// Make a streaming call, and print its items as they come.
///
/// A line each: text as it is, everything else as JSON. `--output raw` prints bytes and text
/// without line ends between them.
#[derive(Debug, clap::Args)]
#[command(override_usage = "jmp-bus stream [OPTIONS] TARGET METHOD [WORD]...\n       \
                      jmp-bus stream [OPTIONS] --attach ID | --replay ID")]
pub(crate) struct Cmd {
    #[command(flatten)]
    asked: Option<Asked>,
    /// The method, and words as for `call`.
    #[arg(value_name = "METHOD WORD", allow_negative_numbers = true)]
    typed: Vec<String>,
    /// Print the call's id and leave; it goes on without us.
    #[arg(long)]
    detach: bool,
    /// Follow a call that was made before, from its first item.
    #[arg(long, value_name = "ID", conflicts_with_all = ["detach", "target", "replay"])]
    attach: Option<CallId>,
    /// The items of a call so far, and no more.
    #[arg(long, value_name = "ID", conflicts_with_all = ["detach", "target"])]
    replay: Option<CallId>,
    /// Whose call it was, if not ours.
    #[arg(long, value_name = "CLIENT")]
    of: Option<ClientName>,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let printing = async {
            match (self.attach, self.replay) {
                (Some(id), _) => self.attach(session, id, true).await,
                (None, Some(id)) => self.attach(session, id, false).await,
                (None, None) => self.start(session).await,
            }
        };
        session.out.while_read(Box::pin(printing)).await
    }

    async fn attach(&self, session: &Session, id: CallId, follow: bool) -> Result<(), CliError> {
        let client = session.client().await?;
        let owner = self.of.as_ref().unwrap_or(client.name());
        let mut attached = match client.attach(owner, id, follow).await {
            Err(CallError::NoDriver { address }) => {
                let instead = "records are kept for a day; --of names another caller".to_owned();
                return Err(CliError::NotFound { what: address, instead });
            }
            attached => attached?,
        };
        let begin = &attached.begin;
        session.out.note(format_args!("{} of {}", begin.method, begin.address));
        let ty = begin.item.clone();
        while let Some(item) = attached.next().await {
            show(session.out, &ty, &item?).await?;
        }
        Ok(())
    }

    async fn start(&self, session: &Session) -> Result<(), CliError> {
        let (Some(asked), Some((method, typed))) = (&self.asked, self.typed.split_first()) else {
            return Err(CliError::Usage("which driver, and which of its methods?".to_owned()));
        };
        let args = packed(&words(typed)?)?;
        let client = session.client().await?;
        let start = async |driver: runtime::DriverRef| {
            driver.start(method, Form::Words, args.clone(), None, self.detach).await
        };
        let mut started = asked.of(client, start).await?;
        if self.detach {
            let id = started.id;
            session.out.note(format_args!("follow it with `jmp-bus stream --attach {id}`"));
            let data = json!({ "id": id, "client": client.name() });
            return session.out.document(&data, || format!("{id}\n")).await;
        }
        while let Some(item) = started.items.next().await {
            show(session.out, &started.item, &item?).await?;
        }
        Ok(())
    }
}

async fn show(out: Output, ty: &Type, item: &Bytes) -> Result<(), CliError> {
    let value = Value::from_msgpack(item).map_err(|e| CallError::Garbled(e.to_string()))?;
    match (&value, out.format) {
        (Value::Bytes(bytes), Format::Raw) => out.write(bytes).await,
        _ => out.value(&value.to_json(ty), false).await,
    }
}
