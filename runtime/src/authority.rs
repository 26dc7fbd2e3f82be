//! Who may use a fleet's broker: the keys that sign, and the people and exporters they signed for.
//!
//! An authority is a directory. What is in it, in NATS's own terms:
//!
//! ```text
//! authority.json       names, public keys and users
//! keys/                seeds of operator, accounts and roles; the certificate authority's key
//! jwt/                 the JWTs of the operator and the accounts
//! ca.pem               the certificate that every host must trust
//! broker/              the configuration of nats-server
//! ```
//!
//! Users are signed here and need nobody's leave: the broker knows their role's key. Their seeds
//! are in their `.creds` files only.

mod certificate;
mod claims;
mod creds;
mod fresh;
mod jwt;
mod private;
mod push;
mod renew;
mod server_config;
#[cfg(test)]
mod tests;
mod user;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bus_schema::{ClientName, NameError, Root, permission::Role, subject::CLAIMANT};
use nkeys::KeyPair;
use serde::{Deserialize, Serialize};

pub(crate) use self::creds::{jwt_of, render};
pub use self::{
    creds::Identity,
    fresh::{AuthorityPlan, GivenCertificate},
    jwt::{Claims, JwtError},
    push::Pushed,
    renew::Outdated,
    user::{NewUser, User},
};
use self::{
    fresh::New,
    private::Others,
    user::{class, date, key_of},
};

/// The authority in one directory. Nobody else changes it while this lives.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
    record: Record,
    _lock: File,
}

/// Credentials that were made.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Whose.
    pub user: User,
    /// The file they are in.
    pub file: PathBuf,
}

impl Authority {
    /// Makes one in `dir`, which must not be there or be empty.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`]; what was begun is then left for a look, and refused by the next attempt.
    pub fn create(dir: &Path, plan: &AuthorityPlan) -> Result<Self, AuthorityError> {
        let dir = &std::path::absolute(dir).map_err(at(dir))?;
        let empty = fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
        if dir.exists() && !empty {
            return Err(AuthorityError::Exists { dir: dir.clone() });
        }
        for dir in ["", "keys", "jwt", "broker", "broker/tls"].map(|sub| dir.join(sub)) {
            private::make_dir(&dir).map_err(at(&dir))?;
        }
        let lock = lock(dir)?;
        let new = New { dir, plan };
        new.certificates()?;
        let record = new.keys_and_jwts()?;
        let text = serde_json::to_string_pretty(&record).expect("a record is JSON") + "\n";
        let file = dir.join(RECORD);
        private::write_new(&file, &text, Others::Nothing).map_err(at(&file))?;
        Ok(Self { dir: dir.clone(), record, _lock: lock })
    }

    /// The one in `dir`.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::Missing`], [`AuthorityError::Locked`], [`AuthorityError::Damaged`].
    pub fn open(dir: &Path) -> Result<Self, AuthorityError> {
        let file = dir.join(RECORD);
        if !file.exists() {
            return Err(AuthorityError::Missing { dir: dir.to_owned() });
        }
        let lock = lock(dir)?;
        let text = read(&file)?;
        let record: Record = serde_json::from_str(&text).map_err(damaged(&file))?;
        if record.version != 1 {
            let why =
                format!("it is of version {}, and this program knows version 1", record.version);
            return Err(damaged(&file)(why));
        }
        Ok(Self { dir: dir.to_owned(), record, _lock: lock })
    }

