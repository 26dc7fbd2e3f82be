//! `jmp-bus admin init`: makes everything a fleet's broker needs.

use std::path::{Path, PathBuf};

use runtime::{Authority, AuthorityPlan, GivenCertificate};
use serde_json::json;

use crate::{advice::CliError, session::Session};

/// Make an authority: keys, accounts, permissions of each role, certificates, and a configuration
/// for nats-server.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    /// A name or address that the broker is reached by; the first is what is told to others.
    #[arg(long = "host", value_name = "HOST", required = true)]
    hosts: Vec<String>,
    /// The broker's port.
    #[arg(long, default_value_t = 4222, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// The fleet's name.
    #[arg(long, value_name = "NAME", default_value = "jmp-bus", value_parser = fleet_name)]
    name: String,
    /// Where the broker's files will lie on its host [default: `broker` in the authority].
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    broker_dir: Option<PathBuf>,
    /// Where the broker will keep its data [default: `data` in its files].
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    data_dir: Option<PathBuf>,
    /// What JetStream may store, in GiB.
    #[arg(long, value_name = "GIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(16..=1 << 20))]
    storage: u64,
    /// The broker's certificate, if it has one already.
    #[arg(long, value_name = "FILE", requires = "certificate_key")]
    certificate: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    certificate_key: Option<PathBuf>,
    /// Who issued it, if other hosts do not trust them anyway.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    certificate_ca: Option<PathBuf>,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session, dir: &Path) -> Result<(), CliError> {
        let given =
            |(certificate, key)| GivenCertificate { certificate, key, ca: self.certificate_ca };
        let plan = AuthorityPlan {
            name: self.name,
            root: session.root(),
            hosts: self.hosts,
            port: self.port,
            broker_dir: self.broker_dir.clone(),
            data_dir: self.data_dir,
            storage: self.storage << 30,
            certificate: self.certificate.zip(self.certificate_key).map(given),
        };
        let authority = Authority::create(dir, &plan)?;
        let broker = authority.dir().join("broker");
        let data = json!({
            "authority": authority.dir(),
            "broker": broker,
            "config": broker.join("nats-server.conf"),
            "server": authority.server(),
            "tlsca": authority.ca(),
        });
        let shown = authority.dir().display().to_string();
        let bring = match &self.broker_dir {
            None => String::new(),
            Some(there) => {
                format!("bring to its host:     {} as {}\n", broker.display(), there.display())
            }
        };
        let there = self.broker_dir.as_ref().unwrap_or(&broker);
        let text = || {
            format!(
                "an authority for {server} is in {shown}\n\
                 {bring}start the broker:      nats-server -c {config}\n\
                 then make its streams: jmp-bus admin streams\n\
                 give out credentials:  jmp-bus admin add client NAME\n",
                server = authority.server(),
                config = there.join("nats-server.conf").display(),
            )
        };
        session.out.document(&data, text).await
    }
}

/// A name that nats-server takes for a server's, too.
fn fleet_name(text: &str) -> Result<String, String> {
    let good = !text.is_empty()
        && text.len() <= 64
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    match good {
        true => Ok(text.to_owned()),
        false => Err("use 1 to 64 letters, digits, '-', '_' and '.'".to_owned()),
    }
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    path.is_absolute().then_some(path).ok_or_else(|| "begin it with /".to_owned())
}
