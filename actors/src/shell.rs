//! Scripts of the exporter's host as methods.

use std::{
    collections::BTreeMap,
    future::ready,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use bus_schema::{
    Args, Describe, Failure, Fault, FaultKind, Field, Interface, Kind, Method, MethodName,
    RawContext, RawItems, RawPipe, Refusal, RefusalCode, Serve, Serving, Value, interface,
    refuse_method,
};
use bytes::Bytes;
use runtime::{Context, Items};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::process::{self, Group, KILLED_AFTER, LAST_WORDS, not_started};

mod script;

pub use script::Script;

/// Bytes of output that travel in one item, at most.
const PIECE_BYTES: usize = 32 << 10;

/// Configured scripts, each of which is a method.
///
/// They run side by side, as in Jumpstarter: a script that must be alone says so by `flock`.
#[derive(Debug)]
pub struct Shell {
    config: ShellConfig,
    interface: Arc<Interface>,
}

/// The configuration of a [`Shell`].
#[derive(Clone, Debug, Deserialize, Describe)]
pub struct ShellConfig {
    /// The methods: a script for each name, or {command: script, timeout: 5m, description: text}.
    pub methods: BTreeMap<String, Script>,
    /// What runs a script: it gets the script, the method's name and the arguments.
    #[serde(default = "bash")]
    pub shell: Vec<String>,
    /// How long a method may take that has no timeout of its own.
    #[serde(default = "timeout")]
    pub timeout: Duration,
    /// Directory that the scripts run in.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
}

fn bash() -> Vec<String> {
    ["bash", "-c"].map(str::to_owned).to_vec()
}

fn timeout() -> Duration {
    Duration::from_secs(300)
}

/// Something that a script said, or how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct ShellOutput {
    /// What it wrote to its standard output.
    pub stdout: Option<Bytes>,
    /// What it wrote to its standard error.
    pub stderr: Option<Bytes>,
    /// In the last item: its exit code, or the negative number of the signal that ended it.
    pub exit_code: Option<i64>,
}

/// Runs configured scripts.
#[interface(name = "shell")]
pub trait Scripts {
    /// The names of the configured methods.
    #[method(concurrent)]
    async fn get_methods(&self) -> Vec<String>;

    /// Runs a configured method by its name.
    async fn call_method(
        &self,
        cx: &Context,
        /// One of `get_methods`.
        method: String,
        /// Variables for its environment.
        #[default(BTreeMap::new())]
        env: BTreeMap<String, String>,
        /// Its arguments: `$1` and so on.
        #[default(Vec::new())]
        args: Vec<String>,
        items: Items<ShellOutput>,
    ) -> Result<(), Fault>;
}

impl Shell {
    /// One with these methods.
    ///
    /// # Errors
    ///
    /// A fault that says what is wrong in the configuration: a name that no method can have, or a
    /// shell without a program.
    pub fn new(config: ShellConfig) -> Result<Self, Fault> {
        process::command(&config.shell)?;
        for name in config.methods.keys() {
            name.parse::<MethodName>().map_err(|error| {
                Fault::argument(format_args!("{name:?} is no name of a method: {error}"))
            })?;
            if ScriptsInterface::METHODS.contains(&name.as_str()) {
                let text = format!("every shell driver has a method {name:?}: use another name");
                return Err(Fault::argument(text));
            }
        }
        let mut interface = Interface::clone(&ScriptsInterface::describe());
        interface
            .methods
            .extend(config.methods.iter().map(|(name, script)| describe(name, script)));
        Ok(Self { config, interface: Arc::new(interface) })
    }

    fn start(&self, order: &Order<'_>) -> Result<Group, Fault> {
        let words = self.config.shell.iter().map(String::as_str);
        let words = words.chain([order.script.command.as_str(), order.method]);
        let words: Vec<_> = words.map(str::to_owned).chain(order.args.iter().cloned()).collect();
        let mut command = process::command(&words)?;
        command.envs(order.env).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(cwd) = &self.config.cwd {
            command.current_dir(cwd);
        }
        Group::spawn(&mut command).map_err(|error| not_started(&self.config.shell[0], &error))
    }

    async fn run(
        &self,
        cx: &Context,
        order: &Order<'_>,
        items: &Items<ShellOutput>,
    ) -> Result<(), Fault> {
        let limit = order.script.timeout.unwrap_or(self.config.timeout);
        let mut group = self.start(order)?;
        let ended = tokio::select! {
            biased;
            () = cx.cancelled() => None,
            () = sleep(limit) => None,
            ended = relay(&mut group, items) => Some(ended),
        };
        if let Some(ended) = ended {
            return ended;
        }
        let _ = group.stop(KILLED_AFTER).await;
        match cx.is_cancelled() {
            true => Err(Fault::new(FaultKind::Cancelled, "cancelled by its caller")),
            false => {
                let text = format!("{} did not end within {limit:?} and was stopped", order.method);
                Err(Fault::timeout(text))
            }
        }
    }
}

