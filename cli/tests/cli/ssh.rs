//! `jmp-bus ssh`, without a server: see `board.rs` for one.

use crate::lab::Lab;

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
