//! `jmp-bus connect`, `console` and `forward`: bytes in and out.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};

use crate::lab::Lab;

#[tokio::test]
async fn the_end_of_stdin_is_only_half_of_the_end() {
    let lab = Lab::start().await;
    let long = "all of this comes back. ".repeat(20_000);
    let back = lab.run_with(&["connect", "local/power"], long.as_bytes()).await.ok();
    assert_eq!(back, long.to_uppercase());
    let nothing = lab.run(&["connect", "local/power", "echo"]).await.ok();
    assert_eq!(nothing, "");
    lab.run(&["connect", "local/power", "on"]).await.failed(12);
    lab.run(&["connect", "local/none"]).await.failed(10);
    lab.end().await;
}

#[tokio::test]
async fn the_escape_key_leaves_a_console_and_the_log_has_all_of_it() {
    let lab = Lab::start().await;
    let log = lab.home.path().join("log");
    let args = ["console", "local/power", "--escape", "ctrl-a", "--log", log.to_str().unwrap()];
    let left = lab.run_with(&args, b"boot\x01\x01\r\x01.never").await;
    assert_eq!(left.code, Some(0), "{left:?}");
    lab.diary.has("connect ended").await;
    let heard = lab.run_with(&args, b"boot\x01\x01\r").await.ok();
    assert_eq!(heard, "BOOT\x01\r");
    assert_eq!(std::fs::read_to_string(log).unwrap(), "BOOT\x01\r");
    lab.end().await;
}

#[tokio::test]
async fn a_forwarded_port_carries_bytes_both_ways_with_half_close() {
    let lab = Lab::start().await;
    let mut forward = lab.spawn(&["forward", "local/power", "--tcp", "0"]);
    let url = forward.line().await;
    let address = url.strip_prefix("tcp://").unwrap();
    for said in ["one", "two"] {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(said.as_bytes()).await.unwrap();
        tcp.shutdown().await.unwrap();
        let mut back = String::new();
        tcp.read_to_string(&mut back).await.unwrap();
        assert_eq!(back, said.to_uppercase());
    }
    forward.interrupt().await;
    assert_eq!(forward.ended().await.code, Some(130));
    lab.end().await;
}

#[tokio::test]
async fn ctrl_c_ends_a_forward_and_leaves_nothing() {
    let lab = Lab::start().await;
    let path = lab.home.path().join("socket");
    let mut forward =
        lab.spawn(&["forward", "local/power", "echo", "--unix", path.to_str().unwrap()]);
    assert_eq!(forward.line().await, format!("unix://{}", path.display()));
    let mut unix = UnixStream::connect(&path).await.unwrap();
    unix.write_all(b"x").await.unwrap();
    let mut back = [0];
    unix.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"x");
    forward.interrupt().await;
    assert_eq!(forward.ended().await.code, Some(130));
    assert!(!path.exists());
    lab.diary.has("echo ended").await;
    let gone = lab.run(&["forward", "nobody/power", "--tcp", "0"]).await.failed(10);
    assert!(gone.contains("exporters that are up: local"), "{gone}");
    lab.run(&["forward", "local/power"]).await.failed(2);
    lab.end().await;
}
