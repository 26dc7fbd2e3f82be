//! `jmp-bus ssh`: to the board, through the bus.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use actors::{
    ClientAdapter as _, Exit, HostKeys, KnownHosts, Login, Ssh, SshAdapter, StreamMethod, Terminal,
};
use runtime::{DriverRef, Secret};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::connect::pipe;
use crate::{
    advice::CliError,
    args::variable,
    console::RawMode,
    request::Asked,
    session::Session,
    ssh::{Host, config},
};

/// Keys that are tried when none is named, as by OpenSSH.
const USUAL_KEYS: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// Log in on the board by SSH through the bus, run a command, copy files, forward a port.
///
/// Ends as the command does: its exit code, or 128 and its signal. A host is known by its driver's
/// UUID; its key is recorded when it is first seen, and a change is refused.
///
/// The system's own ssh, scp and rsync go through the bus as well: see --proxy and --config.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  jmp-bus ssh bench/ssh
  jmp-bus ssh bench/ssh -- uname -a
  jmp-bus ssh bench/ssh --put image.bin /tmp/ --get /var/log/messages .
  ssh -o ProxyCommand='jmp-bus ssh --proxy bench/ssh' root@bench
  jmp-bus ssh --config bench/ssh > lab.conf && scp -F lab.conf image.bin bench-ssh:/tmp/
  rsync -a -e 'ssh -F lab.conf' site/ bench-ssh:/srv/www/")]
pub(crate) struct Cmd {
    #[command(flatten)]
    asked: Asked,
    /// The command to run; without one, a shell.
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
    /// Who logs in [default: what the driver says, or this user].
    #[arg(short = 'l', long, value_name = "NAME")]
    login: Option<String>,
    /// A private key; may be given again [default: the agent's, and those in ~/.ssh].
    #[arg(short = 'i', long = "identity", value_name = "FILE")]
    identities: Vec<PathBuf>,
    /// A file with the password in its first line.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Let the board use the keys of this user's agent.
    #[arg(short = 'A', long)]
    forward_agent: bool,
    /// A local port that leads to one that the board can reach; may be given again.
    #[arg(short = 'L', long = "forward", value_name = "[HOST:]PORT:HOST:PORT")]
    forwards: Vec<String>,
    /// Copy a file to the board; may be given again.
    #[arg(long, num_args = 2, value_names = ["FILE", "PATH"])]
    put: Vec<String>,
    /// Copy a file from the board; may be given again.
    #[arg(long, num_args = 2, value_names = ["PATH", "FILE"])]
    get: Vec<String>,
    /// Only be the connection, on stdin and stdout: a ProxyCommand for the system's ssh.
    #[arg(long, conflicts_with_all = ["command", "put", "get", "forwards", "config", "forget"])]
    proxy: bool,
    /// Print a configuration for the system's ssh, scp and rsync (-F FILE).
    #[arg(long, conflicts_with_all = ["command", "put", "get", "forwards", "forget"])]
    config: bool,
    /// Forget the host's key, such as of a board that was flashed anew.
    #[arg(long, conflicts_with_all = ["command", "put", "get", "forwards"])]
    forget: bool,
    /// What to do about a host that is not known.
    #[arg(long, value_enum, default_value_t = Unknown::Pin)]
    unknown_host: Unknown,
    /// The known hosts [default: known_hosts in the state directory of this user].
    #[arg(long, value_name = "FILE")]
    known_hosts: Option<PathBuf>,
    /// How long it may take to be logged in.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = crate::told::time)]
    timeout: Duration,
}

