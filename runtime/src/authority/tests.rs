//! An authority without a broker.

use super::*;

fn plan() -> AuthorityPlan {
    AuthorityPlan {
        name: "test".to_owned(),
        root: Root::default(),
        hosts: vec!["localhost".to_owned()],
        port: 4222,
        broker_dir: None,
        data_dir: None,
        storage: 8 << 30,
        certificate: None,
    }
}

fn authority(dir: &Path) -> Authority {
    Authority::create(&dir.join("authority"), &plan()).unwrap()
}

fn add(authority: &mut Authority, role: Role, name: &str) -> User {
    let file = authority.dir.join(format!("{role}-{name}-{}.creds", authority.users().len()));
    let new = NewUser { role, name, lasts: None, again: true, file: &file };
    authority.add(&new).unwrap().user
}

fn revocations(authority: &Authority) -> Vec<String> {
    let claims = authority.account_claims().unwrap();
    claims.nats["revocations"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn one_directory_has_one_authority_and_one_program_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = authority(dir.path());
    let again = Authority::create(&first.dir, &plan()).unwrap_err();
    assert!(matches!(again, AuthorityError::Exists { .. }), "{again}");
    let locked = Authority::open(&first.dir).unwrap_err();
    assert!(matches!(locked, AuthorityError::Locked { .. }), "{locked}");
    let place = first.dir.clone();
    drop(first);
    assert_eq!(Authority::open(&place).unwrap().server(), "tls://localhost:4222");
    let none = Authority::open(dir.path()).unwrap_err();
    assert!(matches!(none, AuthorityError::Missing { .. }), "{none}");
}

#[test]
fn a_user_is_signed_by_its_roles_key_and_carries_no_permissions() {
    let dir = tempfile::tempdir().unwrap();
    let mut authority = authority(dir.path());
    let file = dir.path().join("alice.creds");
    let lasts = Some(Duration::from_secs(60));
    let new = NewUser { role: Role::Client, name: "alice", lasts, again: false, file: &file };
    let user = authority.add(&new).unwrap().user;
    let text = fs::read_to_string(&file).unwrap();
    let claims = Claims::read(jwt_of(&text).unwrap()).unwrap();
    assert_eq!(claims.iss, authority.key("keys/role-client.nk").unwrap().public_key());
    assert_eq!((claims.exp, claims.nats.get("pub")), (Some(claims.iat + 60), None));
    let identity = Identity::of_jwt(jwt_of(&text).unwrap()).unwrap();
    assert_eq!((identity.role, &identity.nkey), (Some(Role::Client), &user.nkey));
    assert_eq!(identity.account, authority.record.account);
    let account = authority.account_claims().unwrap();
    let scopes = account.nats["signing_keys"].as_array().unwrap().clone();
    assert!(scopes.iter().any(|scope| scope["key"] == claims.iss.as_str()), "{scopes:?}");
}

#[test]
fn a_revocation_has_every_key_of_the_name_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut authority = authority(dir.path());
    let keys =
        [add(&mut authority, Role::Client, "alice"), add(&mut authority, Role::Client, "alice")];
    let other = add(&mut authority, Role::Exporter, "alice");
    let ambiguous = authority.revoke("alice", None).unwrap_err();
    assert!(matches!(ambiguous, AuthorityError::Ambiguous { .. }), "{ambiguous}");
    assert_eq!(authority.revoke("alice", Some(Role::Client)).unwrap().len(), 2);
    assert_eq!(authority.revoke("alice", Some(Role::Client)).unwrap().len(), 0);
    let revoked = revocations(&authority);
    assert!(keys.iter().all(|key| revoked.contains(&key.nkey)) && !revoked.contains(&other.nkey));
    let place = authority.dir.clone();
    drop(authority);
    let again = Authority::open(&place).unwrap();
    assert_eq!(again.users().iter().filter(|user| user.is_valid()).count(), 1);
}

