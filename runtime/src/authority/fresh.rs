//! A new authority: its keys, its certificates and the files of its broker.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bus_schema::{Root, permission::Role};
use nkeys::KeyPair;

use super::{
    ACCOUNT_JWT, AUTHORITY_CONF, AuthorityError, CA, CA_KEY, OPERATOR_JWT, OPERATOR_SIGNING,
    Record, STORE, STORE_JWT, SYSTEM_JWT, SYSTEM_SIGNING, at, certificate, claims,
    private::{self, Others},
    read, server_config,
    user::key_of,
};

/// What an authority is made of.
#[derive(Clone, Debug)]
pub struct AuthorityPlan {
    /// The fleet's name.
    pub name: String,
    /// The first token of all subjects.
    pub root: Root,
    /// Names and addresses that the broker is reached by; the first is what people are told.
    pub hosts: Vec<String>,
    /// Its port.
    pub port: u16,
    /// Where the broker's files will lie on its host; by default `broker` of the authority.
    pub broker_dir: Option<PathBuf>,
    /// Where the broker will keep its data; by default `data` of its files.
    pub data_dir: Option<PathBuf>,
    /// Bytes that JetStream may store.
    pub storage: u64,
    /// The broker's certificate; without one, one is made.
    pub certificate: Option<GivenCertificate>,
}

/// A certificate that somebody else issued, in PEM.
#[derive(Clone, Debug)]
pub struct GivenCertificate {
    /// The certificate, with those between it and its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Its authority, if clients do not trust it anyway.
    pub ca: Option<PathBuf>,
}

/// An authority that is being made.
pub(super) struct New<'a> {
    pub(super) dir: &'a Path,
    pub(super) plan: &'a AuthorityPlan,
}

impl New<'_> {
    pub(super) fn certificates(&self) -> Result<(), AuthorityError> {
        let Self { dir, plan } = self;
        let write = |name: &str, text: &str, others| {
            let file = dir.join(name);
            private::write_new(&file, text, others).map_err(at(&file))
        };
        if let Some(given) = &plan.certificate {
            write("broker/tls/server.pem", &read(&given.certificate)?, Others::Read)?;
            write("broker/tls/server.key", &read(&given.key)?, Others::Nothing)?;
            if let Some(ca) = &given.ca {
                write(CA, &read(ca)?, Others::Read)?;
            }
            return Ok(());
        }
        let failed = |error: rcgen::Error| AuthorityError::Certificate {
            hosts: plan.hosts.join(", "),
            why: error.to_string(),
        };
        let ca = certificate::authority(&plan.name).map_err(failed)?;
        let broker = certificate::of_broker(&plan.hosts, &plan.name, &ca.key).map_err(failed)?;
        write(CA_KEY, &ca.key, Others::Nothing)?;
        write(CA, &ca.certificate, Others::Read)?;
        write("broker/tls/server.pem", &broker.certificate, Others::Read)?;
        write("broker/tls/ca.pem", &ca.certificate, Others::Read)?;
        write("broker/tls/server.key", &broker.key, Others::Nothing)
    }

    pub(super) fn keys_and_jwts(&self) -> Result<Record, AuthorityError> {
        let Self { dir, plan } = self;
        let new_key = |name: &str, key: KeyPair| {
            write_seed(&dir.join(name), &key)?;
            Ok::<_, AuthorityError>(key)
        };
        let operator = new_key("keys/operator.nk", KeyPair::new_operator())?;
        let signing = new_key(OPERATOR_SIGNING, KeyPair::new_operator())?;
        let system = new_key("keys/system.nk", KeyPair::new_account())?;
        let system_signing = new_key(SYSTEM_SIGNING, KeyPair::new_account())?;
        let account = new_key("keys/account.nk", KeyPair::new_account())?;
        let store = new_key(STORE, KeyPair::new_account())?;
        let roles = Role::ALL
            .iter()
            .map(|role| Ok((*role, new_key(&key_of(*role), KeyPair::new_account())?)));
        let roles: BTreeMap<_, _> = roles.collect::<Result<_, AuthorityError>>()?;

        let operator_jwt =
            claims::operator(&plan.name, &operator, &signing, &system).sign(&operator);
        let system_jwt = claims::system_account(&system, &system_signing).sign(&signing);
        let store_jwt = claims::store(&store, &plan.root, plan.storage).sign(&signing);
        let store = store.public_key();
        let account_jwt = claims::account(&account, &plan.root, &store, &roles).sign(&signing);
        let broker_dir = plan.broker_dir.clone().unwrap_or_else(|| dir.join("broker"));
        let data = plan.data_dir.clone().unwrap_or_else(|| broker_dir.join("data"));
        let broker = server_config::Broker {
            dir: &broker_dir,
            data: &data,
            name: &plan.name,
            port: plan.port,
            storage: plan.storage,
        };
        let authority = server_config::authority(
            &operator_jwt,
            (&system.public_key(), &system_jwt),
            (&account.public_key(), &account_jwt),
            Some((&store, &store_jwt)),
        );
        for (name, text) in [
            (OPERATOR_JWT, &operator_jwt),
            (SYSTEM_JWT, &system_jwt),
            (ACCOUNT_JWT, &account_jwt),
            (STORE_JWT, &store_jwt),
            (AUTHORITY_CONF, &authority),
            ("broker/nats-server.conf", &broker.server()),
        ] {
            let file = dir.join(name);
            private::write_new(&file, text, Others::Nothing).map_err(at(&file))?;
        }
        let host = plan.hosts.first().map_or("localhost", String::as_str);
        Ok(Record {
            version: 1,
            name: plan.name.clone(),
            root: plan.root.clone(),
            server: format!("tls://{}:{}", bracketed(host), plan.port),
            hosts: plan.hosts.clone(),
            broker_dir,
            operator: operator.public_key(),
            system: system.public_key(),
            account: account.public_key(),
            store: Some(store),
            users: Vec::new(),
        })
    }
}

/// An IPv6 address as URLs have it.
fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

pub(super) fn write_seed(file: &Path, key: &KeyPair) -> Result<(), AuthorityError> {
    let seed = key.seed().expect("a new key has its seed") + "\n";
    private::write_new(file, &seed, Others::Nothing).map_err(at(file))
}
