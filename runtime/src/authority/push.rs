//! Telling the broker: the accounts' JWTs are pushed to its resolver, and streams are made.
//!
//! The resolver takes any account JWT, whoever signed it and however old it is, and a broker that
//! starts with a bad one lets nobody in. So what is pushed is verified before, is newer than what
//! is there, and has every revocation that is there.

use std::time::Duration;

use bus_schema::{permission::Role, subject::system};
use bytes::Bytes;
use nkeys::KeyPair;
use serde::Deserialize;

use super::{
    ACCOUNT_JWT, AUTHORITY_CONF, Authority, AuthorityError, OPERATOR_JWT, STORE_JWT, SYSTEM_JWT,
    SYSTEM_SIGNING, at, claims, damaged,
    jwt::Claims,
    private::{self, Others},
    read, render, server_config,
};
use crate::{Auth, BusError, Secret, Settings, bus::Conn};

/// A broker that is well answers in milliseconds; a cluster asks its other nodes.
const PATIENCE: Duration = Duration::from_secs(5);
/// Two programs that push at the same time look again so often.
const ATTEMPTS: u32 = 3;

/// What was found when the account's JWT was pushed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Revocations that the broker had and this authority did not know.
    pub learned: usize,
    /// The broker had a JWT that this authority's operator had not signed. It was replaced.
    pub foreign: Option<String>,
}

impl Authority {
    /// Gives the broker the accounts' JWTs. They take effect on live connections at once.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::Bus`] if the broker cannot be reached, [`AuthorityError::NotTaken`] if it
    /// does not take it. Either way the change is kept here, and the next push has it.
    pub async fn push(&mut self, settings: &Settings) -> Result<Pushed, AuthorityError> {
        let key = KeyPair::new_user();
        let accounts = self.record.store.iter().chain([&self.record.account]);
        let accounts: Vec<_> = accounts.map(String::as_str).collect();
        let mut claims = claims::pusher(&key, &self.record.system, &accounts);
        claims.exp = Some(claims.iat + super::PASSING.as_secs());
        let jwt = claims.sign(&self.key(SYSTEM_SIGNING)?);
        let seed = key.seed().expect("a new key has its seed");
        let conn = self.as_user(settings, render(&jwt, &seed)).connect("jmp-bus admin").await?;
        let pushed = async {
            self.push_store(&conn).await?; // first: the account asks it for what it has to be
            self.push_account(&conn).await
        };
        let pushed = pushed.await;
        conn.close().await;
        pushed
    }

    /// Makes the JetStream streams on the broker, or finds them as they must be.
    ///
    /// # Errors
    ///
    /// As [`Settings::make_streams`].
    pub async fn make_streams(
        &self,
        settings: &Settings,
        replicas: u8,
    ) -> Result<(), AuthorityError> {
        let settings = self.as_user(settings, self.passing_user(Role::Admin)?);
        Ok(settings.make_streams_on(&self.record.root, replicas).await?)
    }

    /// Writes the account's JWT into the configuration, for brokers that start with nothing else: a
    /// new site, a new machine. They let nobody in who was revoked before.
    pub(super) fn tell_new_brokers(&self, account_jwt: &str) -> Result<(), AuthorityError> {
        let jwt = |name: &str| read(&self.dir.join(name));
        let (operator, system) = (jwt(OPERATOR_JWT)?, jwt(SYSTEM_JWT)?);
        let store = match &self.record.store {
            Some(store) => Some((store, jwt(STORE_JWT)?)),
            None => None,
        };
        let file = self.dir.join(AUTHORITY_CONF);
        let text = server_config::authority(
            &operator,
            (&self.record.system, &system),
            (&self.record.account, account_jwt),
            store.as_ref().map(|(store, jwt)| (store.as_str(), jwt.as_str())),
        );
        private::replace(&file, &text, Others::Nothing).map_err(at(&file))
    }

    /// How to reach this authority's broker: as `settings` say, and otherwise as it was planned.
    fn as_user(&self, settings: &Settings, creds: String) -> Settings {
        let mut settings = settings.clone();
        settings.auth = Auth::CredsText(Secret::new(creds));
        settings.inbox_prefix = None;
        if settings.servers.is_empty() {
            settings.servers = vec![self.record.server.clone()];
        }
        if settings.tls.ca.is_none() {
            settings.tls.ca = self.ca();
        }
        settings
    }

