//! `jmp-bus admin renew-certificate`: a certificate of the broker that lasts again.

use runtime::Authority;
use serde_json::json;

use crate::{advice::CliError, session::Session};

/// Make the broker's certificate anew: it lasts for 825 days. Nobody has to trust anything new.
///
/// Bring the `tls` directory to the broker's host, and make the broker reload: nobody is
/// disconnected.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    /// A name or address that the broker is reached by; without any, those that it has now.
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
}

impl Cmd {
    pub(crate) async fn run(
        self,
        session: &Session,
        mut authority: Authority,
    ) -> Result<(), CliError> {
        let hosts = authority.renew_certificate(self.hosts)?.to_vec();
        let tls = authority.dir().join("broker").join("tls");
        let data = json!({ "hosts": hosts, "tls": tls });
        let text = || {
            format!(
                "a certificate for {} is in {}\n\
                 bring that to the broker's host, then: systemctl reload jmp-bus-broker\n",
                hosts.join(", "),
                tls.display()
            )
        };
        session.out.document(&data, text).await
    }
}
