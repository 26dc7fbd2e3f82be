//! An SSH server in this process: `root` with the password `board`, and `sh` for commands.

use std::{
    process::{ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Result;
use russh::{
    Channel, ChannelId, Sig,
    keys::{Algorithm, PrivateKey, key::safe_rng},
    server::{self, Auth, ChannelOpenHandle, Msg, Session},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    process::Command,
    task::JoinSet,
};

/// The server. It ends when it is dropped.
pub(super) struct TestServer {
    pub(super) port: u16,
    logins: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl TestServer {
    pub(super) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let config = Arc::new(server::Config {
            keys: vec![PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519)?],
            auth_rejection_time: std::time::Duration::ZERO,
            ..server::Config::default()
        });
        let logins = Arc::new(AtomicUsize::new(0));
        let counted = logins.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let handler = Handler { logins: counted.clone(), forwards: JoinSet::new() };
                let config = config.clone();
                sessions.spawn(async move {
                    if let Ok(session) = server::run_stream(config, tcp, handler).await {
                        let _ = session.await; // however it ends
                    }
                });
            }
        });
        Ok(Self { port, logins, _tasks: tasks })
    }

    /// How often somebody tried to log in.
    pub(super) fn logins(&self) -> usize {
        self.logins.load(Ordering::SeqCst)
    }
}

struct Handler {
    logins: Arc<AtomicUsize>,
    forwards: JoinSet<()>,
}

impl server::Handler for Handler {
    type Error = anyhow::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth> {
        self.logins.fetch_add(1, Ordering::SeqCst);
        Ok(Auth::reject())
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth> {
        match (user, password) {
            ("root", "board") => Ok(Auth::Accept),
            _ => Ok(Auth::reject()),
        }
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<()> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<()> {
        session.channel_success(channel)?;
        let command = String::from_utf8(command.to_vec())?;
        let mut shell = Command::new("sh");
        let ran = shell.args(["-c", &command]).stdin(Stdio::null()).output().await?;
        session.data(channel, ran.stdout)?;
        session.extended_data(channel, 1, ran.stderr)?;
        match signal(ran.status) {
            Some(9) => session.exit_signal_request(channel, Sig::KILL, false, "", "")?,
            _ => session
                .exit_status_request(channel, ran.status.code().unwrap_or(255).cast_unsigned())?,
        }
        session.eof(channel)?;
        session.close(channel)?;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<()> {
        let mut tcp = TcpStream::connect((host, u16::try_from(port)?)).await?;
        reply.accept().await;
        self.forwards.spawn(async move {
            let _ = copy_bidirectional(&mut channel.into_stream(), &mut tcp).await;
        });
        Ok(())
    }
}

fn signal(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}
