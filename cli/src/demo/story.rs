//! What happens in the demo, and how each step is seen to have happened.

use anyhow::{Context as _, ensure};
use runtime::LocalBroker;
use serde_json::Value as Json;

use super::{
    board::{Board, RELAY_COUNT, RELAYS, WEB},
    process::{Process, find},
    service::{Service, fetch},
    show::Show,
    stage::Stage,
};
use crate::advice::CliError;

/// The prompt of both boards. A line begins with it: `==> ` is part of an answer.
const PROMPT: &str = "\n=> ";

/// A step's success, and what was seen.
type Seen<T = ()> = anyhow::Result<(T, String)>;

/// Plays it. The exporter, with its board off, is what remains.
pub(crate) async fn play(stage: &Stage, show: &mut Show) -> Result<Process, CliError> {
    show.step("a broker of our own", broker(stage)).await?;
    let service = show.step("a service on this host's loopback", service(stage)).await?;
    let exporter = show.step("an exporter", exporter(stage, &service)).await?;
    let mut watcher = show.step("a client watches the console", watcher(stage)).await?;
    let mut console = show.step("another one opens it", console(stage)).await?;
    show.step("power on", power_on(stage)).await?;
    show.step("it boots", boots(stage.board, &mut console)).await?;
    show.step("stop it at its prompt", stop_at_prompt(stage.board, &mut console)).await?;
    for (typed, answer) in stage.board.asked {
        show.step("ask it", ask(&mut console, typed, answer)).await?;
    }
    show.step(
        "read its power, as the other one watches",
        read_power(stage, &mut console, &mut watcher),
    )
    .await?;
    show.step("forward a port and fetch", forward(stage, &service)).await?;
    show.step("call all relays at once", fan_out(stage)).await?;
    show.step("the watcher saw the same", same(&console, &mut watcher)).await?;
    show.step("power off", power_off(stage)).await?;
    show.step("leave the console", leave(console, watcher)).await?;
    Ok(exporter)
}

/// What to try with a demo that stays up.
pub(crate) fn trial(board: &Board, broker: &LocalBroker, found: bool) -> String {
    let Board { power, console, .. } = board;
    let (url, token_file) = (broker.url(), broker.token_file());
    let token = format!("$(cut -d'\"' -f2 {})", token_file.display());
    let reach = match found {
        true => String::new(), // commands of this user find it by themselves
        false => format!("  export NATS_URL={url} NATS_TOKEN={token}\n"),
    };
    format!(
        "\nit stays up until Ctrl-C; try, in another terminal of yours:\n{reach}  \
         jmp-bus list\n  \
         jmp-bus describe {power}\n  \
         jmp-bus call {power} on\n  \
         jmp-bus console {console}\n  \
         jmp-bus stream {power} read\n  \
         jmp-bus forward {WEB} --tcp 8080\n  \
         jmp-bus call -l {RELAYS} --all cycle 1s\n\n"
    )
}

async fn broker(stage: &Stage) -> Seen {
    let broker = stage.broker().await?;
    Ok(((), format!("nats-server at {}", broker.url())))
}

async fn service(stage: &Stage) -> Seen<Service> {
    let service = stage.service().await?;
    let seen = format!("port {}", service.port);
    Ok((service, seen))
}

async fn exporter(stage: &Stage, service: &Service) -> Seen<Process> {
    let file = stage.configuration(service)?;
    let file = file.to_str().context("a path that is no text")?;
    let mut exporter = stage.start("exporter", &["serve", file]).await?;
    let up = exporter.says(" drivers\n", 0).await?;
    Ok((exporter, up.trim().to_owned()))
}

async fn watcher(stage: &Stage) -> Seen<Process> {
    let words = ["console", stage.board.console, "--watch", "--as", "watcher"];
    let mut watcher = stage.start("watcher", &words).await?;
    watcher.notes("connected to").await?;
    Ok((watcher, stage.board.console.to_owned()))
}

async fn console(stage: &Stage) -> Seen<Process> {
    let words = ["console", stage.board.console, "--as", "tester"];
    let mut console = stage.start("console", &words).await?;
    console.notes("connected to").await?;
    Ok((console, stage.board.console.to_owned()))
}

async fn power_on(stage: &Stage) -> Seen {
    ensure!(stage.board_processes().is_empty(), "the board was on before");
    stage.run(&["call", stage.board.power, "on"]).await?;
    Ok(((), stage.board.power.to_owned()))
}

async fn boots(board: &Board, console: &mut Process) -> Seen {
    let said = console.says(board.autoboot, 0).await?;
    let banner = said.lines().find(|line| line.starts_with(board.banner));
    let banner = banner.with_context(|| format!("it has not said {:?}: {said:?}", board.banner))?;
    Ok(((), banner.trim().to_owned()))
}

async fn stop_at_prompt(board: &Board, console: &mut Process) -> Seen {
    let mark = console.mark();
    console.types("\r").await?;
    console.says(PROMPT, mark).await?;
    if let Some(typed) = board.prepare {
        answer(console, typed).await?;
    }
    Ok(((), "`=> `".to_owned()))
}

