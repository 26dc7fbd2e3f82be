//! What wins, what is refused, and what is never shown.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::*;

#[test]
fn nobody_named_a_broker() {
    let settings = Settings::resolve(Sources::default()).unwrap();
    assert!(settings.servers.is_empty() && settings.auth == Auth::None);
    assert!(!settings.is_loopback() && !settings.tls.is_required());
}

#[test]
fn flags_win_over_environment_and_environment_over_context() {
    let home = Home::with("lab", r#"{"url":"nats://c","inbox_prefix":"ctx","token":"c"}"#);
    home.select("lab");
    let flags = |server: &str| Flags { server: Some(server.into()), ..Flags::default() };

    let settings = home.resolve(Flags::default(), Flags::default()).unwrap();
    assert_eq!(settings.servers, ["nats://c"]);
    let settings = home.resolve(Flags::default(), flags("e")).unwrap();
    assert_eq!(settings.servers, ["nats://e"]);
    let settings = home.resolve(flags("f"), flags("e")).unwrap();
    assert_eq!(settings.servers, ["nats://f"]);
    assert_eq!(settings.inbox_prefix.as_deref(), Some("ctx"), "other fields come from below");
    assert_eq!(settings.auth, token("c"));
}

#[test]
fn the_strongest_source_that_says_who_we_are_says_all_of_it() {
    let home = Home::with("lab", r#"{"url":"c","user":"alice","password":"p"}"#);
    home.select("lab");
    let creds = home.secret("me.creds", 0o600);
    let environment = Flags { token: Some("e".into()), ..Flags::default() };
    let settings = home.resolve(Flags::default(), environment.clone()).unwrap();
    assert_eq!(settings.auth, token("e"));
    let flags = Flags { creds: Some(creds.clone()), ..Flags::default() };
    let settings = home.resolve(flags, environment).unwrap();
    assert_eq!(settings.auth, Auth::Creds(creds));
}

#[test]
fn a_password_may_stay_out_of_the_context() {
    let home = Home::with("lab", r#"{"user":"alice"}"#);
    home.select("lab");
    let environment = Flags { password: Some("p".into()), ..Flags::default() };
    let settings = home.resolve(Flags::default(), environment).unwrap();
    assert_eq!(settings.auth, user("alice", "p"));
    assert_eq!(settings.servers, ["nats://127.0.0.1:4222"]);
}

#[test]
fn a_password_may_stay_out_of_the_command_line_but_is_not_borrowed_from_a_context() {
    let home = Home::with("lab", r#"{"user":"alice","password":"p"}"#);
    home.select("lab");
    let bob = Flags { user: Some("bob".into()), ..Flags::default() };
    let settings = home.resolve(bob.clone(), Flags::default()).unwrap();
    assert_eq!(settings.auth, token("bob"));
    let environment = Flags { password: Some("e".into()), ..Flags::default() };
    assert_eq!(home.resolve(bob, environment).unwrap().auth, user("bob", "e"));
}

#[test]
fn a_user_without_a_password_is_a_token() {
    let flags = Flags { user: Some("t".into()), ..Flags::default() };
    assert_eq!(Home::empty().resolve(flags, Flags::default()).unwrap().auth, token("t"));
    let flags = Flags { password: Some("p".into()), ..Flags::default() };
    let refused = Home::empty().resolve(flags, Flags::default()).unwrap_err();
    assert_eq!(refused.to_string(), "the flags give password without user; they go together");
}

#[test]
fn two_proofs_at_a_time_are_refused() {
    let flags = Flags { token: Some("t".into()), user: Some("u".into()), ..Flags::default() };
    let refused = Home::empty().resolve(flags, Flags::default()).unwrap_err();
    assert_eq!(refused.to_string(), "the flags give both user and token; one of them is enough");
}

#[test]
fn a_named_context_wins_over_the_selected_one() {
    let home = Home::with("lab", r#"{"url":"lab"}"#);
    home.context("desk", r#"{"url":"desk"}"#);
    home.select("lab");
    let named = |name: &str| Flags { context: Some(name.into()), ..Flags::default() };
    let settings = home.resolve(Flags::default(), named("desk")).unwrap();
    assert_eq!(settings.servers, ["nats://desk"]);
    let settings = home.resolve(named("lab"), named("desk")).unwrap();
    assert_eq!(settings.servers, ["nats://lab"]);

    let refused = home.resolve(named("dsk"), Flags::default()).unwrap_err();
    assert!(refused.to_string().ends_with("there is desk, lab"), "{refused}");
    for bad in ["../lab", "a/b", "", ".."] {
        let refused = home.resolve(named(bad), Flags::default()).unwrap_err();
        assert!(matches!(refused, SettingsError::ContextName { .. }), "{refused}");
    }
}

#[test]
fn every_field_of_a_context_that_matters_is_read() {
    let home = Home::empty();
    let nkey = home.secret("user.nk", 0o600);
    for file in ["ca.pem", "cert.pem", "key.pem"] {
        home.secret(file, 0o600);
    }
    home.context(
        "lab",
        r#"{"description":"other tools own this file","url":"tls://one,two:4333","token":"",
            "user":"","creds":"","nkey":"~/user.nk","user_jwt":"a.b.c","ca":"~/ca.pem",
            "cert":"~/cert.pem","key":"~/key.pem","tls_first":true,"inbox_prefix":"_INBOX_me",
            "jetstream_domain":"hub","jetstream_api_prefix":"","nsc":"","socks_proxy":"",
            "color_scheme":"dark","windows_ca_certs_match":null}"#,
    );
    home.select("lab\n");
    let settings = home.resolve(Flags::default(), Flags::default()).unwrap();
    assert_eq!(settings.servers, ["tls://one", "nats://two:4333"]);
    assert_eq!(settings.auth, Auth::Jwt { jwt: Secret::new("a.b.c"), seed: Some(nkey) });
    let file = |name: &str| Some(home.dir.path().join(name));
    let tls = Tls { ca: file("ca.pem"), cert: file("cert.pem"), key: file("key.pem"), first: true };
    assert_eq!(settings.tls, tls);
    assert!(settings.tls.is_required());
    assert_eq!(settings.inbox_prefix.as_deref(), Some("_INBOX_me"));
    assert_eq!(settings.jetstream_domain.as_deref(), Some("hub"));
    assert_eq!(settings.warnings, []);
}

#[test]
fn what_is_not_done_is_refused_and_the_field_named() {
    for (field, text) in [
        ("nsc", r#"{"nsc":"nsc://operator/account/user"}"#),
        ("socks_proxy", r#"{"socks_proxy":"socks5://proxy"}"#),
        ("jetstream_api_prefix", r#"{"jetstream_api_prefix":"js.hub"}"#),
    ] {
        let home = Home::with("lab", text);
        home.select("lab");
        let refused = home.resolve(Flags::default(), Flags::default()).unwrap_err();
        assert!(refused.to_string().contains(&format!("lab.json has {field},")), "{refused}");
    }
}

#[test]
fn a_damaged_context_is_reported_without_its_text() {
    let home = Home::with("lab", r#"{"token": 70733}"#);
    home.select("lab");
    let refused = home.resolve(Flags::default(), Flags::default()).unwrap_err();
    let text = format!("{refused} {refused:?}");
    assert!(text.contains("is damaged at line 1") && !text.contains("70733"), "{text}");
}

#[test]
fn credentials_leave_the_address_of_a_server() {
    let resolve = |server: &str| {
        let flags = Flags { server: Some(server.into()), ..Flags::default() };
        Home::empty().resolve(flags, Flags::default())
    };
    let settings = resolve("nats://alice:p%40ss@one:4222, tls://two/").unwrap();
    assert_eq!(settings.servers, ["nats://one:4222", "tls://two"]);
    assert_eq!(settings.auth, user("alice", "p@ss"));
    assert_eq!(resolve("nats://s3cr3t@one").unwrap().auth, token("s3cr3t"));
    let refused = resolve("nats://a:b@one,nats://c:d@two").unwrap_err();
    assert!(matches!(refused, SettingsError::ServersDisagree { .. }), "{refused}");
}

#[test]
fn credentials_of_a_replaced_server_are_not_used() {
    let home = Home::with("lab", r#"{"url":"nats://s3cr3t@lab"}"#);
    home.select("lab");
    let flags = Flags { server: Some("other".into()), ..Flags::default() };
    assert_eq!(home.resolve(flags, Flags::default()).unwrap().auth, Auth::None);
}

#[test]
fn an_address_that_cannot_be_is_refused_without_its_credentials() {
    for (server, why) in [
        ("nats://s3cr3t@", BadServer::NoHost),
        ("", BadServer::NoHost),
        ("one,,two", BadServer::NoHost),
        ("nats://s3cr3t@one:port", BadServer::Port),
        ("one:70000", BadServer::Port),
        ("one:0", BadServer::Port),
        ("nats://s3cr3t@one/path", BadServer::Path),
        ("wss://s3cr3t@one", BadServer::WebSocket),
        ("nsc://operator/account/user", BadServer::Nsc),
        ("https://s3cr3t@one", BadServer::Scheme),
    ] {
        let flags = Flags { server: Some(server.into()), ..Flags::default() };
        let refused = Home::empty().resolve(flags, Flags::default()).unwrap_err();
        assert!(
            matches!(refused, SettingsError::Server { why: is, .. } if is == why),
            "{server}: {refused}"
        );
        assert!(!format!("{refused} {refused:?}").contains("s3cr3t"), "{refused}");
    }
}

#[test]
fn only_this_machine_is_loopback() {
    let is_loopback = |servers: &str| {
        let flags = Flags { server: Some(servers.into()), ..Flags::default() };
        Home::empty().resolve(flags, Flags::default()).unwrap().is_loopback()
    };
    for local in ["localhost", "nats://LOCALHOST:1", "127.0.0.1:4222", "127.9.9.9", "[::1]:4222"] {
        assert!(is_loopback(local), "{local}");
    }
    for remote in ["localhost.evil", "10.0.0.1", "[::2]:4222", "127.0.0.1,lab", "127.0.0.1.nip.io"]
    {
        assert!(!is_loopback(remote), "{remote}");
    }
}

#[test]
fn a_secret_that_others_can_read_is_worth_a_warning() {
    let home = Home::empty();
    let creds = home.secret("me.creds", 0o644);
    let flags = Flags { creds: Some(creds.clone()), ..Flags::default() };
    let settings = home.resolve(flags, Flags::default()).unwrap();
    let warning = Warning::ReadableByOthers { field: "creds", file: creds, mode: 0o644 };
    assert_eq!(settings.warnings, [warning]);
}

#[test]
fn a_file_that_is_missing_is_named() {
    let flags = Flags { nkey: Some("/nowhere/user.nk".into()), ..Flags::default() };
    let refused = Home::empty().resolve(flags, Flags::default()).unwrap_err();
    assert_eq!(refused.to_string(), "cannot read nkey /nowhere/user.nk");
    let flags = Flags { tlscert: Some("/nowhere/cert.pem".into()), ..Flags::default() };
    let refused = Home::empty().resolve(flags, Flags::default()).unwrap_err();
    assert_eq!(refused.to_string(), "the flags give tlscert without tlskey; they go together");
}

#[test]
fn the_variables_are_those_of_the_nats_cli() {
    let variables = HashMap::from([
        ("NATS_URL", "one"),
        ("NATS_TOKEN", "t"),
        ("NATS_USER", ""),
        ("HOME", "/home/me"),
    ]);
    let look_up = |name: &str| variables.get(name).map(|value| (*value).to_owned());
    let sources = Sources::from_variables(Flags::default(), look_up);
    assert_eq!(sources.config_home.as_deref(), Some(Path::new("/home/me/.config")));
    let expected =
        Flags { server: Some("one".into()), token: Some("t".into()), ..Flags::default() };
    assert_eq!(sources.environment, expected);
}

#[test]
fn debug_shows_no_secret() {
    let text = || Some("s3cr3t".to_owned());
    let flags = Flags { user: text(), password: text(), token: text(), ..Flags::default() };
    let flags = Flags { server: Some("nats://s3cr3t@one".into()), ..flags };
    let sources = Sources { flags, ..Sources::default() };
    let shown = format!("{sources:?}");
    assert!(!shown.contains("s3cr3t"), "{shown}");

    for auth in [
        token("s3cr3t"),
        user("alice", "s3cr3t"),
        Auth::Jwt { jwt: Secret::new("s3cr3t"), seed: None },
    ] {
        let settings = Settings { auth, ..Settings::default() };
        let shown = format!("{settings:?} {:?}", settings.options().unwrap());
        assert!(!shown.contains("s3cr3t"), "{shown}");
    }
}

fn token(text: &str) -> Auth {
    Auth::Token(Secret::new(text))
}

fn user(user: &str, password: &str) -> Auth {
    Auth::UserPassword { user: user.into(), password: Secret::new(password) }
}

/// A home directory with contexts.
struct Home {
    dir: TempDir,
}

impl Home {
    fn empty() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn with(name: &str, context: &str) -> Self {
        let home = Self::empty();
        home.context(name, context);
        home
    }

    fn context(&self, name: &str, text: &str) {
        let dir = self.dir.path().join(".config/nats/context");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("{name}.json")), text).unwrap();
    }

    fn select(&self, name: &str) {
        fs::write(self.dir.path().join(".config/nats/context.txt"), name).unwrap();
    }

    fn secret(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn resolve(&self, flags: Flags, environment: Flags) -> Result<Settings, SettingsError> {
        let home = Some(self.dir.path().to_owned());
        let config_home = Some(self.dir.path().join(".config"));
        Settings::resolve(Sources { flags, environment, config_home, home })
    }
}