/// Which script is to run, and with what.
struct Order<'a> {
    method: &'a str,
    script: &'a Script,
    env: &'a BTreeMap<String, String>,
    args: &'a [String],
}

/// Carries what a command says to the caller, as it says it, and then how it ended. The command
/// waits while the caller is slow.
async fn relay(group: &mut Group, items: &Items<ShellOutput>) -> Result<(), Fault> {
    let (stdout, stderr) = (group.child().stdout.take(), group.child().stderr.take());
    let exited = CancellationToken::new();
    let stdout = pieces(stdout, items, &exited, |bytes| ShellOutput {
        stdout: Some(bytes),
        ..ShellOutput::default()
    });
    let stderr = pieces(stderr, items, &exited, |bytes| ShellOutput {
        stderr: Some(bytes),
        ..ShellOutput::default()
    });
    let ended = async {
        let status = group.wait().await;
        exited.cancel();
        status.map_err(Fault::from)
    };
    let ((), (), status) = tokio::try_join!(stdout, stderr, ended)?;
    items.send(ShellOutput { exit_code: Some(code(status)), ..ShellOutput::default() }).await?;
    Ok(())
}

/// Carries one output to its end. What a command leaves running in a session of its own may hold
/// the output open, so that after the command's end nothing is waited for any longer.
async fn pieces(
    from: Option<impl AsyncRead + Unpin>,
    items: &Items<ShellOutput>,
    exited: &CancellationToken,
    item: impl Fn(Bytes) -> ShellOutput,
) -> Result<(), Fault> {
    let Some(mut from) = from else { return Ok(()) };
    let mut buf = vec![0; PIECE_BYTES];
    loop {
        let silence = async {
            exited.cancelled().await;
            sleep(LAST_WORDS).await;
        };
        let read = tokio::select! {
            biased;
            read = from.read(&mut buf) => read?,
            () = silence => 0,
        };
        if read == 0 {
            return Ok(());
        }
        items.send(item(Bytes::copy_from_slice(&buf[..read]))).await?;
    }
}

/// The exit code as Python tells it, and so Jumpstarter.
fn code(status: ExitStatus) -> i64 {
    use std::os::unix::process::ExitStatusExt as _;
    let signal = || status.signal().map(|signal| -i64::from(signal));
    status.code().map(i64::from).or_else(signal).unwrap_or(-1)
}

/// What a caller may not set: these make a program run code of the caller's choice, or make it
/// somebody else.
fn refuse_env(env: &BTreeMap<String, String>) -> Result<(), String> {
    const REFUSED: [&str; 13] = [
        "PATH",
        "HOME",
        "IFS",
        "ENV",
        "BASH_ENV",
        "BASHOPTS",
        "SHELLOPTS",
        "PS4",
        "PROMPT_COMMAND",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "PYTHONHOME",
        "KUBECONFIG",
    ];
    const REFUSED_BEGINNINGS: [&str; 3] = ["LD_", "DYLD_", "BASH_FUNC_"];
    for (name, value) in env {
        let refused = REFUSED.contains(&name.as_str())
            || REFUSED_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning));
        if refused {
            return Err(format!("the variable {name:?} may not be set: it changes what is run"));
        }
        let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !first || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            let text = "is no name of a variable: use letters, digits and '_', no digit first";
            return Err(format!("{name:?} {text}"));
        }
        refuse_nul(value)?;
    }
    Ok(())
}

/// An argument ends at its first NUL, for the kernel.
fn refuse_nul(text: &str) -> Result<(), String> {
    match text.contains('\0') {
        true => Err(format!("{text:?} holds a NUL character, which no program can be given")),
        false => Ok(()),
    }
}

fn check(env: &BTreeMap<String, String>, args: &[String]) -> Result<(), String> {
    refuse_env(env)?;
    args.iter().try_for_each(|arg| refuse_nul(arg))
}

/// A configured method, as data.
fn describe(name: &str, script: &Script) -> Method {
    let param = |name: &str, help: &str, ty, default| Field {
        name: name.to_owned(),
        ty,
        help: help.to_owned(),
        optional: true,
        default: Some(default),
    };
    let env = <BTreeMap<String, String>>::describe();
    Method {
        name: name.to_owned(),
        kind: Kind::StreamingCall,
        help: script.description.clone(),
        params: vec![
            param("env", "Variables for its environment.", env, Value::Map(Vec::new())),
            param(
                "args",
                "Its arguments: `$1` and so on.",
                Vec::<String>::describe(),
                Value::List(Vec::new()),
            ),
        ],
        result: ShellOutput::describe(),
        concurrent: false,
        uncancellable: false,
        observe: false,
        deadline_ms: None,
    }
}

