//! What our JWTs claim, for each kind of them.

use std::{collections::BTreeMap, time::Duration};

use bus_schema::{
    Root,
    permission::Role,
    subject::{JETSTREAM_REQUESTS, system},
};
use nkeys::KeyPair;
use serde_json::{Value as Json, json};

use super::jwt::Claims;
use crate::bus::captured;

/// The tag of a user that says its role, for people and for `whoami`: the broker goes by the key
/// that signed.
pub(super) const ROLE_TAG: &str = "role:";

/// No limit, as JWTs write it.
const ANY: i64 = -1;
/// More streams than jmp-bus makes; one that runs away meets it.
const STREAMS_MAX: u32 = 256;
/// jmp-bus makes no consumer; these are for the operator's own tools.
const CONSUMERS_MAX: u32 = 256;
/// How long the broker remembers where an answer of JetStream goes: what is asked for many messages
/// is idle for that long only at its end.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// The operator.
pub(super) fn operator(name: &str, key: &KeyPair, signing: &KeyPair, system: &KeyPair) -> Claims {
    let nats = json!({
        "type": "operator",
        "version": 2,
        "signing_keys": [signing.public_key()],
        "system_account": system.public_key(),
        "strict_signing_key_usage": true,
    });
    claims(name, key, nats)
}

/// The system account. Under strict usage it has a signing key of its own.
pub(super) fn system_account(key: &KeyPair, signing: &KeyPair) -> Claims {
    let nats = json!({
        "type": "account",
        "version": 2,
        "signing_keys": [signing.public_key()],
        "limits": limits(),
        "default_permissions": { "pub": {}, "sub": {} },
    });
    claims("SYS", key, nats)
}

/// The account that everybody is in, with a signing key for each role. Its JetStream is that of
/// the store account.
pub(super) fn account(
    key: &KeyPair,
    root: &Root,
    store: &str,
    roles: &BTreeMap<Role, KeyPair>,
) -> Claims {
    let scopes: Vec<_> = roles.iter().map(|(role, key)| scope(*role, key, root)).collect();
    let nats = json!({
        "type": "account",
        "version": 2,
        "limits": limits(),
        "imports": imports(root, store),
        "signing_keys": scopes,
        "default_permissions": { "pub": {}, "sub": {} },
        "revocations": {},
    });
    claims("JMP", key, nats)
}

/// The account that JetStream is in. No key signs users of it.
///
/// JetStream answers on whatever subject its asker names. Where it lives with those who ask, that
/// is as good as publishing there; an answer to another account can be heard there, and comes back
/// neither as a request nor into a stream.
pub(super) fn store(key: &KeyPair, root: &Root, storage: u64) -> Claims {
    let mut limits = limits();
    limits["disk_storage"] = storage.into();
    limits["streams"] = STREAMS_MAX.into();
    limits["consumer"] = CONSUMERS_MAX.into();
    let nats = json!({
        "type": "account",
        "version": 2,
        "limits": limits,
        "exports": exports(root),
        "default_permissions": { "pub": {}, "sub": {} },
    });
    claims("STORE", key, nats)
}

/// What the store does for others, as patterns, and whether one request may have several answers:
/// it answers JetStream's requests, and keeps what its streams capture.
fn services(root: &Root) -> impl Iterator<Item = (String, bool)> {
    let requests = JETSTREAM_REQUESTS.map(|(subject, many)| (subject.to_owned(), many));
    requests.into_iter().chain(captured(root).into_iter().map(|subject| (subject, false)))
}

pub(super) fn exports(root: &Root) -> Json {
    let export = |(subject, many): (String, bool)| {
        json!({
            "name": subject,
            "subject": subject,
            "type": "service",
            "response_type": if many { "Stream" } else { "Singleton" },
            "response_threshold": u64::try_from(ANSWERED_WITHIN.as_nanos()).unwrap_or(u64::MAX),
        })
    };
    services(root).map(export).collect()
}

pub(super) fn imports(root: &Root, store: &str) -> Json {
    let import = |(subject, _): (String, bool)| json!({ "name": subject, "subject": subject, "account": store, "type": "service" });
    services(root).map(import).collect()
}

/// What a role's key may sign: users with these permissions and no others.
pub(super) fn scope(role: Role, key: &KeyPair, root: &Root) -> Json {
    let mut template = role.template(root).to_jwt();
    template["subs"] = ANY.into();
    template["data"] = ANY.into();
    template["payload"] = ANY.into();
    // A leaf node that came with a user's credentials would make everybody behind it that user.
    template["allowed_connection_types"] = match role {
        Role::Leaf => json!(["LEAFNODE"]),
        Role::Client | Role::Observer | Role::Admin | Role::Exporter => {
            json!(["STANDARD", "WEBSOCKET"])
        }
    };
    json!({
        "kind": "user_scope",
        "key": key.public_key(),
        "role": role.as_str(),
        "template": template,
    })
}

/// A user of a role. It carries no permissions: the broker refuses one that does.
pub(super) fn user(name: &str, key: &KeyPair, role: Role, account: &str) -> Claims {
    let nats = json!({
        "type": "user",
        "version": 2,
        "issuer_account": account,
        "tags": [format!("{ROLE_TAG}{role}")],
    });
    claims(name, key, nats)
}

/// A user of the system account that may look up and push these accounts' JWTs, and nothing else.
pub(super) fn pusher(key: &KeyPair, system: &str, accounts: &[&str]) -> Claims {
    let lookups = accounts.iter().map(|account| system::claims_lookup(account));
    let publish: Vec<_> = lookups.chain([system::CLAIMS_UPDATE.to_owned()]).collect();
    let nats = json!({
        "type": "user",
        "version": 2,
        "issuer_account": system,
        "pub": { "allow": publish },
        "sub": { "allow": [system::INBOXES] },
        "subs": ANY,
        "data": ANY,
        "payload": ANY,
    });
    claims("authority", key, nats)
}

/// None; JetStream is only what an account has limits for.
pub(super) fn limits() -> Json {
    json!({
        "subs": ANY, "data": ANY, "payload": ANY, "imports": ANY, "exports": ANY,
        "wildcards": true, "conn": ANY, "leaf": ANY,
    })
}

fn claims(name: &str, subject: &KeyPair, nats: Json) -> Claims {
    Claims {
        exp: None,
        jti: String::new(),
        iat: super::now(),
        iss: String::new(),
        name: name.to_owned(),
        sub: subject.public_key(),
        nats,
    }
}