    /// Signs credentials for `name` and writes them to `file`, which must not be there. The broker
    /// is not asked and need not be up. `again` gives a second key to a name that has one.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`]; nothing is written then.
    pub fn add(&mut self, request: &NewUser<'_>) -> Result<Issued, AuthorityError> {
        let NewUser { role, name, lasts, again, file } = *request;
        let name: ClientName = name.parse()?; // an exporter's has the same form
        if name.as_str() == CLAIMANT && class(role) == class(Role::Client) {
            return Err(AuthorityError::Reserved { role });
        }
        if let Some(other) = self.holder(role, name.as_str())
            && (!again || other.role != role)
        {
            let (name, issued) = (name.to_string(), other.issued);
            return Err(AuthorityError::Taken { role: other.role, name, issued });
        }
        let (key, signer) = (KeyPair::new_user(), self.key(&key_of(role))?);
        let mut claims = claims::user(name.as_str(), &key, role, &self.record.account);
        claims.exp = lasts.map(|lasts| claims.iat.saturating_add(lasts.as_secs()));
        let user = User {
            name: name.to_string(),
            role,
            nkey: key.public_key(),
            issued: claims.iat,
            expires: claims.exp,
            revoked: None,
        };
        let seed = key.seed().expect("a new key has its seed");
        let text = render(&claims.sign(&signer), &seed);
        private::write_new(file, &text, Others::Nothing).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => AuthorityError::Exists { dir: file.to_owned() },
            _ => at(file)(source),
        })?;
        self.record.users.push(user.clone());
        if let Err(error) = self.write() {
            // Credentials that nobody could revoke by name must not stay.
            let _ = fs::remove_file(file);
            return Err(error);
        }
        Ok(Issued { user, file: file.to_owned() })
    }

    /// Who has the name, in the same class of names: an exporter is nobody's namesake.
    fn holder(&self, role: Role, name: &str) -> Option<&User> {
        let mut users = self.record.users.iter().rev();
        users.find(|user| user.name == name && user.is_valid() && class(user.role) == class(role))
    }

    /// Revokes every key of `name` here: [`push`](Self::push) tells the broker. Gives those that
    /// were valid.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::Unknown`], or [`AuthorityError::Ambiguous`] if no role is given and the
    /// name is both an exporter's and somebody else's.
    pub fn revoke(&mut self, name: &str, role: Option<Role>) -> Result<Vec<User>, AuthorityError> {
        let now = now();
        let is_meant = |user: &User| user.name == name && role.is_none_or(|role| user.role == role);
        let meant: Vec<_> = self.record.users.iter().filter(|user| is_meant(user)).collect();
        if meant.is_empty() {
            let mut known: Vec<_> =
                self.record.users.iter().map(|user| user.name.clone()).collect();
            known.sort();
            known.dedup();
            return Err(AuthorityError::Unknown { name: name.to_owned(), known });
        }
        let other = meant.iter().find(|user| class(user.role) != class(meant[0].role));
        if let Some(other) = other {
            let (name, one, other) = (name.to_owned(), meant[0].role, other.role);
            return Err(AuthorityError::Ambiguous { name, one, other });
        }
        let mut revoked = Vec::new();
        for user in self.record.users.iter_mut().filter(|user| is_meant(user)) {
            if user.revoked.is_none() {
                user.revoked = Some(now.max(user.issued));
                revoked.push(user.clone());
            }
        }
        // The JWT first: a revocation that is in it and not in the list is seen again by a repeat.
        self.sign_account(|claims| revoke_in(claims, &revoked))?;
        self.write()?;
        Ok(revoked)
    }

    /// Everybody who has credentials, or had.
    pub fn users(&self) -> &[User] {
        &self.record.users
    }

    /// The fleet's name.
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// The first token of its subjects.
    pub fn root(&self) -> &Root {
        &self.record.root
    }

    /// The account that everybody is in: its public key.
    pub fn account(&self) -> &str {
        &self.record.account
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where its broker is: `tls://HOST:PORT`.
    pub fn server(&self) -> &str {
        &self.record.server
    }

    /// The certificate that hosts must trust, unless they do anyway.
    pub fn ca(&self) -> Option<PathBuf> {
        Some(self.dir.join(CA)).filter(|file| file.exists())
    }

    /// Changes the account's JWT, signs it, and keeps it.
    fn sign_account(&self, change: impl FnOnce(&mut Claims)) -> Result<(), AuthorityError> {
        let mut claims = self.account_claims()?;
        change(&mut claims);
        // Seconds are coarse, and the broker takes what is newer.
        claims.iat = now().max(claims.iat + 1);
        let jwt = claims.sign(&self.key(OPERATOR_SIGNING)?);
        let file = self.dir.join(ACCOUNT_JWT);
        private::replace(&file, &jwt, Others::Nothing).map_err(at(&file))?;
        self.tell_new_brokers(&jwt)
    }

    /// The account's JWT, as it was signed here last.
    fn account_claims(&self) -> Result<Claims, AuthorityError> {
        let file = self.dir.join(ACCOUNT_JWT);
        let claims = Claims::read(&read(&file)?).map_err(damaged(&file))?;
        if claims.sub != self.record.account
            || claims.iss != self.key(OPERATOR_SIGNING)?.public_key()
        {
            return Err(damaged(&file)("it was not signed by the operator of this authority"));
        }
        Ok(claims)
    }

    /// The JWT of the store account.
    fn store_claims(&self) -> Result<Claims, AuthorityError> {
        let file = self.dir.join(STORE_JWT);
        Claims::read(&read(&file)?).map_err(damaged(&file))
    }

    /// A user of `role` that lives as long as this process, in the form of a creds file.
    fn passing_user(&self, role: Role) -> Result<String, AuthorityError> {
        let key = KeyPair::new_user();
        let mut claims = claims::user("authority", &key, role, &self.record.account);
        claims.exp = Some(claims.iat + PASSING.as_secs());
        let jwt = claims.sign(&self.key(&key_of(role))?);
        Ok(render(&jwt, &key.seed().expect("a new key has its seed")))
    }

    fn key(&self, name: &str) -> Result<KeyPair, AuthorityError> {
        let file = self.dir.join(name);
        KeyPair::from_seed(read(&file)?.trim()).map_err(|_| damaged(&file)("it has no seed"))
    }

    fn write(&self) -> Result<(), AuthorityError> {
        let file = self.dir.join(RECORD);
        let text = serde_json::to_string_pretty(&self.record).expect("a record is JSON") + "\n";
        private::replace(&file, &text, Others::Nothing).map_err(at(&file))
    }
}