    /// Gives the broker the JWT of the store account, unless it has a later one.
    async fn push_store(&self, conn: &Conn) -> Result<(), AuthorityError> {
        let Some(store) = &self.record.store else { return Ok(()) };
        let ours = read(&self.dir.join(STORE_JWT))?;
        let claims = Claims::read(&ours).map_err(damaged(&self.dir.join(STORE_JWT)))?;
        let there = self.look_up(conn, store).await?;
        let there = there.and_then(|jwt| Claims::read(&jwt).ok());
        if there.is_some_and(|there| there.iss == claims.iss && there.iat >= claims.iat) {
            return Ok(());
        }
        accepted(&ask(conn, system::CLAIMS_UPDATE.to_owned(), Bytes::from(ours)).await?)
    }

    async fn push_account(&mut self, conn: &Conn) -> Result<Pushed, AuthorityError> {
        let mut pushed = Pushed::default();
        for _ in 0..ATTEMPTS {
            let there = self.look_up(conn, &self.record.account).await?;
            let ours = read(&self.dir.join(ACCOUNT_JWT))?;
            if there.as_deref() == Some(ours.trim()) {
                return Ok(pushed);
            }
            self.catch_up(there.as_deref(), &mut pushed)?;
            let ours = read(&self.dir.join(ACCOUNT_JWT))?;
            let answer = ask(conn, system::CLAIMS_UPDATE.to_owned(), Bytes::from(ours)).await?;
            accepted(&answer)?;
        }
        let why = "another program changes it at the same time".to_owned();
        Err(AuthorityError::NotTaken { why })
    }

    async fn look_up(&self, conn: &Conn, account: &str) -> Result<Option<String>, AuthorityError> {
        let answer = ask(conn, system::claims_lookup(account), Bytes::new()).await?;
        let text = String::from_utf8_lossy(&answer).trim().to_owned();
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// Takes over what the broker's JWT has that ours lacks: revocations, and a later time.
    pub(super) fn catch_up(
        &self,
        there: Option<&str>,
        pushed: &mut Pushed,
    ) -> Result<(), AuthorityError> {
        let Some(there) = there else { return Ok(()) };
        let ours = self.account_claims()?;
        let theirs = match Claims::read(there) {
            Ok(theirs) if theirs.iss == ours.iss && theirs.sub == ours.sub => theirs,
            Ok(other) => {
                pushed.foreign = Some(format!("it was signed by {}", other.iss));
                return Ok(());
            }
            Err(error) => {
                pushed.foreign = Some(error.to_string());
                return Ok(());
            }
        };
        let revocations = |claims: &Claims| {
            claims
                .nats
                .get("revocations")
                .and_then(|map| map.as_object())
                .cloned()
                .unwrap_or_default()
        };
        let mut all = revocations(&ours);
        let mut learned = 0;
        for (nkey, since) in revocations(&theirs) {
            let known = all.get(&nkey).and_then(|since| since.as_u64()).unwrap_or(0);
            if since.as_u64().is_some_and(|since| since > known) {
                all.insert(nkey, since);
                learned += 1;
            }
        }
        pushed.learned += learned;
        if learned == 0 && ours.iat > theirs.iat {
            return Ok(());
        }
        self.sign_account(|claims| {
            claims.nats["revocations"] = all.into();
            claims.iat = claims.iat.max(theirs.iat);
        })
    }
}

async fn ask(conn: &Conn, subject: String, body: Bytes) -> Result<Bytes, AuthorityError> {
    let answer = conn.ask(subject, body, PATIENCE).await?;
    if answer.is_no_responders() {
        let why = "the broker has no resolver that can be told: see its authority.conf";
        return Err(BusError::Unfit(why.to_owned()).into());
    }
    Ok(answer.into_payload())
}

/// Whether the resolver says that it has stored the JWT.
fn accepted(answer: &[u8]) -> Result<(), AuthorityError> {
    #[derive(Deserialize)]
    struct Answer {
        data: Option<Stored>,
        error: Option<Refused>,
    }
    #[derive(Deserialize)]
    struct Stored {
        code: u32,
    }
    #[derive(Deserialize)]
    struct Refused {
        description: String,
    }
    match serde_json::from_slice::<Answer>(answer) {
        Ok(Answer { data: Some(Stored { code: 200 }), error: None }) => Ok(()),
        Ok(Answer { error: Some(Refused { description }), .. }) => {
            Err(AuthorityError::NotTaken { why: description })
        }
        _ => Err(AuthorityError::NotTaken { why: "its answer cannot be read".to_owned() }),
    }
}
