//! Printing what exporters tell, for as long as there is more of it and somebody reads it.

use runtime::{BusError, Numbered, Said, Tail};

use crate::{advice::CliError, output::Output};

/// Shows each message. One that follows goes on past what it cannot read, and says so.
pub(crate) async fn print<T: Numbered>(
    mut tail: Tail<T>,
    follows: bool,
    out: Output,
    show: impl AsyncFn(Said<T>) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let printing = async {
        loop {
            match tail.next().await {
                Ok(Some(said)) => show(said).await?,
                Ok(None) => return Ok(()),
                Err(error @ BusError::Unfit(_)) if follows => out.note(error),
                Err(error) => return Err(error.into()),
            }
        }
    };
    out.while_read(printing).await
}
