//! OpenSSH's own server and agent.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

const SSHD: &str = "/usr/sbin/sshd";

/// An `sshd` on a port of its own, which lets this user in by a key.
pub(super) struct OpenSsh {
    pub(super) port: u16,
    pub(super) user: String,
    /// The key that it takes.
    pub(super) key: PathBuf,
    dir: TempDir,
    _sshd: Child,
}

/// An agent that has the key.
pub(super) struct Agent {
    pub(super) socket: PathBuf,
    _agent: Child,
}

impl OpenSsh {
    /// `None`, and a word about it, where it is not installed.
    pub(super) async fn start() -> Result<Option<Self>> {
        if !Path::new(SSHD).exists() {
            eprintln!("not tested: there is no {SSHD} here; .ci/setup installs it");
            return Ok(None);
        }
        let dir = tempfile::tempdir()?;
        let path = |name: &str| dir.path().join(name);
        for name in ["host", "key"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path(name));
            ensure!(keygen.status().await?.success(), "ssh-keygen");
        }
        fs::copy(path("key.pub"), path("authorized"))?;
        if rustix::process::geteuid().is_root() {
            fs::create_dir_all("/run/sshd")?; // where root's sshd locks itself in
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             StrictModes no\nUsePAM no\nPermitRootLogin yes\nAllowAgentForwarding yes\n\
             Subsystem sftp internal-sftp\n",
            path("host").display(),
            path("authorized").display(),
        );
        fs::write(path("config"), config)?;
        let mut sshd = Command::new(SSHD);
        sshd.args(["-D", "-e", "-f"]).arg(path("config")).stderr(Stdio::null());
        let sshd = sshd.kill_on_drop(true).spawn()?;
        // It is up when it takes a connection; it says so nowhere else.
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::task::yield_now().await;
        }
        let user = Command::new("id").arg("-un").output().await?.stdout;
        let user = String::from_utf8(user)?.trim().to_owned();
        Ok(Some(Self { port, user, key: path("key"), dir, _sshd: sshd }))
    }

    pub(super) async fn agent(&self) -> Result<Agent> {
        let socket = self.dir.path().join("agent");
        let mut agent = Command::new("ssh-agent");
        agent.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).kill_on_drop(true);
        let agent = agent.spawn().context("ssh-agent")?;
        while tokio::net::UnixStream::connect(&socket).await.is_err() {
            tokio::task::yield_now().await;
        }
        let mut add = Command::new("ssh-add");
        add.arg("-q").arg(&self.key).env("SSH_AUTH_SOCK", &socket);
        ensure!(add.status().await?.success(), "ssh-add");
        Ok(Agent { socket, _agent: agent })
    }
}
