//! A stream lives as long as itself, whatever else its client does meanwhile.

use bus_schema::driver;
use runtime::{ByteStream, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, split};

struct Mirror;

#[driver]
impl Mirror {
    /// Gives the message back.
    #[export]
    async fn echo(&self, message: String) -> String {
        message
    }

    /// Gives every byte back.
    #[export]
    async fn reflect(&self, stream: ByteStream) -> std::io::Result<()> {
        let (mut read, mut write) = split(stream);
        copy(&mut read, &mut write).await?;
        write.shutdown().await
    }
}

#[tokio::test]
async fn calls_do_not_end_a_stream_that_was_opened_before_them() -> anyhow::Result<()> {
    let served = serve(Mirror).await.map_err(anyhow::Error::from_boxed)?;
    let mirror = MirrorClient::new(served.driver());
    let mut stream = mirror.reflect().await?;
    for round in 0..3_u8 {
        assert_eq!(mirror.echo("hi".to_owned()).await?, "hi");
        stream.write_all(&[round]).await?;
        assert_eq!(stream.read_u8().await?, round);
    }
    stream.shutdown().await?;
    assert_eq!(stream.read_to_end(&mut Vec::new()).await?, 0);
    served.shutdown().await?;
    Ok(())
}
