//! The configuration of nats-server that an authority writes.

use std::path::Path;

/// `authority.conf`: whom a broker believes. Every broker of a fleet includes it. An account is its
/// public key and its JWT.
pub(super) fn authority(
    operator_jwt: &str,
    (system, system_jwt): (&str, &str),
    (account, account_jwt): (&str, &str),
    store: Option<(&str, &str)>,
) -> String {
    let store = store.map(|(store, jwt)| format!("  {store}: \"{jwt}\"\n")).unwrap_or_default();
    format!(
        "# Whom the broker believes. Written by `jmp-bus admin`; every broker of the fleet has it.
operator: \"{operator_jwt}\"
system_account: {system}
# For a broker that knows none of them yet: what was pushed later is in the resolver's dir.
resolver_preload {{
  {system}: \"{system_jwt}\"
{store}  {account}: \"{account_jwt}\"
}}
# One JetStream for everybody, also behind a leaf node: its requests pass there only if both sides
# say so. (nats-server warns of this line; it is right.)
default_js_domain {{ {account}: \"\" }}
",
    )
}

/// What a configuration is made of.
pub(super) struct Broker<'a> {
    /// Where the files lie on the broker's host.
    pub(super) dir: &'a Path,
    /// Where the broker keeps its data.
    pub(super) data: &'a Path,
    pub(super) name: &'a str,
    pub(super) port: u16,
    pub(super) storage: u64,
}

impl Broker<'_> {
    /// `nats-server.conf`, for one broker.
    pub(super) fn server(&self) -> String {
        let Self { name, port, storage, .. } = self;
        let tls = |file: &str| quoted(&self.dir.join("tls").join(file));
        let (certificate, key) = (tls("server.pem"), tls("server.key"));
        let jetstream = quoted(&self.data.join("jetstream"));
        let jwt = quoted(&self.data.join("jwt"));
        format!(
            "# One broker. Written by `jmp-bus admin init`; yours to edit. `deploy/nats` of jmp-bus has
# configurations for a cluster and for a leaf node.
server_name: {name}
listen: \"0.0.0.0:{port}\"
include \"authority.conf\"

# The accounts' JWTs, as they were pushed.
resolver {{
  type: full
  dir: {jwt}
  allow_delete: false
  interval: \"2m\"
  limit: 1000
}}

tls {{
  cert_file: {certificate}
  key_file: {key}
  timeout: 5
}}

jetstream {{
  store_dir: {jetstream}
  max_file_store: {storage}
  max_memory_store: 64MB
}}

# Clients of jmp-bus do the same: a peer that is gone without a word is noticed within 20 s.
ping_interval: \"10s\"
ping_max: 2
# Chunks are 64 KiB and a little; calls with more travel in parts.
max_payload: 1MB
# What a connection may have waiting, before it is cut as too slow.
max_pending: 64MB
write_deadline: \"10s\"
"
        )
    }
}

/// A path as the configuration has it.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('\\', "\\\\").replace('"', "\\\""))
}
