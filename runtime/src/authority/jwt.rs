//! NATS JWTs: claims signed by an nkey, as the `nsc` and `nats` tools read and write them.
//!
//! `b64url(header).b64url(claims).b64url(signature)`, without padding; the signature is the
//! issuer's, over what is before it.

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use nkeys::KeyPair;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::{Digest as _, Sha512_256};

/// No JWT of ours is larger: an account's has a line for each revoked key.
const JWT_BYTES_MAX: usize = 1 << 20;

/// What a JWT claims. What is in `nats` depends on its type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    /// When it ends, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    /// A digest of the rest, so that two are told apart.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// When it was issued.
    pub iat: u64,
    /// Public key of who issued it.
    pub iss: String,
    /// A name for people; for a user, what `{{name()}}` stands for.
    #[serde(default)]
    pub name: String,
    /// Public key of whom it is about.
    pub sub: String,
    /// The rest.
    pub nats: Json,
}

/// Why a text is no JWT.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    /// It is something else.
    #[error("it is no NATS JWT: {0}")]
    Foreign(&'static str),
    /// Its claims cannot be read.
    #[error("its claims cannot be read: {0}")]
    Claims(#[from] serde_json::Error),
    /// It was not signed by whom it names.
    #[error("its signature is not that of {issuer}")]
    Forged {
        /// Whom it names.
        issuer: String,
    },
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

impl Claims {
    /// Reads a JWT, and verifies that its issuer has signed it.
    ///
    /// # Errors
    ///
    /// [`JwtError`]. Whether the issuer is to be believed is another question.
    pub fn read(jwt: &str) -> Result<Self, JwtError> {
        let jwt = jwt.trim();
        if jwt.len() > JWT_BYTES_MAX {
            return Err(JwtError::Foreign("it is too long"));
        }
        let (signed, signature) =
            jwt.rsplit_once('.').ok_or(JwtError::Foreign("it has no three parts"))?;
        let (header, claims) =
            signed.split_once('.').ok_or(JwtError::Foreign("it has no three parts"))?;
        let header: Header = serde_json::from_slice(&decoded(header)?)?;
        if header.alg != "ed25519-nkey" {
            return Err(JwtError::Foreign("it is not signed by an nkey"));
        }
        let claims: Self = serde_json::from_slice(&decoded(claims)?)?;
        let forged = || JwtError::Forged { issuer: claims.iss.clone() };
        let issuer = KeyPair::from_public_key(&claims.iss).map_err(|_| forged())?;
        issuer.verify(signed.as_bytes(), &decoded(signature)?).map_err(|_| forged())?;
        Ok(claims)
    }

    /// The JWT, signed by `issuer`, whose public key becomes `iss`.
    pub fn sign(mut self, issuer: &KeyPair) -> String {
        self.iss = issuer.public_key();
        self.jti = digest(&self);
        let encoded = |json: &[u8]| BASE64URL_NOPAD.encode(json);
        let claims = serde_json::to_vec(&self).expect("claims are JSON");
        let header = encoded(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
        let signed = format!("{header}.{}", encoded(&claims));
        let signature = issuer.sign(signed.as_bytes()).expect("an issuer has its seed");
        format!("{signed}.{}", encoded(&signature))
    }

    /// What it is about: `operator`, `account` or `user`.
    pub fn kind(&self) -> &str {
        self.nats.get("type").and_then(Json::as_str).unwrap_or_default()
    }
}

/// Of what every JWT has, and not of what is NATS's in it: so do the other tools.
fn digest(claims: &Claims) -> String {
    #[derive(Serialize)]
    struct Standard<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        exp: Option<u64>,
        iat: u64,
        iss: &'a str,
        name: &'a str,
        sub: &'a str,
    }
    let Claims { exp, iat, iss, name, sub, .. } = claims;
    let json = serde_json::to_vec(&Standard { exp: *exp, iat: *iat, iss, name, sub });
    BASE32_NOPAD.encode(&Sha512_256::digest(json.expect("claims are JSON")))
}

fn decoded(part: &str) -> Result<Vec<u8>, JwtError> {
    BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| JwtError::Foreign("it is no base64url"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims() -> Claims {
        let subject = KeyPair::new_user();
        Claims {
            jti: String::new(),
            iat: 1_764_000_000,
            exp: None,
            iss: String::new(),
            name: "alice".to_owned(),
            sub: subject.public_key(),
            nats: json!({ "type": "user", "version": 2 }),
        }
    }

    #[test]
    fn a_jwt_reads_back_what_was_signed() {
        let issuer = KeyPair::new_account();
        let read = Claims::read(&claims().sign(&issuer)).unwrap();
        assert_eq!((read.iss.as_str(), read.kind()), (issuer.public_key().as_str(), "user"));
        assert_eq!((read.name.as_str(), read.jti.len()), ("alice", 52));
    }

    /// Written by `nsc` for the examples of the NATS clients; its user is nobody's.
    const BY_NSC: &str = "\
        eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.eyJqdGkiOiJMN1dBT1hJU0tPSUZNM1QyNEhMQ\
        09ENzJRT1czQkNVWEdETjRKVU1SSUtHTlQ3RzdZVFRRIiwiaWF0IjoxNjUxNzkwOTgyLCJpc3MiOiJBRFRRU\
        zdaQ0ZWSk5XNTcyNkdPWVhXNVRTQ1pGTklRU0hLMlpHWVVCQ0Q1RDc3T1ROTE9PS1pPWiIsIm5hbWUiOiJUZ\
        XN0VXNlciIsInN1YiI6IlVBRkhHNkZVRDJVVTRTREZWQUZVTDVMREZPMlhNNFdZTTc2VU5YVFBKWUpLN0VFT\
        VlSQkhUMlZFIiwibmF0cyI6eyJwdWIiOnt9LCJzdWIiOnt9LCJzdWJzIjotMSwiZGF0YSI6LTEsInBheWxvY\
        WQiOi0xLCJ0eXBlIjoidXNlciIsInZlcnNpb24iOjJ9fQ.bp2-Jsy33l4ayF7Ku1MNdJby4WiMKUrG-rSVYG\
        BusAtV3xP4EdCa-zhSNUaBVIL3uYPPCQYCEoM1pCUdOnoJBg";

    #[test]
    fn what_nsc_wrote_is_read_and_its_digest_is_made_as_ours() {
        let read = Claims::read(BY_NSC).unwrap();
        assert_eq!(
            (read.name.as_str(), read.kind(), read.iat),
            ("TestUser", "user", 1_651_790_982)
        );
        assert_eq!(digest(&read), read.jti);
    }

    #[test]
    fn one_changed_letter_is_a_forgery() {
        let jwt = claims().sign(&KeyPair::new_account());
        let (signed, signature) = jwt.rsplit_once('.').unwrap();
        let (header, _) = signed.split_once('.').unwrap();
        let other =
            Claims { name: "bob".to_owned(), iss: Claims::read(&jwt).unwrap().iss, ..claims() };
        let body = BASE64URL_NOPAD.encode(&serde_json::to_vec(&other).unwrap());
        let forged = Claims::read(&format!("{header}.{body}.{signature}")).unwrap_err();
        assert!(matches!(forged, JwtError::Forged { .. }), "{forged}");
        for bad in ["", "a", "a.b", "a.b.c", "....", &jwt[..jwt.len() / 2], "é.é.é"] {
            assert!(Claims::read(bad).is_err(), "{bad}");
        }
    }
}