#[test]
fn a_push_keeps_what_another_copy_has_revoked_and_is_newer() {
    let dir = tempfile::tempdir().unwrap();
    let mut authority = authority(dir.path());
    let (alice, bob) =
        (add(&mut authority, Role::Client, "alice"), add(&mut authority, Role::Client, "bob"));
    authority.revoke("alice", None).unwrap();
    let mut theirs = authority.account_claims().unwrap();
    theirs.nats["revocations"] = serde_json::json!({ (&bob.nkey): bob.issued });
    theirs.iat += 1000;
    let theirs = theirs.sign(&authority.key(OPERATOR_SIGNING).unwrap());
    let mut pushed = Pushed::default();
    authority.catch_up(Some(&theirs), &mut pushed).unwrap();
    let revoked = revocations(&authority);
    assert!(revoked.contains(&alice.nkey) && revoked.contains(&bob.nkey), "{revoked:?}");
    assert!(authority.account_claims().unwrap().iat > Claims::read(&theirs).unwrap().iat);
    assert_eq!(pushed, Pushed { learned: 1, foreign: None });
}

#[test]
fn what_the_operator_did_not_sign_is_never_believed() {
    let dir = tempfile::tempdir().unwrap();
    let mut authority = authority(dir.path());
    let bob = add(&mut authority, Role::Client, "bob");
    let mut forged = authority.account_claims().unwrap();
    forged.nats["revocations"] = serde_json::json!({ (&bob.nkey): bob.issued });
    let forged = forged.sign(&KeyPair::new_operator());
    for there in [forged.as_str(), "garbage"] {
        let mut pushed = Pushed::default();
        authority.catch_up(Some(there), &mut pushed).unwrap();
        assert!(pushed.foreign.is_some() && pushed.learned == 0, "{pushed:?}");
        assert!(revocations(&authority).is_empty());
    }
    // Nor is such a JWT ever pushed, should it lie here.
    fs::write(authority.dir.join(ACCOUNT_JWT), &forged).unwrap();
    let damaged = authority.account_claims().unwrap_err();
    assert!(matches!(damaged, AuthorityError::Damaged { .. }), "{damaged}");
}

#[test]
fn a_role_is_outdated_when_its_permissions_are_not_this_programs() {
    let dir = tempfile::tempdir().unwrap();
    let mut authority = authority(dir.path());
    assert!(authority.outdated().unwrap().is_empty());
    authority
        .sign_account(|claims| {
            let scopes = claims.nats["signing_keys"].as_array_mut().unwrap();
            let client = scopes.iter_mut().find(|scope| scope["role"] == "client").unwrap();
            client["template"]["pub"]["allow"] = serde_json::json!(["x"]);
        })
        .unwrap();
    let client = Outdated { roles: vec![Role::Client], store: false };
    assert_eq!(authority.outdated().unwrap(), client);
    authority.renew().unwrap();
    assert!(authority.outdated().unwrap().is_empty());
}

#[test]
fn an_authority_of_a_time_without_a_store_gets_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut authority = authority(dir.path());
    let storage = authority.store_claims().unwrap().nats["limits"]["disk_storage"].clone();
    authority.record.store = None;
    authority
        .sign_account(|claims| {
            claims.nats.as_object_mut().unwrap().remove("imports");
            claims.nats["limits"]["disk_storage"] = storage.clone();
        })
        .unwrap();
    for file in [STORE, STORE_JWT] {
        fs::remove_file(authority.dir.join(file)).unwrap();
    }
    assert_eq!(authority.outdated().unwrap(), Outdated { roles: vec![], store: true });
    authority.renew().unwrap();
    assert!(authority.outdated().unwrap().is_empty());
    assert_eq!(authority.store_claims().unwrap().nats["limits"]["disk_storage"], storage);
    let account = authority.account_claims().unwrap();
    assert!(account.nats["limits"].get("disk_storage").is_none(), "JetStream is the store's");
    let conf = fs::read_to_string(authority.dir.join(AUTHORITY_CONF)).unwrap();
    assert!(conf.contains(&format!("  {}: ", authority.record.store.clone().unwrap())), "{conf}");
}

/// nats-server carries on with an answer under the subject that the broker made for it, as long as
/// the import has a wildcard: the answer then matches nothing there. A literal one would take it.
#[test]
fn every_import_of_the_store_has_a_wildcard() {
    let imports = claims::imports(&Root::default(), "A");
    for import in imports.as_array().unwrap() {
        let subject = import["subject"].as_str().unwrap();
        assert!(subject.contains(['*', '>']), "{subject}");
    }
}
