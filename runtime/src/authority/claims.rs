//! What our JWTs claim, for each kind of them.

use std::collections::BTreeMap;

use bus_schema::{Root, permission::Role, subject::system};
use nkeys::KeyPair;
use serde_json::{Value as Json, json};

use super::jwt::Claims;

/// The tag of a user that says its role, for people and for `whoami`: the broker goes by the key
/// that signed.
pub(super) const ROLE_TAG: &str = "role:";

/// No limit, as JWTs write it.
const ANY: i64 = -1;
/// More streams than jmp-bus makes; one that runs away meets it.
const STREAMS_MAX: u32 = 256;
/// jmp-bus makes no consumer; these are for the operator's own tools.
const CONSUMERS_MAX: u32 = 256;

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

/// The account that everybody is in, with a signing key for each role.
pub(super) fn account(
    key: &KeyPair,
    root: &Root,
    storage: u64,
    roles: &BTreeMap<Role, KeyPair>,
) -> Claims {
    let mut limits = limits();
    limits["disk_storage"] = storage.into();
    limits["streams"] = STREAMS_MAX.into();
    limits["consumer"] = CONSUMERS_MAX.into();
    let scopes: Vec<_> = roles.iter().map(|(role, key)| scope(*role, key, root)).collect();
    let nats = json!({
        "type": "account",
        "version": 2,
        "limits": limits,
        "signing_keys": scopes,
        "default_permissions": { "pub": {}, "sub": {} },
        "revocations": {},
    });
    claims("JMP", key, nats)
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

/// A user of the system account that may look up and push one account's JWT, and nothing else.
pub(super) fn pusher(key: &KeyPair, system: &str, account: &str) -> Claims {
    let nats = json!({
        "type": "user",
        "version": 2,
        "issuer_account": system,
        "pub": { "allow": [system::CLAIMS_UPDATE, system::claims_lookup(account)] },
        "sub": { "allow": [system::INBOXES] },
        "subs": ANY,
        "data": ANY,
        "payload": ANY,
    });
    claims("authority", key, nats)
}

fn limits() -> Json {
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
