//! Local ports onto what the board can reach.

use std::{net::SocketAddr, sync::Arc};

use tokio::{io::copy_bidirectional, net::TcpListener, sync::Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Ssh, SshError};

/// Connections at a time; who comes later waits in the backlog.
const CONNECTIONS_MAX: usize = 256;

/// A port of this host that leads to one that the board can reach, until it is dropped or the
/// session ends.
#[must_use = "dropping it ends the forward"]
#[derive(Debug)]
pub struct SshForward {
    address: SocketAddr,
    _stop_on_drop: DropGuard,
}

impl SshForward {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Ssh {
    /// Listens on `at` (`HOST:PORT`; port 0 is any free one). Each connection goes on from the board
    /// to `host` and `port`, as the board knows them.
    ///
    /// # Errors
    ///
    /// [`SshError::Local`] if `at` cannot be listened on.
    pub async fn forward(&self, at: &str, host: &str, port: u16) -> Result<SshForward, SshError> {
        let failed = |source| SshError::local(format!("listen on {at}"), source);
        let listener = TcpListener::bind(at).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let stop = self.stop.child_token();
        let guard = stop.clone().drop_guard();
        self.tasks.spawn(self.serve(listener, host.to_owned(), port, stop));
        Ok(SshForward { address, _stop_on_drop: guard })
    }

    fn serve(
        &self,
        listener: TcpListener,
        host: String,
        port: u16,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (handle, tasks) = (self.handle.clone(), self.tasks.clone());
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let accept = {
            let stop = stop.clone();
            async move {
                loop {
                    let permit = room.clone().acquire_owned().await.expect("it is never closed");
                    let Ok((mut local, from)) = listener.accept().await else {
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                        continue;
                    };
                    let _ = local.set_nodelay(true); // reading will tell if it is gone
                    let (handle, host, stop) = (handle.clone(), host.clone(), stop.clone());
                    tasks.spawn(async move {
                        let _permit = permit;
                        let carry = async {
                            let (origin, origin_port) = (from.ip().to_string(), from.port());
                            let opened = handle
                                .channel_open_direct_tcpip(
                                    host,
                                    port.into(),
                                    origin,
                                    origin_port.into(),
                                )
                                .await;
                            let carried = match opened {
                                Ok(channel) => {
                                    copy_bidirectional(&mut local, &mut channel.into_stream()).await
                                }
                                Err(error) => Err(std::io::Error::other(error)),
                            };
                            if let Err(error) = carried {
                                tracing::debug!(%error, "a forwarded connection broke off");
                                let _ = local.set_zero_linger(); // a reset, and no end
                            }
                        };
                        stop.run_until_cancelled(carry).await
                    });
                }
            }
        };
        async move {
            let _: Option<()> = stop.run_until_cancelled(accept).await;
        }
    }
}