/// What `authority.json` says. There is no secret in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    name: String,
    root: Root,
    server: String,
    hosts: Vec<String>,
    broker_dir: PathBuf,
    operator: String,
    system: String,
    account: String,
    /// None where an older program made it: JetStream is in the account then.
    store: Option<String>,
    users: Vec<User>,
}

/// Why an authority did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// There is one already.
    #[error("{} is there already, and nothing is written over it", dir.display())]
    Exists {
        /// Where.
        dir: PathBuf,
    },
    /// There is none.
    #[error("there is no authority in {}", dir.display())]
    Missing {
        /// Where.
        dir: PathBuf,
    },
    /// Another program is changing it.
    #[error("another jmp-bus is changing the authority in {}", dir.display())]
    Locked {
        /// Where.
        dir: PathBuf,
    },
    /// A file could not be read or written.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not what it should be. Its text is not shown: it may be a secret.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A name that cannot be.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A name that every exporter uses when it starts.
    #[error(
        "no {role} may be named {CLAIMANT:?}: exporters ask by that name whether theirs is taken"
    )]
    Reserved {
        /// Of what.
        role: Role,
    },
    /// Somebody has the name.
    #[error("there is {role} {name} already, with credentials issued on {}", date(*issued))]
    Taken {
        /// What it is.
        role: Role,
        /// Its name.
        name: String,
        /// Since when.
        issued: u64,
    },
    /// Nobody has the name.
    #[error("nobody here is named {name}")]
    Unknown {
        /// The name.
        name: String,
        /// Who there is.
        known: Vec<String>,
    },
    /// A name is that of an exporter and of somebody else, for instance.
    #[error("{name} is the name of {one} and of {other}")]
    Ambiguous {
        /// The name.
        name: String,
        /// Of what.
        one: Role,
        /// Of what else.
        other: Role,
    },
    /// A certificate is not ours to make.
    #[error("the broker's certificate was issued by somebody else, who renews it")]
    Foreign,
    /// A certificate could not be made.
    #[error("cannot make a certificate for {hosts}: {why}")]
    Certificate {
        /// For whom.
        hosts: String,
        /// Why not.
        why: String,
    },
    /// The broker.
    #[error(transparent)]
    Bus(#[from] crate::BusError),
    /// The broker did not take a JWT.
    #[error("the broker did not take the account's JWT: {why}")]
    NotTaken {
        /// What it says.
        why: String,
    },
}

const RECORD: &str = "authority.json";
const CA: &str = "ca.pem";
const CA_KEY: &str = "keys/ca.key";
const OPERATOR_SIGNING: &str = "keys/operator-signing.nk";
const SYSTEM_SIGNING: &str = "keys/system-signing.nk";
const OPERATOR_JWT: &str = "jwt/operator.jwt";
const SYSTEM_JWT: &str = "jwt/system.jwt";
const ACCOUNT_JWT: &str = "jwt/account.jwt";
const STORE: &str = "keys/store.nk";
const STORE_JWT: &str = "jwt/store.jwt";
const AUTHORITY_CONF: &str = "broker/authority.conf";

/// Longer than any command of `jmp-bus admin` takes, and enough for clocks that differ.
const PASSING: Duration = Duration::from_secs(600);

/// Adds revocations to an account's claims; those that are there stay.
fn revoke_in(claims: &mut Claims, users: &[User]) {
    let revocations = &mut claims.nats["revocations"];
    for user in users {
        let since = user.revoked.unwrap_or_default();
        let there = revocations.get(&user.nkey).and_then(|since| since.as_u64()).unwrap_or(0);
        revocations[&user.nkey] = since.max(there).into();
    }
}

fn lock(dir: &Path) -> Result<File, AuthorityError> {
    let file = File::open(dir).map_err(at(dir))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(AuthorityError::Locked { dir: dir.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(at(dir)(source)),
    }
}

fn read(file: &Path) -> Result<String, AuthorityError> {
    fs::read_to_string(file).map_err(at(file))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> AuthorityError {
    let path = path.to_owned();
    move |source| AuthorityError::File { path, source }
}

fn damaged<E: ToString>(path: &Path) -> impl FnOnce(E) -> AuthorityError {
    let path = path.to_owned();
    move |why| AuthorityError::Damaged { path, why: why.to_string() }
}

/// Seconds since 1970, as JWTs count.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
