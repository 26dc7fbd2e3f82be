//! The SSH server behind a driver, and how the system's own programs reach it.

use std::path::Path;

use actors::KnownHosts;
use bus_schema::Target;
use bytes::Bytes;
use runtime::{Client, DriverRef, Found};

use crate::{advice::CliError, request::Asked, session::Session};

/// The interface of drivers that say who logs in.
const INTERFACE: &str = "ssh";
/// The child that has the connection, where the driver itself has none.
const CHILD: &str = "tcp";

/// An SSH server.
#[derive(Debug)]
pub(crate) struct Host {
    /// What connects to it.
    pub(crate) service: DriverRef,
    /// What says who logs in.
    wrapper: Option<DriverRef>,
}

impl Host {
    /// The server that is meant: a driver that connects to it, or one of kind `ssh`, whose
    /// connection may be that of its child.
    pub(crate) async fn find(client: &Client, asked: &Asked) -> Result<Self, CliError> {
        let (driver, found) = asked.found(client).await?;
        let Some(found) = found.filter(|found| {
            found.record.interfaces.iter().any(|(name, _)| name.as_str() == INTERFACE)
        }) else {
            return Ok(Self { service: driver, wrapper: None });
        };
        let path = match found.record.path.as_str() {
            "" => CHILD.to_owned(),
            path => format!("{path}/{CHILD}"),
        };
        let tree = client.registry().tree(&found.exporter).await?;
        let child = tree.into_iter().find(|record| record.path == path);
        let service = match child {
            Some(child) => {
                let child = Found { exporter: found.exporter, record: child };
                let service = client.driver_found(&child);
                match child.address() {
                    Ok(address) => Asked::held(service, &address),
                    Err(_) => service,
                }
            }
            None => driver.clone(),
        };
        Ok(Self { service, wrapper: Some(driver) })
    }

    /// Who logs in, if the driver says so.
    pub(crate) async fn user(&self) -> Result<Option<String>, CliError> {
        let Some(wrapper) = &self.wrapper else { return Ok(None) };
        let said = wrapper.call_raw("get_default_username", Bytes::new()).await?;
        Ok(rmp_serde::from_slice(&said).ok().filter(|user: &String| !user.is_empty()))
    }

    /// The key to log in with, if the driver gives one.
    pub(crate) async fn identity(&self) -> Result<Option<String>, CliError> {
        let Some(wrapper) = &self.wrapper else { return Ok(None) };
        let said = wrapper.call_raw("get_ssh_identity", Bytes::new()).await?;
        Ok(rmp_serde::from_slice(&said).ok().flatten())
    }
}

/// A configuration for the system's ssh. The known hosts are shared with it.
pub(crate) fn config(
    session: &Session,
    asked: &Asked,
    host: &Host,
    user: &str,
    known_hosts: &Path,
) -> String {
    let target = &asked.target;
    let name = match target {
        Target::Address(address) => address.to_string().replace('/', "-"),
        Target::Id(id) => id.to_string(),
        Target::Place(place) => place.to_string().replace('@', "").replace('/', "-"),
    };
    let program = std::env::current_exe().ok();
    let program =
        program.map_or_else(|| "jmp-bus".to_owned(), |path| quoted(&path.display().to_string()));
    let reach: String =
        session.global.reach().iter().map(|word| format!(" {}", quoted(word))).collect();
    let alias = KnownHosts::name_of(&host.service);
    format!(
        "Host {name}\n  \
         ProxyCommand {program}{reach} ssh --proxy {target}\n  \
         User {user}\n  \
         HostKeyAlias {alias}\n  \
         UserKnownHostsFile {}\n  \
         StrictHostKeyChecking accept-new\n  \
         HashKnownHosts no\n",
        quoted(&known_hosts.display().to_string()),
    )
}

/// A word of a shell, and of an OpenSSH configuration, where `%` stands for something.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@=,+".contains(c);
    match word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("\"{}\"", word.replace('%', "%%")),
    }
}
