//! What an authority is given anew: permissions of roles, the place of JetStream, a certificate.

use std::collections::BTreeMap;

use bus_schema::permission::Role;
use nkeys::KeyPair;

use super::{
    Authority, AuthorityError, CA_KEY, OPERATOR_SIGNING, STORE, STORE_JWT, at, certificate, claims,
    fresh::write_seed,
    jwt::Claims,
    private::{self, Others},
    read,
    user::key_of,
};

/// What [`Authority::renew`] would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outdated {
    /// The roles whose permissions are not those of this program.
    pub roles: Vec<Role>,
    /// JetStream is not in the account that this program has it in.
    pub store: bool,
}

impl Outdated {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.roles.is_empty() && !self.store
    }
}

impl Authority {
    /// What the broker would be told otherwise by this program.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] if a file cannot be read.
    pub fn outdated(&self) -> Result<Outdated, AuthorityError> {
        let claims = self.account_claims()?;
        let scopes = claims.nats.get("signing_keys").and_then(|keys| keys.as_array());
        let mut roles = Vec::new();
        for role in Role::ALL {
            let current = match self.key(&key_of(*role)) {
                Ok(key) => claims::scope(*role, &key, &self.record.root),
                Err(AuthorityError::File { .. }) => serde_json::Value::Null, // a role since then
                Err(error) => return Err(error),
            };
            if !scopes.is_some_and(|scopes| scopes.contains(&current)) {
                roles.push(*role);
            }
        }
        let root = &self.record.root;
        let store = match &self.record.store {
            None => true,
            Some(store) => {
                claims.nats.get("imports") != Some(&claims::imports(root, store))
                    || self.store_claims()?.nats.get("exports") != Some(&claims::exports(root))
            }
        };
        Ok(Outdated { roles, store })
    }

    /// Gives every role the permissions of this program, and JetStream the account that it has by
    /// this program: [`push`](Self::push) tells the broker, which then drops the connections of the
    /// roles that changed; they come back by themselves.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`].
    pub fn renew(&mut self) -> Result<(), AuthorityError> {
        for role in Role::ALL {
            self.key_or_new(&key_of(*role))?;
        }
        let keys = Role::ALL.iter().map(|role| Ok((*role, self.key(&key_of(*role))?)));
        let keys: BTreeMap<_, _> = keys.collect::<Result<_, AuthorityError>>()?;
        let storage = |claims: &Claims| claims.nats["limits"]["disk_storage"].as_u64();
        let bytes = match &self.record.store {
            Some(_) => storage(&self.store_claims()?),
            None => storage(&self.account_claims()?),
        };
        let root = self.record.root.clone();
        let store = self.key_or_new(STORE)?;
        let jwt = claims::store(&store, &root, bytes.unwrap_or_default())
            .sign(&self.key(OPERATOR_SIGNING)?);
        let file = self.dir.join(STORE_JWT);
        private::replace(&file, &jwt, Others::Nothing).map_err(at(&file))?;
        let store = store.public_key();
        self.record.store = Some(store.clone());
        self.write()?;
        self.sign_account(|claims| {
            let scopes: Vec<_> =
                keys.iter().map(|(role, key)| claims::scope(*role, key, &root)).collect();
            claims.nats["signing_keys"] = scopes.into();
            claims.nats["imports"] = claims::imports(&root, &store);
            claims.nats["limits"] = claims::limits();
        })
    }

    /// Makes the broker's certificate anew, for `hosts` if there are any, or else for those that it
    /// was for. Whoever trusts the authority trusts it; the broker reads it when it is told to
    /// reload, and drops nobody.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::Foreign`] if somebody else issued the certificate; the broker's files are
    /// as they were then.
    pub fn renew_certificate(&mut self, hosts: Vec<String>) -> Result<&[String], AuthorityError> {
        let file = self.dir.join(CA_KEY);
        if !file.exists() {
            return Err(AuthorityError::Foreign);
        }
        let hosts = if hosts.is_empty() { self.record.hosts.clone() } else { hosts };
        let made = certificate::of_broker(&hosts, &self.record.name, &read(&file)?);
        let made = made.map_err(|error| AuthorityError::Certificate {
            hosts: hosts.join(", "),
            why: error.to_string(),
        })?;
        for (name, text, others) in [
            ("broker/tls/server.key", &made.key, Others::Nothing),
            ("broker/tls/server.pem", &made.certificate, Others::Read),
        ] {
            let file = self.dir.join(name);
            private::replace(&file, text, others).map_err(at(&file))?;
        }
        self.record.hosts = hosts;
        self.write()?;
        Ok(&self.record.hosts)
    }

    /// The key, which is made if an older program made this authority.
    fn key_or_new(&self, name: &str) -> Result<KeyPair, AuthorityError> {
        let file = self.dir.join(name);
        if !file.exists() {
            write_seed(&file, &KeyPair::new_account())?;
        }
        self.key(name)
    }
}
