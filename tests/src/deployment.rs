//! A broker as an authority makes it: TLS, accounts and permissions, and users with credentials.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Mutex,
    time::Duration,
};

use anyhow::Context as _;
use async_nats::{Client, ConnectOptions};
use bus_schema::{Root, permission::Role};
use bytes::Bytes;
use futures_util::StreamExt as _;
use runtime::{Auth, Authority, AuthorityPlan, BrokerOptions, LocalBroker, NewUser, Settings, Tls};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{interval, timeout},
};

/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// The broker, and who may use it. It ends when this is dropped.
#[derive(Debug)]
pub struct Deployment {
    /// Its files.
    pub dir: TempDir,
    /// Where it is: `localhost:PORT`, as its certificate names it.
    pub address: String,
    /// The first token of all subjects.
    pub root: Root,
    authority: tokio::sync::Mutex<Authority>,
    users: Mutex<HashMap<String, PathBuf>>,
    broker_process: Child,
}

/// A broker at another site, that is one connection to its hub.
#[derive(Debug)]
pub struct Leaf {
    /// Where it is.
    pub address: String,
    _process: Child,
}

impl Deployment {
    /// Makes one, and its streams.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_as("nats-server.conf", |_| Ok(())).await
    }

    /// Makes one that is the hub of a leaf, as `deploy/nats` has both.
    pub async fn start_with_leaf() -> anyhow::Result<(Self, Leaf)> {
        let hub = Self::start_as("hub.conf", |broker| {
            let (tls, file) = (broker.join("tls"), broker.join("hub.conf"));
            let (certificate, key) = (tls.join("server.pem"), tls.join("server.key"));
            let tls = format!("tls {{ cert_file: {certificate:?}, key_file: {key:?} }}");
            let leaves = format!("leafnodes {{ listen: \"127.0.0.1:-1\", {tls} }}");
            Ok(fs::write(file, format!("include \"nats-server.conf\"\n{leaves}\n"))?)
        })
        .await?;
        let log = hub.log();
        let said = log.split("leafnode connections on 127.0.0.1:").nth(1);
        let port = said.and_then(|port| port.lines().next()).context("the hub has no leaf port")?;
        let (authority, dir) = (hub.dir.path().join("authority"), hub.dir.path().join("leaf"));
        fs::create_dir(&dir)?;
        fs::copy(authority.join("broker/authority.conf"), dir.join("authority.conf"))?;
        fs::write(dir.join("leaf.conf"), include_str!("../../deploy/nats/leaf.conf"))?;
        let account = hub.authority().await.account().to_owned();
        let quoted = |path: PathBuf| format!("{path:?}");
        let site = hub.creds(Role::Leaf, "site")?;
        let (process, own) = broker(
            &dir,
            &dir.join("leaf.conf"),
            &[
                ("BROKER_NAME", "leaf".to_owned()),
                ("BROKER_CLIENTS", "\"127.0.0.1:-1\"".to_owned()),
                ("BROKER_CERTIFICATE", quoted(authority.join("broker/tls/server.pem"))),
                ("BROKER_KEY", quoted(authority.join("broker/tls/server.key"))),
                ("BROKER_CA", quoted(authority.join("ca.pem"))),
                ("BROKER_RESOLVER", quoted(dir.join("jwt"))),
                ("BROKER_HUB", format!("[\"tls://localhost:{port}\"]")),
                ("BROKER_ACCOUNT", account),
                ("BROKER_SITE_CREDS", quoted(site)),
            ],
        )
        .await?;
        Ok((hub, Leaf { address: format!("localhost:{own}"), _process: process }))
    }

    async fn start_as(
        config: &str,
        configure: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let plan = AuthorityPlan {
            name: "test".to_owned(),
            root: Root::default(),
            hosts: vec!["localhost".to_owned()],
            port: 4222,
            broker_dir: None,
            data_dir: None,
            storage: 64 << 30,
            certificate: None,
        };
        let authority = Authority::create(&dir.path().join("authority"), &plan)?;
        let files = dir.path().join("authority/broker");
        configure(&files)?;
        let (broker, port) = broker(dir.path(), &files.join(config), &[]).await?;
        let deployment = Self {
            address: format!("localhost:{port}"),
            root: plan.root,
            dir,
            authority: tokio::sync::Mutex::new(authority),
            users: Mutex::default(),
            broker_process: broker,
        };
        deployment.authority().await.make_streams(&deployment.place(), 1).await?;
        Ok(deployment)
    }

    /// The authority. Whoever has it holds it, as one process does.
    pub async fn authority(&self) -> tokio::sync::MutexGuard<'_, Authority> {
        self.authority.lock().await
    }

    /// How to reach the broker, as nobody.
    pub fn place(&self) -> Settings {
        let ca = Some(self.dir.path().join("authority/ca.pem"));
        Settings {
            servers: vec![format!("tls://{}", self.address)],
            tls: Tls { ca, ..Tls::default() },
            ..Settings::default()
        }
    }

    /// Credentials of somebody, made when they are first asked for.
    pub fn creds(&self, role: Role, name: &str) -> anyhow::Result<PathBuf> {
        let mut users = self.users.lock().expect("nobody panics with it");
        let key = format!("{role}-{name}");
        if let Some(file) = users.get(&key) {
            return Ok(file.clone());
        }
        let file = self.dir.path().join(format!("{key}.creds"));
        self.issue(role, name, None, &file)?;
        users.insert(key, file.clone());
        Ok(file)
    }

    /// Credentials in a file of their own, for a time.
    pub fn issue(
        &self,
        role: Role,
        name: &str,
        lasts: Option<Duration>,
        file: &Path,
    ) -> anyhow::Result<()> {
        let new = NewUser { role, name, lasts, again: true, file };
        self.authority.try_lock().context("the authority is held")?.add(&new)?;
        Ok(())
    }

    /// How somebody reaches the broker.
    pub fn settings(&self, role: Role, name: &str) -> anyhow::Result<Settings> {
        Ok(Settings { auth: Auth::Creds(self.creds(role, name)?), ..self.place() })
    }

    /// A plain NATS client with somebody's credentials. The broker's log knows it as `ROLE NAME`.
    pub async fn nats(&self, role: Role, name: &str) -> anyhow::Result<Client> {
        let file = self.creds(role, name)?;
        self.nats_with(&fs::read_to_string(file)?, &format!("{role} {name}")).await
    }

    /// The same at another broker.
    pub async fn nats_at(&self, leaf: &Leaf, role: Role, name: &str) -> anyhow::Result<Client> {
        let creds = fs::read_to_string(self.creds(role, name)?)?;
        self.nats_to(&leaf.address, &creds, name).await
    }

    /// A plain NATS client with these credentials.
    pub async fn nats_with(&self, creds: &str, shown: &str) -> anyhow::Result<Client> {
        self.nats_to(&self.address, creds, shown).await
    }

    async fn nats_to(&self, address: &str, creds: &str, shown: &str) -> anyhow::Result<Client> {
        let options = ConnectOptions::with_credentials(creds)?
            .name(shown)
            .add_root_certificates(self.dir.path().join("authority/ca.pem"))
            .max_reconnects(1);
        Ok(options.connect(format!("tls://{address}")).await?)
    }

    /// Makes the broker read its configuration and certificate anew.
    pub async fn reload(&self) -> anyhow::Result<()> {
        let id = self.broker_process.id().context("the broker has ended")?.to_string();
        let told = Command::new("kill").args(["-HUP", &id]).status().await?;
        anyhow::ensure!(told.success());
        timeout(PATIENCE, async {
            while !self.log().contains("Reloaded server configuration") {
                tokio::task::yield_now().await;
            }
        })
        .await
        .context("the broker does not reload")
    }

    /// What the broker has logged. It writes a denial before it looks at the next message.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("broker.log")).unwrap_or_default()
    }

    /// What the broker has logged as denied: who, `Publish` or `Subscription`, and the subject.
    pub fn denials(&self) -> HashSet<(String, String, String)> {
        let denial = |line: &str| {
            // `… - "v0.51.0:rust:client alice" - "ACCOUNT" - Publish Violation - Subject "a.b"…`
            let (before, after) = line.split_once(" Violation - Subject \"")?;
            let who = before.split('"').nth(1)?.rsplit_once(':')?.1;
            let how = before.rsplit(' ').next()?;
            Some((who.to_owned(), how.to_owned(), after.split('"').next()?.to_owned()))
        };
        self.log().lines().filter_map(denial).collect()
    }

    /// Whether it denied this, as [`denials`](Self::denials) has it.
    pub fn denied(&self, who: &str, how: &str, subject: &str) -> bool {
        self.denials().contains(&(who.to_owned(), how.to_owned(), subject.to_owned()))
    }
}