impl Scripts for Shell {
    async fn get_methods(&self) -> Vec<String> {
        self.config.methods.keys().cloned().collect()
    }

    async fn call_method(
        &self,
        cx: &Context,
        method: String,
        env: BTreeMap<String, String>,
        args: Vec<String>,
        items: Items<ShellOutput>,
    ) -> Result<(), Fault> {
        let Some(script) = self.config.methods.get(&method) else {
            let known: Vec<_> = self.config.methods.keys().map(String::as_str).collect();
            let text = format!("no method {method:?}: there are {}", known.join(", "));
            return Err(Fault::argument(text));
        };
        check(&env, &args).map_err(Fault::argument)?;
        let order = Order { method: &method, script, env: &env, args: &args };
        self.run(cx, &order, &items).await
    }
}

impl Serve for Shell {
    fn interfaces(&self) -> Vec<Arc<Interface>> {
        vec![self.interface.clone()]
    }

    fn call(self: Arc<Self>, cx: RawContext, method: &str, args: Args) -> Serving<Vec<u8>> {
        ScriptsInterface::call(self, cx, method, args)
    }

    fn streaming_call(
        self: Arc<Self>,
        cx: RawContext,
        method: &str,
        args: Args,
        items: RawItems,
    ) -> Serving<()> {
        if !self.config.methods.contains_key(method) {
            return ScriptsInterface::streaming_call(self, cx, method, args, items);
        }
        let method = method.to_owned();
        Box::pin(async move { self.configured(cx, &method, &args, items).await })
    }

    fn stream(self: Arc<Self>, _: RawContext, method: &str, _: Args, _: RawPipe) -> Serving<()> {
        let refusal = refuse_method(&self.interfaces(), method, Kind::Stream);
        Box::pin(ready(Err(refusal.into())))
    }
}

impl Shell {
    /// Runs a method that the configuration brought.
    async fn configured(
        &self,
        cx: RawContext,
        name: &str,
        args: &Args,
        items: RawItems,
    ) -> Result<(), Failure> {
        let known = self.config.methods.get(name).zip(self.interface.method(name));
        let Some((script, method)) = known else {
            return Err(refuse_method(&self.interfaces(), name, Kind::StreamingCall).into());
        };
        let mut reader = args.reader(method)?;
        let env = reader.take_or(BTreeMap::new)?;
        let args: Vec<String> = reader.take_or(Vec::new)?;
        reader.finish()?;
        check(&env, &args).map_err(|problem| Refusal::new(RefusalCode::BadArguments, problem))?;
        let (cx, items) = (Context::try_from(cx)?, Items::try_from(items)?);
        let order = Order { method: name, script, env: &env, args: &args };
        Ok(self.run(&cx, &order, &items).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(methods: &[(&str, Script)]) -> ShellConfig {
        let methods = methods.iter().map(|(name, script)| ((*name).to_owned(), script.clone()));
        ShellConfig { methods: methods.collect(), shell: bash(), timeout: timeout(), cwd: None }
    }

    #[test]
    fn what_could_change_what_is_run_is_refused() {
        let refused = |name: &str| refuse_env(&[(name.to_owned(), String::new())].into()).is_err();
        for name in
            ["PATH", "LD_PRELOAD", "BASH_ENV", "BASH_FUNC_ls%%", "HOME", "", "1A", "A-B", "A=B"]
        {
            assert!(refused(name), "{name}");
        }
        for name in ["BOARD", "_x1", "LDX", "MYPATH"] {
            assert!(!refused(name), "{name}");
        }
        assert!(check(&BTreeMap::new(), &["a\0b".to_owned()]).is_err());
    }

    #[test]
    fn a_method_that_every_shell_has_cannot_be_configured() {
        let fault = Shell::new(config(&[("get_methods", Script::new("ls"))])).unwrap_err();
        assert!(fault.text.contains("use another name"), "{fault}");
    }

    #[test]
    fn a_configured_method_has_its_description() {
        let script = Script { description: "Lists.".to_owned(), ..Script::new("ls") };
        let shell = Shell::new(config(&[("ls", script)])).unwrap();
        let method = shell.interface.method("ls").unwrap();
        assert_eq!(method.help, "Lists.");
        assert_eq!(
            method.to_string(),
            "ls(env: map of text = {}, args: list of text = []) -> stream of ShellOutput"
        );
    }
}
