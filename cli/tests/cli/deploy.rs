//! `deploy/`: what is written there works.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use runtime::{BrokerOptions, LocalBroker};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::{
    fleet::free_port,
    lab::{Running, program, run},
};

const PATIENCE: Duration = Duration::from_secs(60);

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

async fn nats_server() -> PathBuf {
    LocalBroker::find(&BrokerOptions::default()).await.unwrap()
}

#[tokio::test]
async fn every_command_of_the_readme_does_what_it_says() {
    let text = fs::read_to_string(deploy().join("README.md")).unwrap();
    let blocks: Vec<_> =
        text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 8, "the commands were not found");
    let port = free_port().to_string();
    // A line that starts with `!` must fail, and bash does not stop at it by itself.
    let must_fail = |line: &str| match line.strip_prefix("! ") {
        Some(command) => format!("if {command}; then echo 'this must be refused'; exit 1; fi"),
        None => line.to_owned(),
    };
    let script: Vec<_> = blocks.concat().replace("4222", &port).lines().map(must_fail).collect();
    let script = format!("set -eu\ntrap 'kill $(jobs -p); wait' EXIT\n{}\n", script.join("\n"));

    let home = tempfile::tempdir().unwrap();
    let bin = home.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for (name, program) in
        [("nats-server", nats_server().await), ("jmp-bus", env!("CARGO_BIN_EXE_jmp-bus").into())]
    {
        std::os::unix::fs::symlink(program, bin.join(name)).unwrap();
    }
    let path = std::env::join_paths(
        std::iter::once(bin).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let mut bash = Command::new("bash");
    bash.arg("-c").arg(&script).current_dir(home.path()).env("HOME", home.path());
    bash.env("PATH", path.unwrap()).env_remove("NATS_URL").env_remove("XDG_CONFIG_HOME");
    bash.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let ran = timeout(PATIENCE, bash.output()).await.expect("it ends in time").unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{out}\n{err}");
    assert!(out.contains("alice (client)") && out.contains("alice is revoked"), "{out}");
    assert!(err.contains("not allowed by the broker: eve may not publish"), "{err}");
    assert!(err.contains("the broker does not let us in"), "{err}");
}

#[tokio::test]
async fn the_annotated_configuration_is_valid() {
    let home = tempfile::tempdir().unwrap();
    let checked = run(program(&home).arg("check").arg(deploy().join("exporter.yaml"))).await.ok();
    assert!(checked.starts_with("ok: exporter bench-1"), "{checked}");
    // What it shows in comments is, too.
    let text = fs::read_to_string(deploy().join("exporter.yaml")).unwrap();
    let shown = |line: &str| {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let is_yaml =
            ["groups:", "access:", "hooks:", "  "].iter().any(|key| bare.starts_with(key));
        let bare = if is_yaml { bare } else { line };
        bare.replace("  # required", "  required").replace("  # subtrees", "  subtrees") + "\n"
    };
    let file = home.path().join("all.yaml");
    fs::write(&file, text.lines().map(shown).collect::<String>()).unwrap();
    assert!(fs::read_to_string(&file).unwrap().contains("\n  beforeLease:"));
    let checked = run(program(&home).arg("check").arg(file)).await.ok();
    assert!(checked.starts_with("ok: exporter bench-1"), "{checked}");
}

#[test]
fn what_the_package_installs_is_there() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(manifest.join("Cargo.toml")).unwrap();
    let assets: Vec<_> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("[\"")?.split('"').next())
        .filter(|asset| asset.starts_with("../deploy/"))
        .collect();
    assert!(assets.len() >= 6, "{assets:?}");
    for asset in assets {
        let path = manifest.join(asset.trim_end_matches('*'));
        assert!(path.exists(), "{asset}");
    }
}

#[tokio::test]
async fn a_shell_takes_what_the_package_and_its_machine_run() {
    let scripts =
        ["debian/postinst", "debian/prerm", "debian/postrm", "machine/try", "machine/steps"];
    for script in scripts {
        let file = deploy().join(script);
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{script} is not to be run");
        let text = fs::read_to_string(&file).unwrap();
        let shell = if text.starts_with("#!/bin/sh\n") { "sh" } else { "bash" };
        let read = Command::new(shell).arg("-n").arg(&file).output().await.unwrap();
        assert!(read.status.success(), "{script}: {}", String::from_utf8_lossy(&read.stderr));
    }
    // What the machine runs is taken out of the README.
    let readme = fs::read_to_string(deploy().join("README.md")).unwrap();
    assert!(readme.matches("\n```bash\n").count() >= 6, "the commands were not found");
}

