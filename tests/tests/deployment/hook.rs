//! A hook uses the drivers of its exporter with the exporter's own credentials, and nothing else.

use std::{path::PathBuf, time::Duration};

use bus_schema::{Address, HookId, RefusalCode, permission::Role};
use bus_tests::{Deployment, TestDriver, TestDriverClient};
use runtime::{CallError, Client, Exporter, ExporterConfig, Hook, HookFailure, LeaseRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::life::client;

const GRACE: Duration = Duration::from_secs(10);

/// A script that says which hook it is, and runs until there is a file `go`.
fn waiting(deployment: &Deployment) -> Hook {
    let dir = deployment.dir.path().display();
    let script = format!(
        "echo ${{JMP_BUS_HOOK#bench:}} > {dir}/new; mv {dir}/new {dir}/hook; \
         while ! [ -e {dir}/go ]; do sleep 0.02; done"
    );
    let (exec, timeout) = (PathBuf::from("/bin/sh"), Duration::from_secs(20));
    Hook { script, exec, timeout, on_failure: HookFailure::EndLease }
}

async fn hook_of(deployment: &Deployment) -> anyhow::Result<HookId> {
    let file = deployment.dir.path().join("hook");
    while !file.exists() {
        tokio::task::yield_now().await;
    }
    Ok(std::fs::read_to_string(file)?.trim().parse()?)
}

fn refusal(error: CallError) -> RefusalCode {
    match error {
        CallError::Refused { refusal, .. } => refusal.code,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_hook_calls_and_streams_with_its_exporters_credentials_until_it_ends()
-> anyhow::Result<()> {
    let deployment = Deployment::start().await?;
    let driver = TestDriver::new(deployment.dir.path().join("count"));
    let mut config = ExporterConfig {
        root: deployment.root.clone(),
        ..ExporterConfig::new("bench".parse()?, driver.into())
    };
    config.hooks.before = Some(waiting(&deployment));
    let settings = deployment.settings(Role::Exporter, "bench")?;
    let exporter = Exporter::start(config, settings.clone()).await?;
    let alice = client(&deployment, Role::Client, "alice").await?;
    let address: Address = "bench".parse()?;
    let request = LeaseRequest::default();
    let leasing = alice.lease(&address, &request);
    let as_hook = async {
        let id = hook_of(&deployment).await?;
        let root = deployment.root.clone();
        let hook = Client::connect_as_hook(settings.clone(), root, "bench".parse()?, id).await?;
        let bench = TestDriverClient::new(hook.driver(&address));
        assert_eq!(bench.echo("hello".into()).await?, "hello");
        let mut stream = bench.reflect().await?;
        stream.write_all(b"x").await?;
        assert_eq!(stream.read_u8().await?, b'x');
        let mut numbers = bench.numbers(3).await?;
        assert_eq!(numbers.next().await.transpose()?, Some(0));
        // Another process that is no part of it, and the holder: not yet.
        let root = deployment.root.clone();
        let id = HookId(id.0 ^ 1);
        let other = Client::connect_as_hook(settings.clone(), root, "bench".parse()?, id).await?;
        let stranger = TestDriverClient::new(other.driver(&address));
        let refused = stranger.echo("x".into()).await.unwrap_err();
        assert_eq!(refusal(refused), RefusalCode::NotLeased);
        let holder = TestDriverClient::new(alice.driver(&address));
        let refused = holder.echo("x".into()).await.unwrap_err();
        assert_eq!(refusal(refused), RefusalCode::NotLeased);

        std::fs::write(deployment.dir.path().join("go"), "")?;
        assert!(stream.read_u8().await.is_err(), "it is cut");
        let refused = bench.echo("x".into()).await.unwrap_err();
        assert_eq!(refusal(refused), RefusalCode::NotLeased);
        anyhow::Ok(())
    };
    let (held, as_hook) = tokio::join!(leasing, as_hook);
    as_hook?;
    held?.release().await?;
    // Nothing of this is anybody else's: another exporter is denied it by the broker.
    let rogue = deployment.settings(Role::Exporter, "rogue")?;
    let (root, id) = (deployment.root.clone(), HookId(1));
    let rogue = Client::connect_as_hook(rogue, root, "bench".parse()?, id).await?;
    let refused = TestDriverClient::new(rogue.driver(&address)).echo("x".into()).await;
    assert!(matches!(refused, Err(CallError::NotAllowed { .. })), "{refused:?}");
    exporter.shutdown(GRACE).await?;
    Ok(())
}
