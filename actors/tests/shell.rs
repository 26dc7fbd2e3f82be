//! Configured scripts, over the bus.

use std::{collections::BTreeMap, path::Path, time::Duration};

use actors::{Script, ScriptsClient, Shell, ShellConfig, ShellOutput};
use anyhow::{Error, Result};
use bus_schema::{FaultKind, Invoke as _, Outgoing, RefusalCode};
use runtime::{CallError, DriverRef, ItemStream, Served, serve};
use tempfile::TempDir;

/// Scripts that run in a directory of their own.
struct Lab {
    dir: TempDir,
    served: Served,
}

impl Lab {
    async fn new(methods: &[(&str, &str)]) -> Result<Self> {
        Self::with_timeout(methods, Duration::from_secs(300)).await
    }

    async fn with_timeout(methods: &[(&str, &str)], timeout: Duration) -> Result<Self> {
        let dir = TempDir::new()?;
        let script = |(name, text): &(&str, &str)| ((*name).to_owned(), Script::new(*text));
        let config = ShellConfig {
            methods: methods.iter().map(script).collect(),
            shell: ["bash", "-c"].map(str::to_owned).to_vec(),
            timeout,
            cwd: Some(dir.path().to_owned()),
        };
        let served = serve(Shell::new(config)?).await.map_err(Error::from_boxed)?;
        Ok(Self { dir, served })
    }

    fn shell(&self) -> ScriptsClient<DriverRef> {
        ScriptsClient::new(self.served.driver())
    }

    async fn run(&self, method: &str) -> Result<ItemStream<ShellOutput>, CallError> {
        self.shell().call_method(method.to_owned(), BTreeMap::new(), Vec::new()).await
    }
}

/// All that a script said, and how it ended.
#[derive(Debug, Default, PartialEq)]
struct Said {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    exit_code: Option<i64>,
}

async fn all(mut items: ItemStream<ShellOutput>) -> Result<Said, CallError> {
    let mut said = Said::default();
    while let Some(item) = items.next().await {
        let ShellOutput { stdout, stderr, exit_code } = item?;
        assert_eq!(said.exit_code, None, "the exit code comes last");
        said.stdout.extend(stdout.unwrap_or_default());
        said.stderr.extend(stderr.unwrap_or_default());
        said.exit_code = exit_code;
    }
    Ok(said)
}