/// A round trip: what was sent before has been dealt with. `own` is an inbox of the client's.
pub async fn settled(nats: &Client, own: String) -> anyhow::Result<()> {
    let mut sentinel = nats.subscribe(own.clone()).await?;
    nats.publish(own, Bytes::new()).await?;
    timeout(PATIENCE, sentinel.next()).await?.context("the connection is closed")?;
    Ok(())
}

/// Starts a nats-server on a free port of the loopback. Its log and the like go to `dir`.
async fn broker(
    dir: &Path,
    config: &Path,
    variables: &[(&str, String)],
) -> anyhow::Result<(Child, u16)> {
    let server = LocalBroker::find(&BrokerOptions::default()).await?;
    let broker = Command::new(server)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .arg("-c")
        .arg(config)
        .args(["-a", "127.0.0.1", "-p", "-1", "--ports_file_dir"])
        .arg(dir)
        .arg("-l")
        .arg(dir.join("broker.log"))
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let port = async {
        let mut look = interval(Duration::from_millis(5));
        loop {
            look.tick().await;
            if let Some(port) = written_port(dir) {
                return port;
            }
        }
    };
    let port = timeout(PATIENCE, port).await.context("the broker writes no port")?;
    Ok((broker, port))
}

fn written_port(dir: &Path) -> Option<u16> {
    let files = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path());
    let file = files.into_iter().find(|path| path.extension().is_some_and(|end| end == "ports"))?;
    let ports: serde_json::Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    ports["nats"][0].as_str()?.rsplit_once(':')?.1.parse().ok()
}