/// What to do about a host that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Unknown {
    /// Record its key.
    Pin,
    /// Refuse it.
    Refuse,
    /// Trust any key, also one that has changed.
    Any,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let forwards: Vec<_> =
            self.forwards.iter().map(|f| forwarded(f)).collect::<Result<_, _>>()?;
        let client = session.client().await?;
        let host = Host::find(client, &self.asked).await?;
        let stream = StreamMethod::connect(host.service.clone());
        if self.proxy {
            let opened = stream.open().await?;
            return pipe(opened, session.out).await.map_err(|error| self.asked.cut(error));
        }
        let known_hosts = self.known_hosts(session);
        if self.forget {
            return self.forget_key(session, &host.service, &known_hosts).await;
        }
        let user = match &self.login {
            Some(user) => user.clone(),
            None => host.user().await?.or_else(|| variable("USER")).unwrap_or("root".to_owned()),
        };
        if self.config {
            let text = config(session, &self.asked, &host, &user, &known_hosts);
            return session.out.document(&json!({ "config": text }), || text.clone()).await;
        }
        let agent = variable("SSH_AUTH_SOCK").map(PathBuf::from);
        let adapter = SshAdapter {
            logins: self.logins(&host, agent.clone()).await?,
            known_hosts: KnownHosts::in_file(known_hosts).with(match self.unknown_host {
                Unknown::Pin => HostKeys::Pin,
                Unknown::Refuse => HostKeys::Known,
                Unknown::Any => HostKeys::Any,
            }),
            forward_agent: agent.filter(|_| self.forward_agent),
            timeout: self.timeout,
            ..SshAdapter::new(user)
        };
        let ssh = adapter.adapt(stream).await?;
        let exit = self.work(session, &ssh, &forwards).await;
        ssh.close().await;
        match exit? {
            Exit::Status(0) => Ok(()),
            exit => Err(CliError::Remote(exit.code())),
        }
    }

    /// What is to be done in the session, and how the command ended.
    async fn work(
        &self,
        session: &Session,
        ssh: &Ssh,
        forwards: &[(String, &str, u16)],
    ) -> Result<Exit, CliError> {
        let mut open = Vec::new();
        for (at, host, port) in forwards {
            let forward = ssh.forward(at, host, *port).await?;
            session.out.note(format_args!("{} leads to {host}:{port}", forward.address()));
            open.push(forward);
        }
        for pair in self.put.chunks_exact(2) {
            let size = ssh.put(Path::new(&pair[0]), &pair[1]).await?;
            session.out.note(format_args!("{} is on the board: {size} bytes", pair[0]));
        }
        for pair in self.get.chunks_exact(2) {
            let size = ssh.get(&pair[0], Path::new(&pair[1])).await?;
            session.out.note(format_args!("{} is here: {size} bytes", pair[0]));
        }
        let copied = !self.put.is_empty() || !self.get.is_empty();
        if self.command.is_empty() && copied {
            return Ok(Exit::Status(0));
        }
        let command = (!self.command.is_empty()).then(|| self.command.join(" "));
        run(session, ssh, command.as_deref()).await
    }

    fn known_hosts(&self, session: &Session) -> PathBuf {
        self.known_hosts.clone().unwrap_or_else(|| session.state_file("known_hosts"))
    }

    async fn forget_key(
        &self,
        session: &Session,
        service: &DriverRef,
        file: &Path,
    ) -> Result<(), CliError> {
        let forgotten = KnownHosts::in_file(file).forget(&KnownHosts::name_of(service))?;
        let text = match forgotten {
            0 => format!("{} was not known\n", self.asked.target),
            _ => format!("{} is forgotten\n", self.asked.target),
        };
        session.out.document(&json!({ "forgotten": forgotten }), || text).await
    }

    /// What is shown to the server: what was named, or else all that there is.
    async fn logins(&self, host: &Host, agent: Option<PathBuf>) -> Result<Vec<Login>, CliError> {
        let key = |file: PathBuf| Login::KeyFile { file, passphrase: None };
        let mut logins: Vec<_> = self.identities.iter().cloned().map(key).collect();
        if let Some(file) = &self.password_file {
            let text = std::fs::read_to_string(file);
            let text =
                text.map_err(|source| CliError::io(format!("read {}", file.display()), source))?;
            logins.push(Login::Password(Secret::new(text.lines().next().unwrap_or_default())));
        }
        if !logins.is_empty() {
            return Ok(logins);
        }
        logins.extend(host.identity().await?.map(|key| Login::Key(Secret::new(key))));
        logins.extend(agent.map(Login::Agent));
        let home = variable("HOME").map(PathBuf::from).unwrap_or_default();
        let usual = USUAL_KEYS.map(|name| home.join(".ssh").join(name)).into_iter();
        // One that cannot be used, such as an encrypted one, is not what was asked for.
        logins.extend(usual.map(key).filter(Login::is_usable));
        Ok(logins)
    }
}

/// `[HOST:]PORT:HOST:PORT`.
fn forwarded(text: &str) -> Result<(String, &str, u16), CliError> {
    let wrong = || CliError::Usage(format!("{text:?} is not [HOST:]PORT:HOST:PORT"));
    let parts: Vec<_> = text.split(':').collect();
    let (at, host, port) = match parts[..] {
        [port, host, to] => (format!("127.0.0.1:{port}"), host, to),
        [at, port, host, to] => (format!("{at}:{port}"), host, to),
        _ => return Err(wrong()),
    };
    Ok((at, host, port.parse().map_err(|_| wrong())?))
}

/// Runs a command or a shell, on a terminal if a person has one and it is a shell.
async fn run(session: &Session, ssh: &Ssh, command: Option<&str>) -> Result<Exit, CliError> {
    let size = || rustix::termios::tcgetwinsize(rustix::stdio::stdin()).ok();
    let terminal = size().filter(|_| command.is_none()).map(|size| Terminal {
        kind: variable("TERM").unwrap_or_else(|| "xterm".to_owned()),
        columns: size.ws_col.into(),
        rows: size.ws_row.into(),
    });
    let on_terminal = terminal.is_some();
    let running = ssh.start(command, terminal).await?;
    let failed = |source| CliError::io("use the terminal", source);
    let raw = if on_terminal { RawMode::enter().map_err(failed)? } else { None };
    let mut resized = signal(SignalKind::window_change()).map_err(failed)?;
    let resizer = running.resizer();
    let follow = async {
        while let Some(()) = resized.recv().await {
            if let Some(size) = size().filter(|_| on_terminal) {
                let _ = resizer.resize(size.ws_col.into(), size.ws_row.into()).await;
            }
        }
        std::future::pending().await
    };
    let carry = running.carry(tokio::io::stdin(), session.out.pipe(), tokio::io::stderr());
    let exit = tokio::select! { exit = carry => exit, exit = follow => exit };
    drop(raw);
    Ok(exit?)
}
