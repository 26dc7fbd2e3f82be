//! A forwarded port beside bare publishing.

use std::time::Instant;

use actors::{Portforward, StreamMethod};
use bus_schema::Value;
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use super::{
    Sides,
    peer::FLOOR_CHUNK,
    row::{Row, Target, measure},
    streams::{bare_chunks, mib_per_second},
};

/// One direction, from the driver to a local TCP connection, beside the floor of a stream: the same
/// bytes over bare NATS, without a TCP connection behind them.
pub(crate) async fn throughput(sides: &Sides) -> anyhow::Result<Row> {
    let chunks = sides.scaled(4_000);
    let bytes = chunks * FLOOR_CHUNK;
    let method = StreamMethod::named(sides.client.driver(&"bench-bus".parse()?), "source");
    let method = method.with_words(&[Value::Text(bytes.to_string())])?;
    let forwarded = method.adapt(Portforward::default()).await?;
    let address = forwarded.address().ok_or_else(|| anyhow::anyhow!("no port"))?;
    let floor = || bare_chunks(sides, chunks);
    let bus = || async {
        let began = Instant::now();
        let mut tcp = TcpStream::connect(address).await?;
        let mut block = vec![0; FLOOR_CHUNK];
        let mut received = 0;
        loop {
            match tcp.read(&mut block).await? {
                0 => break,
                n => received += n,
            }
        }
        anyhow::ensure!(received == bytes, "{received} of {bytes} bytes came");
        Ok(mib_per_second(bytes, began.elapsed()))
    };
    let must = Target::AtLeast(0.75);
    measure(sides, &sides.bus_peer, "forward_throughput", "MiB/s", must, floor, bus).await
}
