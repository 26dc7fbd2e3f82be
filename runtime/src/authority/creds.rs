//! Credentials files: a user's JWT and the seed of its key, in the form of NATS.

use bus_schema::permission::Role;
use serde::Serialize;

use super::{
    claims::ROLE_TAG,
    jwt::{Claims, JwtError},
};

/// A JWT and its seed, in the form of a creds file.
pub(crate) fn render(jwt: &str, seed: &str) -> String {
    format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         ************************* IMPORTANT *************************\n\
         NKEY Seed printed below can be used to sign and prove identity.\n\
         NKEYs are sensitive and should be treated as secrets.\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n\n\
         *************************************************************\n"
    )
}

/// The JWT of a creds file.
pub(crate) fn jwt_of(creds: &str) -> Option<&str> {
    let mut lines = creds.lines().map(str::trim);
    lines.find(|line| line.starts_with("-----BEGIN NATS USER JWT"))?;
    lines.find(|line| !line.is_empty()).filter(|line| !line.starts_with('-'))
}

/// Who somebody is by their credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// The name, as the broker puts it into the permissions.
    pub name: String,
    /// The role, if the credentials say one.
    #[serde(serialize_with = "role")]
    pub role: Option<Role>,
    /// Public key of the user: what is revoked.
    pub nkey: String,
    /// Public key of the account.
    pub account: String,
    /// When they were issued, in seconds since 1970.
    pub issued: u64,
    /// When they end.
    pub expires: Option<u64>,
}

fn role<S: serde::Serializer>(role: &Option<Role>, s: S) -> Result<S::Ok, S::Error> {
    role.map(Role::as_str).serialize(s)
}

impl Identity {
    /// Reads a user's JWT.
    ///
    /// # Errors
    ///
    /// [`JwtError`]; the signature is verified, and nothing is asked of a broker.
    pub fn of_jwt(jwt: &str) -> Result<Self, JwtError> {
        let claims = Claims::read(jwt)?;
        if claims.kind() != "user" {
            return Err(JwtError::Foreign("it is not a user's"));
        }
        let text = |name: &str| claims.nats.get(name).and_then(|value| value.as_str());
        let tags = claims.nats.get("tags").and_then(|tags| tags.as_array()).into_iter().flatten();
        let role = tags.filter_map(|tag| tag.as_str()?.strip_prefix(ROLE_TAG)?.parse().ok()).next();
        Ok(Self {
            role,
            account: text("issuer_account").unwrap_or(&claims.iss).to_owned(),
            issued: claims.iat,
            expires: claims.exp,
            name: claims.name,
            nkey: claims.sub,
        })
    }

    /// Whether they have ended by this host's clock.
    pub fn is_expired(&self) -> bool {
        self.expires.is_some_and(|expires| expires <= super::now())
    }
}
