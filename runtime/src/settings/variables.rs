//! Settings as variables of the environment, for a program that is to use them too.

use std::path::{Path, absolute};

use super::{Auth, Settings};

impl Settings {
    /// The `NATS_…` variables that say the same, as far as variables can: not credentials that lie
    /// in no file.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let mut all = Vec::new();
        if !self.servers.is_empty() {
            all.push(("NATS_URL", self.servers.join(",")));
        }
        match &self.auth {
            Auth::None | Auth::CredsText(_) | Auth::Jwt { .. } => {}
            Auth::Token(token) => all.push(("NATS_TOKEN", token.expose().to_owned())),
            Auth::UserPassword { user, password } => {
                all.push(("NATS_USER", user.clone()));
                all.push(("NATS_PASSWORD", password.expose().to_owned()));
            }
            Auth::Creds(file) => all.push(("NATS_CREDS", path(file))),
            Auth::Nkey(file) => all.push(("NATS_NKEY", path(file))),
        }
        let tls =
            [("NATS_CA", &self.tls.ca), ("NATS_CERT", &self.tls.cert), ("NATS_KEY", &self.tls.key)];
        all.extend(tls.into_iter().filter_map(|(name, file)| Some((name, path(file.as_ref()?)))));
        all
    }
}

/// The other program may be elsewhere.
fn path(file: &Path) -> String {
    absolute(file).unwrap_or_else(|_| file.to_owned()).display().to_string()
}
