//! A service that gives back what it gets.

use bus_schema::{Fault, driver};
use runtime::{ByteStream, Context};
use tokio::io::{AsyncWriteExt as _, copy_buf, split};

use super::{COPY_BYTES, Network, NetworkInterface};

/// Gives back what it gets, and ends when its caller does: for tests of what lies between.
#[derive(Clone, Copy, Debug, Default)]
pub struct EchoNetwork;

impl Network for EchoNetwork {
    async fn connect(&self, _: &Context, stream: ByteStream) -> Result<(), Fault> {
        let (input, mut output) = split(stream);
        let mut input = tokio::io::BufReader::with_capacity(COPY_BYTES, input);
        copy_buf(&mut input, &mut output).await?;
        output.shutdown().await?;
        Ok(())
    }
}

#[driver(Network, name = "echo")]
impl EchoNetwork {}
