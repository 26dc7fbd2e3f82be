//! The addresses of servers, and the credentials that people put into them.

use std::net::IpAddr;

use super::{Auth, BadServer, Secret, SettingsError, Source};

/// Where NATS is, if nothing else is said.
const PORT: u16 = 4222;

/// A list of servers, taken apart.
pub(super) struct Servers {
    addresses: Vec<String>,
    auth: Option<Auth>,
}

impl Servers {
    pub(super) fn into_parts(self) -> (Vec<String>, Option<Auth>) {
        (self.addresses, self.auth)
    }
}

/// Reads `nats://user:password@one:4222,two`.
pub(super) fn parse(list: &str, from: &Source) -> Result<Servers, SettingsError> {
    let mut servers = Servers { addresses: Vec::new(), auth: None };
    for server in list.split(',').map(str::trim) {
        let (scheme, rest) = server.split_once("://").unwrap_or(("nats", server));
        let (userinfo, host) = match rest.rsplit_once('@') {
            Some((userinfo, host)) => (Some(userinfo), host),
            None => (None, rest),
        };
        let address = format!("{scheme}://{}", host.trim_end_matches('/'));
        if let Err(why) = check(scheme, host.trim_end_matches('/')) {
            return Err(SettingsError::Server { from: from.clone(), server: address, why });
        }
        let auth = userinfo.filter(|userinfo| !userinfo.is_empty()).map(credentials);
        if auth.is_some() && servers.auth.is_some() && auth != servers.auth {
            return Err(SettingsError::ServersDisagree { from: from.clone() });
        }
        servers.auth = servers.auth.or(auth);
        servers.addresses.push(address);
    }
    Ok(servers)
}

/// Whether the host of an address that [`parse`] gave is this machine.
pub(super) fn is_loopback(address: &str) -> bool {
    let host = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = host_and_port(host).0;
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

fn check(scheme: &str, host: &str) -> Result<(), BadServer> {
    match scheme {
        "nats" | "tls" => {}
        "ws" | "wss" => return Err(BadServer::WebSocket),
        "nsc" => return Err(BadServer::Nsc),
        _ => return Err(BadServer::Scheme),
    }
    if host.contains(['/', '?', '#']) {
        return Err(BadServer::Path);
    }
    let (name, port) = host_and_port(host);
    if name.is_empty() {
        return Err(BadServer::NoHost);
    }
    match port.map(str::parse::<u16>) {
        Some(Err(_)) | Some(Ok(0)) => Err(BadServer::Port),
        Some(Ok(_)) | None => Ok(()),
    }
}

/// Host and port of an address that [`parse`] gave.
pub(super) fn endpoint(address: &str) -> (&str, u16) {
    let host = address.split_once("://").map_or(address, |(_, rest)| rest);
    let (host, port) = host_and_port(host);
    (host, port.and_then(|port| port.parse().ok()).unwrap_or(PORT))
}

/// Takes `[::1]:4222` and `host:4222` apart.
fn host_and_port(text: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        return (host, rest.strip_prefix(':'));
    }
    text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
}

fn credentials(userinfo: &str) -> Auth {
    match userinfo.split_once(':') {
        None => Auth::Token(Secret::new(decoded(userinfo))),
        Some((user, password)) => {
            Auth::UserPassword { user: decoded(user), password: Secret::new(decoded(password)) }
        }
    }
}

/// Undoes percent-encoding. What is none stays as it is.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let (byte, after) = match (first, tail) {
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => (b'%', tail),
            },
            _ => (*first, tail),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn digit(byte: u8) -> Option<u8> {
    u8::try_from(char::from(byte).to_digit(16)?).ok()
}
