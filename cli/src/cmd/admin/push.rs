//! `jmp-bus admin push`: tells the broker what is revoked.

use runtime::{Authority, Pushed};
use serde_json::json;

use super::broker;
use crate::{advice::CliError, session::Session};

/// Tell the broker again what is revoked: after it was away, or got other JWTs.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {}

impl Cmd {
    pub(crate) async fn run(
        self,
        session: &Session,
        mut authority: Authority,
    ) -> Result<(), CliError> {
        let pushed = authority.push(&broker(session)?).await.map_err(CliError::NotPushed)?;
        tell(session, &pushed);
        let data = json!({ "learned": pushed.learned, "replaced": pushed.foreign });
        session.out.document(&data, || "the broker knows all of it\n".to_owned()).await
    }
}

/// What the operator should hear of a push.
pub(super) fn tell(session: &Session, pushed: &Pushed) {
    if let Some(what) = &pushed.foreign {
        session.out.note(format_args!(
            "the broker had an account JWT that is not this authority's ({what}); it was replaced"
        ));
    }
    if pushed.learned > 0 {
        let n = pushed.learned;
        session.out.note(format_args!("{n} revocation(s) that another copy had made were kept"));
    }
}