#[tokio::test]
async fn a_script_is_a_method_with_both_outputs_and_an_exit_code() -> Result<()> {
    let lab = Lab::new(&[("greet", "echo \"$0 $1 $BOARD\"; echo oh >&2; exit 3")]).await?;
    let env = BTreeMap::from([("BOARD", "rpi4")]);
    let out = Outgoing::new("greet", None, &(env, ["you"]));
    let said = all(lab.served.driver().streaming_call(out).await?).await?;
    let wanted =
        Said { stdout: b"greet you rpi4\n".to_vec(), stderr: b"oh\n".to_vec(), exit_code: Some(3) };
    assert_eq!(said, wanted);
    assert_eq!(lab.shell().get_methods().await?, ["greet"]);
    lab.served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn the_signal_that_ended_a_script_is_told_as_python_does() -> Result<()> {
    let lab = Lab::new(&[("die", "kill -9 $$")]).await?;
    assert_eq!(all(lab.run("die").await?).await?.exit_code, Some(-9));
    lab.served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_mebibyte_on_each_output_arrives_whole() -> Result<()> {
    let script = "head -c 1048576 /dev/zero >&2 & head -c 1048576 /dev/zero; wait";
    let lab = Lab::new(&[("much", script)]).await?;
    let said = all(lab.run("much").await?).await?;
    assert_eq!((said.stdout.len(), said.stderr.len()), (1 << 20, 1 << 20));
    assert_eq!(said.exit_code, Some(0));
    lab.served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn output_comes_as_it_is_written_and_not_at_the_end() -> Result<()> {
    let lab =
        Lab::new(&[("wait", "echo ready; while ! test -e go; do :; done; echo done")]).await?;
    let mut items = lab.run("wait").await?;
    let first = items.next().await.expect("an item")?;
    assert_eq!(first.stdout.as_deref(), Some(&b"ready\n"[..]));
    std::fs::write(lab.dir.path().join("go"), "")?;
    let rest = all(items).await?;
    assert_eq!((rest.stdout.as_slice(), rest.exit_code), (&b"done\n"[..], Some(0)));
    lab.served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_daemon_that_holds_the_output_open_keeps_nobody_waiting() -> Result<()> {
    let lab = Lab::new(&[("fork", "setsid sleep 1000 & echo $! >pid; echo up")]).await?;
    let said = all(lab.run("fork").await?).await?;
    assert_eq!((said.stdout.as_slice(), said.exit_code), (&b"up\n"[..], Some(0)));
    let pid = pid(lab.dir.path()).await?;
    let status = std::process::Command::new("kill").arg(pid.to_string()).status()?;
    assert!(status.success(), "it was left running, as it asked for");
    until_gone(pid).await;
    lab.served.shutdown().await?;
    Ok(())
}

async fn pid(dir: &Path) -> Result<i32> {
    loop {
        match std::fs::read_to_string(dir.join("pid")) {
            Ok(text) if text.ends_with('\n') => return Ok(text.trim().parse()?),
            _ => tokio::task::yield_now().await,
        }
    }
}

async fn until_gone(id: i32) {
    let stat = || std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    while !stat().is_empty() && !stat().contains(") Z ") {
        tokio::task::yield_now().await;
    }
}

const STUBBORN: &str = "trap '' TERM; (trap '' TERM; exec sleep 1000) & echo $! >pid; wait; wait";

#[tokio::test]
async fn a_script_past_its_time_is_killed_with_what_it_started() -> Result<()> {
    let lab = Lab::with_timeout(&[("hang", STUBBORN)], Duration::from_millis(500)).await?;
    let error = all(lab.run("hang").await?).await.unwrap_err();
    let CallError::Fault { fault, .. } = &error else { panic!("{error}") };
    assert_eq!(fault.kind, FaultKind::Timeout);
    assert!(fault.text.contains("hang did not end within 500ms"), "{fault}");
    until_gone(pid(lab.dir.path()).await?).await;
    lab.served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_script_whose_caller_is_gone_is_killed_with_what_it_started() -> Result<()> {
    let lab = Lab::new(&[("hang", STUBBORN)]).await?;
    let items = lab.run("hang").await?;
    let pid = pid(lab.dir.path()).await?;
    drop(items);
    until_gone(pid).await;
    lab.served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_variable_that_changes_what_is_run_is_refused_before_anything_is() -> Result<()> {
    let lab = Lab::new(&[("touch", "touch ran")]).await?;
    let env = BTreeMap::from([("LD_PRELOAD", "/tmp/x.so")]);
    let out = Outgoing::new("touch", None, &(env, [""; 0]));
    let refused = lab.served.driver().streaming_call::<ShellOutput>(out).await;
    let Err(CallError::Refused { refusal, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.code, RefusalCode::BadArguments);
    assert!(refusal.text.contains("LD_PRELOAD"), "{refusal}");

    let env = BTreeMap::from([("PATH".to_owned(), "/tmp".to_owned())]);
    let said = match lab.shell().call_method("touch".to_owned(), env, Vec::new()).await {
        Ok(items) => all(items).await.unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(said.contains("\"PATH\" may not be set"), "{said}");
    assert!(!lab.dir.path().join("ran").exists());
    lab.served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn an_unknown_method_is_answered_with_those_there_are() -> Result<()> {
    let lab = Lab::new(&[("ls", "ls")]).await?;
    let said = match lab.run("sl").await {
        Ok(items) => all(items).await.unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(said.contains("no method \"sl\": there are ls"), "{said}");
    lab.served.shutdown().await?;
    Ok(())
}
