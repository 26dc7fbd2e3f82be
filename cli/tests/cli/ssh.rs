//! `jmp-bus ssh`, without a server and with OpenSSH's on this host: see `board.rs` for a board.

use std::{fs, path::Path, process::Stdio};

use tokio::process::Command;

use crate::lab::{Lab, run, tcp_to};

#[path = "../../../actors/tests/adapters/ssh/openssh.rs"]
mod openssh;

#[tokio::test]
async fn a_proxy_is_the_connection_and_nothing_else() {
    let lab = Lab::start().await;
    let back = lab.run_with(&["ssh", "--proxy", "local/power"], b"SSH-2.0-x\r\n").await.ok();
    assert_eq!(back, "SSH-2.0-X\r\n");
    lab.run(&["ssh", "--proxy", "local/none"]).await.failed(10);
    lab.end().await;
}

#[tokio::test]
async fn the_systems_ssh_is_told_how_to_come_here_and_what_the_host_is_known_as() {
    let lab = Lab::start().await;
    let text = lab.run(&["ssh", "--config", "local/power", "-l", "ann"]).await.ok();
    let id = lab.served.child("power").id();
    for line in [
        "Host local-power\n".to_owned(),
        " ssh --proxy local/power\n".to_owned(),
        " --root ".to_owned(),
        "  User ann\n".to_owned(),
        format!("  HostKeyAlias jmp-bus-{id}\n"),
        format!(
            "  UserKnownHostsFile {}/.local/state/jmp-bus/known_hosts\n",
            lab.home.path().display()
        ),
    ] {
        assert!(text.contains(&line), "{line}: {text}");
    }
    assert!(!text.contains("token"), "no secret is written down: {text}");
    lab.end().await;
}

#[tokio::test]
async fn what_is_no_ssh_server_is_told_so_in_time() {
    let lab = Lab::start().await;
    lab.run(&["ssh", "local/power", "--timeout", "200ms"]).await.failed(11);
    lab.run(&["ssh", "local/power", "on", "-L", "80:x"]).await.failed(2);
    let told = lab.run(&["ssh", "local/power", "-L", "80:x"]).await.failed(2);
    assert!(told.contains("\"80:x\" is not [HOST:]PORT:HOST:PORT"), "{told}");
    let forgot = lab.run(&["ssh", "local/power", "--forget", "-o", "json"]).await.json();
    assert_eq!(forgot["forgotten"], 0);
    let told = lab.run(&["ssh", "local/power", "--password-file", "/no/such"]).await.failed(1);
    assert!(told.contains("cannot read /no/such"), "{told}");
    lab.end().await;
}

/// How many bytes of a file rsync had to send or fetch, and did not find at the other end.
fn literal(stats: &str) -> u64 {
    let line = stats.lines().find_map(|line| line.strip_prefix("Literal data: "));
    let digits: String =
        line.unwrap().chars().filter(|c| *c != ',').take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

#[tokio::test]
async fn the_systems_rsync_goes_through_the_bus_both_ways_and_sends_what_has_changed() {
    let Some(sshd) = openssh::OpenSsh::start().await.unwrap() else { return };
    if !Path::new("/usr/bin/rsync").exists() {
        eprintln!("not tested: there is no rsync here; .ci/setup installs it");
        return;
    }
    let agent = sshd.agent().await.unwrap();
    let lab = Lab::with(|tree| tree.with_child("ssh", tcp_to(sshd.port))).await;
    let text = lab.run(&["ssh", "--config", "local/ssh", "-l", &sshd.user]).await.ok();
    let dir = lab.home.path();
    let config = dir.join("lab.conf");
    fs::write(&config, text).unwrap();
    let (site, board, back) = (dir.join("site"), dir.join("board"), dir.join("back"));
    fs::create_dir_all(site.join("deep")).unwrap();
    let mut image: Vec<u8> = (0..3_000_000_u32).map(|at| (at * 7 / 3) as u8).collect();
    fs::write(site.join("deep/image"), &image).unwrap();
    fs::write(site.join("index.html"), "<h1>board</h1>").unwrap();

    let rsync = async |from: String, to: String| {
        let mut command = Command::new("rsync");
        command.args(["-a", "--delete", "--stats", "-e"]);
        command.arg(format!("ssh -o BatchMode=yes -F {}", config.display())).args([from, to]);
        // The token of the broker is in no file: whoever starts it has it.
        command.envs(lab.command(&[]).as_std().get_envs().filter_map(|(k, v)| Some((k, v?))));
        command.env("SSH_AUTH_SOCK", &agent.socket).stdin(Stdio::null()).kill_on_drop(true);
        run(&mut command).await
    };
    let there = format!("local-ssh:{}/", board.display());
    let sent = rsync(format!("{}/", site.display()), there.clone()).await.ok();
    assert!(literal(&sent) > 3_000_000, "{sent}");
    assert!(fs::read(board.join("deep/image")).unwrap() == image);
    assert!(fs::read_to_string(board.join("index.html")).unwrap().contains("board"));

    image.splice(1_000_000..1_000_010, *b"a few more bytes than there were");
    fs::write(site.join("deep/image"), &image).unwrap();
    fs::remove_file(site.join("index.html")).unwrap();
    let sent = rsync(format!("{}/", site.display()), there.clone()).await.ok();
    assert!(literal(&sent) < 100_000, "{sent}");
    assert!(fs::read(board.join("deep/image")).unwrap() == image);
    assert!(!board.join("index.html").exists());

    let fetched = rsync(there, format!("{}/", back.display())).await.ok();
    assert!(literal(&fetched) > 3_000_000, "{fetched}");
    assert!(fs::read(back.join("deep/image")).unwrap() == image);
    let missing = rsync("local-ssh:/nonexistent/".to_owned(), format!("{}/", back.display())).await;
    assert!(missing.failed(23).contains("/nonexistent"));
    lab.end().await;
}