#[tokio::test]
async fn systemd_takes_the_units() {
    let dir = tempfile::tempdir().unwrap();
    for (unit, name) in [
        ("jmp-bus-broker.service", "jmp-bus-broker.service"),
        ("jmp-bus-exporter@.service", "jmp-bus-exporter@x.service"),
    ] {
        let text = fs::read_to_string(deploy().join("systemd").join(unit)).unwrap();
        for line in ["Restart=always", "NoNewPrivileges=yes", "ProtectSystem=strict"] {
            assert!(text.contains(line), "{unit}: {line}");
        }
        // Programs that every host has: `verify` looks whether they are there.
        let text = text.replace("/usr/bin/jmp-bus", "/bin/true");
        fs::write(
            dir.path().join(name),
            text.replace("ExecStart=nats-server", "ExecStart=/bin/true"),
        )
        .unwrap();
    }
    let exporter = fs::read_to_string(dir.path().join("jmp-bus-exporter@x.service")).unwrap();
    assert!(exporter.contains("Type=notify") && exporter.contains("WatchdogSec="));
    let mut verify = Command::new("systemd-analyze");
    verify.arg("verify").arg(dir.path().join("jmp-bus-broker.service"));
    verify.arg(dir.path().join("jmp-bus-exporter@x.service"));
    // A host without systemd cannot say.
    if let Ok(verified) = verify.output().await {
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        let about_ours: Vec<_> = said.lines().filter(|line| line.contains("jmp-bus")).collect();
        assert!(about_ours.is_empty(), "{said}");
    }
}

/// Brokers with the configurations of `deploy/nats`, on the loopback.
struct Brokers {
    home: TempDir,
    server: PathBuf,
    brokers: Vec<Child>,
    routes: [u16; 3],
    leaves: u16,
}

