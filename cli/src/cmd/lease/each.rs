//! The same word to several boards at once: all of them hear it, whatever one of them answers.

use bus_schema::{Address, RefusalCode};
use futures_util::future::join_all;
use runtime::LeaseError;
use serde_json::Value as Json;

use crate::{advice::CliError, session::Session};

/// Says something about each board, and shows what was answered. The first failure is the
/// command's; that nobody has one of the boards is none, if somebody had another.
pub(crate) async fn each<T>(
    session: &Session,
    boards: impl IntoIterator<Item = Address>,
    say: impl AsyncFn(&Address) -> Result<T, LeaseError>,
    show: impl Fn(&Address, &T) -> (Json, String),
) -> Result<(), CliError> {
    let say = async |address: Address| (say(&address).await, address);
    let (mut data, mut text, mut failed, mut free) = (Vec::new(), String::new(), None, None);
    for (answer, address) in join_all(boards.into_iter().map(say)).await {
        match answer {
            Ok(answer) => {
                let (json, line) = show(&address, &answer);
                data.push(json);
                text += &line;
            }
            Err(error) => {
                let first = if is_free(&error) { &mut free } else { &mut failed };
                match first {
                    Some(_) => session.out.note(error), // the command fails with the first
                    None => *first = Some(error),
                }
            }
        }
    }
    if data.is_empty() {
        failed = failed.or(free);
    } else {
        session.out.document(&data, || text).await?;
        free.into_iter().for_each(|error| session.out.note(error));
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

fn is_free(error: &LeaseError) -> bool {
    let LeaseError::Refused { refusal, .. } = error else { return false };
    refusal.code == RefusalCode::NotLeased
}
