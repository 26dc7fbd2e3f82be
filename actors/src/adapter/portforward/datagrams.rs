//! Datagrams onto streams: one for each address that sends some.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use bus_schema::RefusalCode;
use bytes::Bytes;
use runtime::{ByteStream, CallError};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, split},
    net::UdpSocket,
    sync::mpsc,
    time::timeout,
};

use super::{Forward, PortforwardError, Trouble, listener::host_port};
use crate::network::udp::{DATAGRAM_BYTES_MAX, DATAGRAMS, read_datagram, write_datagram};

/// Addresses that may have a stream at the same time.
const PEERS_MAX: usize = 256;
/// Datagrams of one address that wait for its stream; more are dropped, as networks do.
const WAITING_MAX: usize = 64;
/// A stream ends after this time without a datagram in either direction.
const IDLE: Duration = Duration::from_secs(60);
/// An address that no stream was opened for is told of once in this time.
const REFUSED_FOR: Duration = Duration::from_secs(5);

pub(super) async fn bind(at: &str) -> Result<(UdpSocket, SocketAddr), PortforwardError> {
    let at = host_port(at);
    let bound = async {
        let socket = UdpSocket::bind(&at).await?;
        let address = socket.local_addr()?;
        Ok((socket, address))
    };
    bound.await.map_err(|source| PortforwardError { at, source })
}

/// Hands each datagram to the task of its address.
pub(super) async fn run(forward: Forward, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut peers = HashMap::<SocketAddr, mpsc::Sender<Bytes>>::new();
    let mut buf = vec![0; DATAGRAM_BYTES_MAX];
    let receive = async {
        loop {
            let (size, from) = match socket.recv_from(&mut buf).await {
                Ok(received) => received,
                // An answer that went nowhere comes back as an error of the next receive.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => {
                    forward.tell(Trouble::Accept(error));
                    tokio::time::sleep(super::ACCEPT_AGAIN).await;
                    continue;
                }
            };
            let datagram = Bytes::copy_from_slice(&buf[..size]);
            let datagram = match peers.get(&from).map(|peer| peer.try_send(datagram.clone())) {
                Some(Err(mpsc::error::TrySendError::Closed(datagram))) => datagram,
                Some(_) => continue, // sent, or one too many
                None => datagram,
            };
            if peers.len() >= PEERS_MAX {
                peers.retain(|_, peer| !peer.is_closed());
            }
            if peers.len() >= PEERS_MAX && !peers.contains_key(&from) {
                forward.tell(Trouble::TooMany(from));
                continue;
            }
            let (peer, datagrams) = mpsc::channel(WAITING_MAX);
            let _ = peer.try_send(datagram); // there is room for the first
            peers.insert(from, peer);
            let peer = Peer { forward: forward.clone(), socket: socket.clone(), address: from };
            let stop = forward.stop.clone();
            forward.tasks.spawn(async move { stop.run_until_cancelled(peer.run(datagrams)).await });
        }
    };
    let _: Option<()> = forward.stop.run_until_cancelled(receive).await;
}

/// One address, and its stream.
struct Peer {
    forward: Forward,
    socket: Arc<UdpSocket>,
    address: SocketAddr,
}

/// How datagrams are kept apart on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// Each has its length before it.
    Apart,
    /// One write is one datagram, as far as that goes.
    AsWritten,
}

impl Peer {
    async fn run(self, mut datagrams: mpsc::Receiver<Bytes>) {
        let (stream, kept) = match self.open().await {
            Ok(opened) => opened,
            Err(error) => {
                self.forward.tell(Trouble::Refused(error));
                let drain = async { while datagrams.recv().await.is_some() {} };
                let _ = timeout(REFUSED_FOR, drain).await;
                return;
            }
        };
        if let Err(error) = self.carry(stream, kept, &mut datagrams).await
            && let Ok(error) = error.downcast()
        {
            self.forward.tell(Trouble::Cut(error));
        }
    }

    async fn open(&self) -> Result<(ByteStream, Kept), CallError> {
        let method = &self.forward.method;
        match method.open().await {
            Ok(stream) if method.name() == DATAGRAMS => Ok((stream, Kept::Apart)),
            Ok(stream) => Ok((stream, Kept::AsWritten)),
            Err(CallError::Refused { refusal, .. })
                if method.name() == DATAGRAMS && refusal.code == RefusalCode::UnknownMethod =>
            {
                Ok((method.instead("connect").open().await?, Kept::AsWritten))
            }
            Err(error) => Err(error),
        }
    }

    async fn carry(
        &self,
        stream: ByteStream,
        kept: Kept,
        datagrams: &mut mpsc::Receiver<Bytes>,
    ) -> io::Result<()> {
        let (mut from, mut to) = split(stream);
        let heard = tokio::sync::Notify::new();
        let send = async {
            while let Some(datagram) = datagrams.recv().await {
                heard.notify_one();
                match kept {
                    Kept::Apart => write_datagram(&mut to, &datagram).await?,
                    Kept::AsWritten => to.write_all(&datagram).await?,
                }
            }
            Ok(())
        };
        let receive = async {
            let mut buf = vec![0; DATAGRAM_BYTES_MAX];
            loop {
                let size = match kept {
                    Kept::Apart => read_datagram(&mut from, &mut buf).await?,
                    Kept::AsWritten => Some(from.read(&mut buf).await?).filter(|size| *size > 0),
                };
                let Some(size) = size else { return Ok(()) };
                heard.notify_one();
                // One that cannot be sent is lost, as datagrams are.
                let _ = self.socket.send_to(&buf[..size], self.address).await;
            }
        };
        let idle = async {
            while timeout(IDLE, heard.notified()).await.is_ok() {}
            Ok(())
        };
        tokio::select! {
            ended = send => ended,
            ended = receive => ended,
            ended = idle => ended,
        }
    }
}