impl Brokers {
    async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let init = ["admin", "init", "--host", "localhost"];
        run(program(&home).args(init)).await.ok();
        let routes = [free_port(), free_port(), free_port()];
        let server = nats_server().await;
        Self { home, server, brokers: Vec::new(), routes, leaves: free_port() }
    }

    fn authority(&self, file: &str) -> PathBuf {
        self.home.path().join(".config/jmp-bus/authority").join(file)
    }

    /// Starts one; gives its URL.
    fn start(&mut self, config: &str) -> String {
        let node = self.brokers.len();
        let dir = self.home.path().join(format!("node-{node}"));
        fs::create_dir(&dir).unwrap();
        for entry in fs::read_dir(deploy().join("nats")).unwrap().flatten() {
            fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
        }
        fs::copy(self.authority("broker/authority.conf"), dir.join("authority.conf")).unwrap();
        let port = free_port();
        let mut command = Command::new(&self.server);
        command.arg("-c").arg(dir.join(config)).arg("-l").arg(dir.join("log"));
        let quoted = |value: String| format!("\"{value}\"");
        let tls =
            |file: &str| quoted(self.authority("broker/tls").join(file).display().to_string());
        let at = |sub: &str| quoted(dir.join(sub).display().to_string());
        let record = fs::read_to_string(self.authority("authority.json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        let routes: Vec<_> =
            self.routes.iter().map(|port| format!("\"tls://localhost:{port}\"")).collect();
        command
            .env("BROKER_NAME", quoted(format!("node-{node}")))
            .env("BROKER_CLIENTS", quoted(format!("127.0.0.1:{port}")))
            .env("BROKER_MONITOR", quoted("127.0.0.1:-1".to_owned()))
            .env("BROKER_CERTIFICATE", tls("server.pem"))
            .env("BROKER_KEY", tls("server.key"))
            .env("BROKER_CA", tls("ca.pem"))
            .env("BROKER_STORE", at("jetstream"))
            .env("BROKER_RESOLVER", at("jwt"))
            .env("BROKER_CLUSTER", quoted(format!("127.0.0.1:{}", self.routes[node.min(2)])))
            .env("BROKER_ROUTES", format!("[{}]", routes.join(", ")))
            .env("BROKER_LEAVES", quoted(format!("127.0.0.1:{}", self.leaves)))
            .env("BROKER_HUB", format!("[\"tls://localhost:{}\"]", self.leaves))
            .env("BROKER_ACCOUNT", record["account"].to_string())
            .env("BROKER_SITE_CREDS", quoted(self.creds("site").display().to_string()));
        let child = command.kill_on_drop(true).stderr(Stdio::null()).spawn().unwrap();
        self.brokers.push(child);
        format!("tls://localhost:{port}")
    }

    fn creds(&self, name: &str) -> PathBuf {
        self.home.path().join(format!("{name}.creds"))
    }

    async fn add(&self, role: &str, name: &str) {
        let mut add = program(&self.home);
        run(add.args(["admin", "add", role, name, "--out"]).arg(self.creds(name))).await.ok();
    }

    /// Runs a command until it goes well.
    async fn until_ok(&self, make: impl Fn() -> Command) -> String {
        let last = std::cell::RefCell::new(None);
        let trying = async {
            loop {
                let ran = run(&mut make()).await;
                if ran.code == Some(0) {
                    return ran.out;
                }
                last.replace(Some(ran));
            }
        };
        match timeout(PATIENCE, trying).await {
            Ok(out) => out,
            Err(_) => panic!("it does not go well: {:?}\n{}", last.take(), self.log()),
        }
    }

    /// What the brokers had to complain of.
    fn log(&self) -> String {
        let read = |node| fs::read_to_string(self.home.path().join(format!("node-{node}/log")));
        let logs = (0..self.brokers.len()).map(|node| read(node).unwrap_or_default());
        let is_bad = |line: &&str| line.contains("[ERR]") || line.contains("[FTL]");
        logs.map(|log| log.lines().filter(is_bad).collect::<Vec<_>>().join("\n")).collect()
    }

    fn command(&self, url: &str, args: &[&str]) -> Command {
        let mut command = program(&self.home);
        command.env("NATS_URL", url).env("NATS_CA", self.authority("ca.pem"));
        command.env_remove("JMP_BUS_CLIENT").args(args);
        command
    }

    fn as_user(&self, url: &str, name: &str, args: &[&str]) -> Command {
        let mut command = self.command(url, args);
        command.env("NATS_CREDS", self.creds(name));
        command
    }

    async fn serve(&self, url: &str, name: &str) -> Running {
        self.add("exporter", name).await;
        let file = self.home.path().join(format!("{name}.yaml"));
        let text = format!(
            "metadata: {{name: {name}}}\nexport:\n  power: {{type: fake-power}}\n  disk: {{type: fake-flasher}}\n"
        );
        fs::write(&file, text).unwrap();
        let mut serve =
            Running::start(&mut self.as_user(url, name, &["serve", file.to_str().unwrap()]));
        assert_eq!(serve.line().await, format!("{name} is up with 3 drivers"));
        serve
    }
}

#[tokio::test]
async fn a_cluster_of_three_goes_on_without_one_of_them() {
    let mut brokers = Brokers::new().await;
    let urls: Vec<_> = (0..3).map(|_| brokers.start("cluster.conf")).collect();
    let all = urls.join(",");
    brokers.until_ok(|| brokers.command(&all, &["admin", "streams", "--replicas", "3"])).await;
    brokers.add("client", "alice").await;
    let serve = brokers.serve(&all, "bench").await;
    let call = || brokers.as_user(&urls[0], "alice", &["call", "bench/power", "on"]);
    brokers.until_ok(call).await;
    brokers.brokers[2].kill().await.unwrap();
    let rest = urls[..2].join(",");
    let list = || brokers.as_user(&rest, "alice", &["call", "bench/power", "off"]);
    brokers.until_ok(list).await;
    drop(serve);
}

#[tokio::test]
async fn everybody_at_a_leaf_is_who_they_are_at_the_hub() {
    let mut brokers = Brokers::new().await;
    brokers.add("leaf", "site").await;
    let hub = brokers.start("hub.conf");
    brokers.until_ok(|| brokers.command(&hub, &["admin", "streams"])).await;
    brokers.add("client", "mallory").await;
    run(&mut brokers.command(&hub, &["admin", "revoke", "mallory"])).await.ok();
    let leaf = brokers.start("leaf.conf");
    for (role, name) in [("client", "alice"), ("observer", "eve")] {
        brokers.add(role, name).await;
    }
    let near = brokers.serve(&hub, "near").await;
    brokers.until_ok(|| brokers.as_user(&leaf, "alice", &["call", "near/power", "on"])).await;
    let far = brokers.serve(&leaf, "far").await;
    brokers.until_ok(|| brokers.as_user(&hub, "alice", &["call", "far/power", "on"])).await;
    let listed = run(&mut brokers.as_user(&hub, "alice", &["list"])).await.ok();
    assert!(listed.contains("far  up") && listed.contains("near  up"), "{listed}");
    // The site's broker keeps the rules for those who are connected there.
    let mut observer = brokers.as_user(&leaf, "eve", &["call", "near/power", "on"]);
    run(&mut observer).await.failed(21);
    // A site that is new knows who was revoked before.
    run(&mut brokers.as_user(&leaf, "mallory", &["call", "near/power", "on"])).await.failed(21);
    // And a user's credentials make no leaf.
    let site = run(&mut brokers.as_user(&hub, "site", &["list"])).await.failed(2);
    assert!(site.contains("those of leaf site"), "{site}");
    drop((near, far));
}

#[tokio::test]
async fn a_site_behind_a_leaf_has_all_that_the_hub_keeps() {
    let mut brokers = Brokers::new().await;
    brokers.add("leaf", "site").await;
    let hub = brokers.start("hub.conf");
    brokers.until_ok(|| brokers.command(&hub, &["admin", "streams"])).await;
    let leaf = brokers.start("leaf.conf");
    for (role, name) in
        [("client", "alice"), ("client", "bob"), ("observer", "eve"), ("admin", "root")]
    {
        brokers.add(role, name).await;
    }
    brokers.until_ok(|| brokers.as_user(&leaf, "alice", &["list"])).await;
    let far = brokers.serve(&leaf, "far").await;
    let at_site =
        async |name: &str, args: &[&str]| run(&mut brokers.as_user(&leaf, name, args)).await;

    let until_says = async |name: &str, args: &[&str], words: &str| {
        let saying = async { while !at_site(name, args).await.out.contains(words) {} };
        timeout(PATIENCE, saying).await.unwrap_or_else(|_| panic!("{args:?} says no {words}"));
    };

    // The registry, events, logs.
    assert!(at_site("alice", &["list"]).await.ok().contains("far  up"));
    assert!(at_site("eve", &["list"]).await.ok().contains("far  up"));
    until_says("eve", &["events"], "exporter-up").await;
    until_says("alice", &["logs"], "exporter is up").await;
    // Records of streaming calls, and only one's own.
    let id = at_site("alice", &["stream", "far/power", "read", "--detach"]).await.ok();
    let replay = ["stream", "--replay", id.trim(), "--of", "alice"];
    until_says("alice", &replay, "voltage").await;
    let others = at_site("bob", &replay).await.failed(21);
    assert!(others.contains("not allowed by the broker: bob may not"), "{others}");
    // Files.
    let image = brokers.home.path().join("image");
    fs::write(&image, vec![7; 300_000]).unwrap();
    let image = image.to_str().unwrap();
    at_site("alice", &["put", image]).await.ok();
    let flashed = at_site("alice", &["flash", "far/disk", image, "--verify"]).await.ok();
    assert!(flashed.contains("verified"), "{flashed}");
    assert!(at_site("root", &["files"]).await.ok().contains("alice  image"));
    at_site("bob", &["files"]).await.failed(21);
    at_site("root", &["files", "remove", "image", "--of", "alice"]).await.ok();
    // Every role may do there what it may do at the hub, and no more.
    for name in ["alice", "eve", "root", "far"] {
        let checks = at_site(name, &["doctor", "-o", "json"]).await.json();
        let good = |check: &serde_json::Value| check["ok"] == true;
        assert!(checks.as_array().unwrap().iter().all(good), "{name}: {checks}");
    }
    at_site("alice", &["doctor", "--make-streams"]).await.failed(18);
    at_site("eve", &["call", "far/power", "on"]).await.failed(21);

    // Without its hub the site works on; what the hub keeps is told to be away.
    brokers.brokers[0].kill().await.unwrap();
    brokers.until_ok(|| brokers.as_user(&leaf, "alice", &["call", "far/power", "on"])).await;
    let away = run(&mut brokers.as_user(&leaf, "alice", &["list"])).await.failed(15);
    assert!(away.contains("jmp_registry"), "{away}");
    drop(far);
}