async fn ask(console: &mut Process, typed: &str, expected: &str) -> Seen {
    let answer = answer(console, typed).await?;
    ensure!(answer.contains(expected), "`{typed}` was not answered with {expected:?}: {answer:?}");
    ensure!(!typed.contains(expected), "the answer could be an echo");
    let first = answer.lines().next().unwrap_or_default();
    Ok(((), format!("`{typed}` gives `{}`", first.trim())))
}

/// Types a line, and gives what follows its echo, up to the next prompt.
async fn answer(console: &mut Process, typed: &str) -> anyhow::Result<String> {
    let mark = console.mark();
    console.types(&format!("{typed}\r")).await?;
    let said = console.says(PROMPT, mark).await?;
    let (_echo, answer) = said.split_once('\n').context("it does not echo")?;
    Ok(answer.strip_suffix(PROMPT.trim_start()).unwrap_or(answer).trim().to_owned())
}

async fn read_power(stage: &Stage, console: &mut Process, watcher: &mut Process) -> Seen {
    let words = ["stream", stage.board.power, "read", "--output", "json"];
    let mut stream = stage.start("power reading", &words).await?;
    stream.says("\n", 0).await?;
    let mark = watcher.mark();
    answer(console, "echo we read its power").await?;
    watcher.says("\nwe read its power\r\n", mark).await.context("while the power is read")?;
    let two = |said: &[u8]| {
        let mut ends = said.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        ends.nth(1).map(|(at, _)| at + 1)
    };
    let read = stream.says_all(0, two).await.context("two readings")?;
    let mut seen = Vec::new();
    for line in read.lines() {
        let reading: Json = serde_json::from_str(line).context("a reading")?;
        let (volts, amperes) = (reading["voltage"].as_f64(), reading["current"].as_f64());
        ensure!(volts == Some(stage.board.volts), "a board that is on has no such power: {line}");
        seen.push(format!("{} V {:.2} A", stage.board.volts, amperes.context("no current")?));
    }
    ensure!(stream.end().await? == 143, "the reading does not stop as SIGTERM makes it");
    Ok(((), seen.join(", ")))
}

async fn forward(stage: &Stage, service: &Service) -> Seen {
    let mut forward = stage.start("forward", &["forward", WEB, "--tcp", "0"]).await?;
    let url = forward.says("\n", 0).await?;
    let address = url.trim().strip_prefix("tcp://").with_context(|| format!("no port: {url}"))?;
    let page = fetch(address).await?;
    ensure!(page == service.page, "it is another page: {page:?}");
    ensure!(forward.end().await? == 143, "the forward does not stop as SIGTERM makes it");
    Ok(((), format!("{} bytes by {address} from port {}", page.len(), service.port)))
}

async fn fan_out(stage: &Stage) -> Seen {
    let words = ["call", "--selector", RELAYS, "--all", "on", "--output", "json"];
    let said = stage.run(&words).await?;
    let mut called = std::collections::BTreeSet::new();
    for line in said.lines() {
        let result: Json = serde_json::from_str(line).with_context(|| format!("{line:?}"))?;
        ensure!(result["ok"] == Json::Bool(true), "a relay failed: {line}");
        called.extend(result["address"].as_str().map(str::to_owned));
    }
    ensure!(called.len() == RELAY_COUNT, "{} of {RELAY_COUNT} were called", called.len());
    Ok(((), format!("{RELAY_COUNT} of {RELAY_COUNT}")))
}

/// What the device said reached both of them alike.
async fn same(console: &Process, watcher: &mut Process) -> Seen {
    let seen = console.said(0);
    watcher.says_all(0, |said| (said.len() >= seen.len()).then_some(said.len())).await?;
    let watched = watcher.said(0);
    if watched != seen {
        let differ = watched.iter().zip(&seen).position(|(one, other)| one != other);
        let at = differ.unwrap_or(seen.len()).saturating_sub(20);
        let text = |bytes: &[u8]| {
            String::from_utf8_lossy(&bytes[at..bytes.len().min(at + 80)]).into_owned()
        };
        anyhow::bail!("from {at} on: {:?} and {:?}", text(&watched), text(&seen));
    }
    ensure!(find(&seen, PROMPT).is_some(), "neither saw a prompt");
    Ok(((), format!("{} bytes", seen.len())))
}

async fn power_off(stage: &Stage) -> Seen {
    let on = stage.board_processes();
    ensure!(!on.is_empty(), "no process was the board, though it was on");
    stage.run(&["call", stage.board.power, "off"]).await?;
    stage.board_is_gone().await?;
    Ok(((), format!("process {} has ended", on[0])))
}

async fn leave(mut console: Process, watcher: Process) -> Seen {
    console.types("\x1d.").await?;
    console.done().await?;
    ensure!(watcher.end().await? == 143, "the watcher does not stop as SIGTERM makes it");
    Ok(((), String::new()))
}
