//! `jmp-bus connect`, `console` and `forward`: bytes in and out.

use std::io::Write as _;

use rustix::termios::tcgetattr;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket, UnixStream},
};

use crate::lab::{Lab, Running, run, terminal};

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
async fn a_port_that_no_connection_could_use_is_not_opened() {
    let lab = Lab::start().await;
    for method in ["on", "none"] {
        let said = lab.run(&["forward", "local/power", method, "--tcp", "0"]).await.failed(12);
        assert!(said.contains("local/power refused: "), "{said}");
    }
    let screen = lab.run(&["vnc", "local/power", "--method", "on"]).await.failed(12);
    assert!(screen.contains("on is a call"), "{screen}");
    for port in ["99999", "here", "127.0.0.1:-1"] {
        let said = lab.run(&["forward", "local/power", "--tcp", port]).await.failed(2);
        assert!(said.contains("a number up to 65535"), "{said}");
    }
    lab.end().await;
}

#[tokio::test]
async fn a_forwarded_udp_port_carries_datagrams_both_ways() {
    let lab = Lab::start().await;
    let mut forward = lab.spawn(&["forward", "local/power", "echo", "--udp", "0"]);
    let url = forward.line().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(url.strip_prefix("udp://").unwrap()).await.unwrap();
    let mut back = [0; 16];
    for said in [&b"one"[..], b"two"] {
        socket.send(said).await.unwrap();
        let size = socket.recv(&mut back).await.unwrap();
        assert_eq!(&back[..size], said);
    }
    forward.interrupt().await;
    assert_eq!(forward.ended().await.code, Some(130));
    lab.end().await;
}

#[tokio::test]
async fn a_refused_connection_is_closed_and_told_of_and_the_port_stays() {
    let lab = Lab::start().await;
    let mut forward =
        lab.spawn(&["forward", "local/power", "watch", "soon", "--tcp", "0", "-o", "json"]);
    let listening: serde_json::Value = serde_json::from_str(&forward.line().await).unwrap();
    let address = listening["listening"].as_str().unwrap().strip_prefix("tcp://").unwrap();
    for _ in 0..2 {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        assert!(tcp.read(&mut [0]).await.is_err(), "it is cut, it does not end");
    }
    forward.interrupt().await;
    let ended = forward.ended().await;
    assert_eq!(ended.code, Some(130));
    assert_eq!(ended.err.matches("argument 1 (from): expected").count(), 2, "{ended:?}");
    lab.run(&["forward", "local/power", "--tcp", "0", "--udp", "0"]).await.failed(2);
    lab.run(&["forward", "local/none", "--tcp", "0"]).await.failed(10);
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let said = lab.run(&["forward", "local/power", "--tcp", &port]).await.failed(1);
    assert!(said.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{said}");
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

#[tokio::test]
async fn a_watcher_sees_what_was_said_before_and_goes_on_from_there() {
    let lab = Lab::start().await;
    let seen = lab.run(&["console", "local/power", "--watch", "--replay"]).await.ok();
    assert_eq!(seen, "booted\nfrom Some(14)\n");
    assert_eq!(lab.run(&["console", "local/power", "--watch"]).await.ok(), "from None\n");
    lab.end().await;
}

#[tokio::test]
async fn the_terminal_is_as_before_however_a_console_ends() {
    let lab = Lab::start().await;
    for by_key in [true, false] {
        let (mut person, terminal) = terminal();
        let before = tcgetattr(&terminal).unwrap().local_modes;
        let mut command = lab.command(&["console", "local/power", "--method", "echo"]);
        let mut console = Running::start(command.stdin(terminal.try_clone().unwrap()));
        assert_eq!(console.note().await, "jmp-bus: connected to local/power; Ctrl-] and . leave");
        person.write_all(b"x").unwrap();
        console.byte(b'x').await;
        assert_ne!(tcgetattr(&terminal).unwrap().local_modes, before);
        match by_key {
            true => person.write_all(b"\x1d.").unwrap(),
            false => console.signal("-TERM").await,
        }
        let ended = console.ended().await;
        assert_eq!(ended.code, Some(if by_key { 0 } else { 143 }), "{ended:?}");
        assert_eq!(tcgetattr(&terminal).unwrap().local_modes, before);
    }
    lab.end().await;
}

#[tokio::test]
async fn what_is_opened_is_opened_under_the_lease_of_the_environment() {
    let lab = Lab::start().await;
    let mut late = lab.command(&["ssh", "--proxy", "local/power"]);
    let told = run(late.env("JMP_BUS_LEASE", "local=1")).await.failed(12);
    assert!(told.contains("lease"), "{told}");
    lab.end().await;
}
