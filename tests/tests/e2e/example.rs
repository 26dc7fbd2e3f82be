//! The example of the README: a driver with a call, a streaming call and a stream.

use std::io;

use bus_schema::{Fault, driver};
use runtime::{ByteStream, Items, blocking, serve};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

struct ExampleDriver {
    port: u16,
}

#[driver]
impl ExampleDriver {
    /// Gives the message back.
    #[export]
    fn echo(&self, message: String) -> String {
        message
    }

    /// Gives the message back, from an async method.
    #[export]
    async fn echo_async(&self, message: String) -> String {
        message
    }

    /// Gives the message back ten times.
    #[export]
    async fn echo_generator(&self, message: String, items: Items<String>) -> Result<(), Fault> {
        for _ in 0..10 {
            items.send(message.clone()).await?;
        }
        Ok(())
    }

    /// Connects to a TCP service.
    #[export]
    async fn connect_tcp(&self, mut stream: ByteStream) -> io::Result<()> {
        let mut tcp = TcpStream::connect(("127.0.0.1", self.port)).await?;
        copy_bidirectional(&mut stream, &mut tcp).await?;
        Ok(())
    }
}

#[tokio::test]
async fn the_example_echoes_in_all_three_ways() -> anyhow::Result<()> {
    let service = TcpListener::bind("127.0.0.1:0").await?;
    let port = service.local_addr()?.port();
    let served = serve(ExampleDriver { port }).await.map_err(anyhow::Error::from_boxed)?;
    let example = ExampleDriverClient::new(served.driver());

    assert_eq!(example.echo("hello".to_owned()).await?, "hello");
    assert_eq!(example.echo_async("hello".to_owned()).await?, "hello");

    let mut items = example.echo_generator("hello".to_owned()).await?;
    let mut count = 0;
    while let Some(item) = items.next().await {
        assert_eq!(item?, "hello");
        count += 1;
    }
    assert_eq!(count, 10);

    let mut stream = example.connect_tcp().await?;
    let (mut peer, _) = service.accept().await?;
    stream.write_all(b"ping").await?;
    let mut got = [0; 4];
    peer.read_exact(&mut got).await?;
    peer.write_all(b"pong!").await?;
    drop(peer);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    assert_eq!((&got, answer.as_slice()), (b"ping", &b"pong!"[..]));

    drop(stream);
    served.shutdown().await?;
    Ok(())
}

#[test]
fn the_example_echoes_in_blocking_code() -> anyhow::Result<()> {
    let served = blocking::serve(ExampleDriver { port: 0 }).map_err(anyhow::Error::from_boxed)?;
    let example = ExampleDriverBlocking::new(served.driver());
    assert_eq!(example.echo("hello".to_owned())?, "hello");
    let items: Vec<_> = example.echo_generator("hello".to_owned())?.collect::<Result<_, _>>()?;
    assert_eq!(items, ["hello"; 10]);
    served.shutdown()?;
    Ok(())
}
