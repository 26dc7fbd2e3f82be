//! Who is let in.

use std::{fs, time::Duration};

use async_nats::ConnectOptions;
use bus_schema::permission::Role;
use bus_tests::Deployment;
use runtime::{BusError, Client, Settings, TurnedAway};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(20);

async fn connect(deployment: &Deployment, settings: Settings) -> Result<Client, BusError> {
    Client::connect(settings, deployment.root.clone(), "alice".parse().expect("a name")).await
}

#[tokio::test]
async fn nobody_is_let_in_without_credentials_or_with_somebody_elses() -> anyhow::Result<()> {
    let deployment = Deployment::start().await?;
    let nobody = connect(&deployment, deployment.place()).await.unwrap_err();
    assert!(matches!(nobody, BusError::TurnedAway(TurnedAway::Unknown)), "{nobody}");

    // Credentials of another fleet's authority, for a client of the same name.
    let other = Deployment::start().await?;
    let strange =
        Settings { auth: other.settings(Role::Client, "alice")?.auth, ..deployment.place() };
    let stranger = connect(&deployment, strange).await.unwrap_err();
    assert!(matches!(stranger, BusError::TurnedAway(TurnedAway::Unknown)), "{stranger}");

    // A JWT that gives itself more than its role, or another name, is not what was signed.
    let creds = fs::read_to_string(deployment.creds(Role::Client, "alice")?)?;
    let bob = fs::read_to_string(deployment.creds(Role::Client, "bob")?)?;
    let jwt = |creds: &str| creds.lines().nth(1).unwrap_or_default().to_owned();
    let mixed = creds.replace(&jwt(&creds), &jwt(&bob));
    assert!(deployment.nats_with(&mixed, "mallory").await.is_err(), "bob's JWT with alice's seed");
    assert!(deployment.log().contains("authentication error"), "{}", deployment.log());
    Ok(())
}

#[tokio::test]
async fn without_tls_nobody_gets_anywhere() -> anyhow::Result<()> {
    let deployment = Deployment::start().await?;
    // Whoever speaks plainly is cut off before it could say who it is.
    let mut plain = BufReader::new(TcpStream::connect(&deployment.address).await?);
    let mut info = String::new();
    plain.read_line(&mut info).await?;
    assert!(info.contains("\"tls_required\":true"), "{info}");
    plain.write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n").await?;
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, plain.read_to_end(&mut rest)).await?; // a reset is an end, too
    assert!(!String::from_utf8_lossy(&rest).contains("PONG"), "{rest:?}");

    // A URL without tls:// is served encrypted or not at all.
    let servers = vec![format!("nats://{}", deployment.address)];
    let settings = Settings { servers, ..deployment.settings(Role::Client, "alice")? };
    connect(&deployment, settings.clone()).await?.close().await;
    let untrusting = Settings { tls: runtime::Tls::default(), ..settings };
    let refused = connect(&deployment, untrusting).await.unwrap_err();
    assert!(refused.is_about_tls(), "{refused}");

    // And the other way round: TLS is asked for where there is none.
    let local = runtime::LocalBroker::shared().await?;
    let wanted = Settings {
        servers: vec![local.url().replace("nats://", "tls://")],
        ..local.connect_settings()
    };
    let refused = connect(&deployment, wanted).await.unwrap_err();
    assert!(matches!(refused, BusError::Connect { .. }), "{refused}");
    Ok(())
}

#[tokio::test]
async fn credentials_end_when_they_say() -> anyhow::Result<()> {
    let deployment = Deployment::start().await?;
    let file = deployment.dir.path().join("brief.creds");
    deployment.issue(Role::Client, "brief", Some(Duration::from_secs(2)), &file)?;
    let creds = fs::read_to_string(&file)?;
    let (told, mut ends) = tokio::sync::mpsc::channel(8);
    let options = ConnectOptions::with_credentials(&creds)?
        .add_root_certificates(deployment.dir.path().join("authority/ca.pem"))
        .event_callback(move |event| {
            let _ = told.try_send(event.to_string()); // a test that does not look has failed
            std::future::ready(())
        });
    let _live = options.connect(format!("tls://{}", deployment.address)).await?;
    let ended = async {
        while let Some(event) = ends.recv().await {
            if event.contains("Expired") {
                return;
            }
        }
    };
    timeout(PATIENCE, ended).await?;
    // The broker counts whole seconds: the last one is over soon.
    let refused = async { while deployment.nats_with(&creds, "brief").await.is_ok() {} };
    timeout(PATIENCE, refused).await?;
    Ok(())
}

#[tokio::test]
async fn a_revocation_cuts_the_revoked_and_nobody_else() -> anyhow::Result<()> {
    let deployment = Deployment::start().await?;
    let alice = connect(&deployment, deployment.settings(Role::Client, "alice")?).await?;
    let bob = deployment.nats(Role::Client, "bob").await?;
    let connects = bob.statistics().connects.load(std::sync::atomic::Ordering::Relaxed);
    let place = deployment.place();
    let mut authority = deployment.authority().await;
    assert_eq!(authority.revoke("alice", None)?.len(), 1);
    let pushed = authority.push(&place).await?;
    drop(authority);
    assert_eq!((pushed.learned, pushed.foreign), (0, None));
    // The next call says so at once, however long its deadline is.
    let nobody = "nobody".parse()?;
    let refused = loop {
        match alice.ping(&nobody, PATIENCE).await {
            Err(runtime::CallError::NoDriver { .. }) => {} // not cut yet
            other => break other.unwrap_err(),
        }
    };
    assert!(matches!(refused, runtime::CallError::TurnedAway(TurnedAway::Revoked)), "{refused}");
    assert!(!refused.may_have_acted());
    let again = connect(&deployment, deployment.settings(Role::Client, "alice")?).await;
    assert!(matches!(again, Err(BusError::TurnedAway(_))));
    let own = "jmp.v1.i.bob.1.0000000000000001".to_owned();
    bus_tests::settled(&bob, own).await?;
    assert_eq!(bob.statistics().connects.load(std::sync::atomic::Ordering::Relaxed), connects);
    Ok(())
}

#[tokio::test]
async fn a_bad_jwt_in_the_resolver_is_found_and_replaced() -> anyhow::Result<()> {
    let deployment = Deployment::start().await?;
    let place = deployment.place();
    // An older JWT of the account, as a copy of the authority's directory has it: without what
    // was revoked since.
    let jwt = deployment.dir.path().join("authority/jwt/account.jwt");
    let old = fs::read_to_string(&jwt)?;
    deployment.creds(Role::Client, "alice")?;
    let mut authority = deployment.authority().await;
    authority.revoke("alice", None)?;
    authority.push(&place).await?;
    fs::write(&jwt, old)?;
    let pushed = authority.push(&place).await?;
    assert_eq!(pushed.learned, 1, "the broker's revocation is kept");
    drop(authority);
    assert!(deployment.nats(Role::Client, "alice").await.is_err(), "alice stays revoked");
    assert!(deployment.nats(Role::Client, "bob").await.is_ok());
    Ok(())
}
