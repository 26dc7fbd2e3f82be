//! Two hundred clients fight for ten boards, while clients and exporters are killed and stopped.

use std::{
    collections::{BTreeMap, HashSet},
    process::Command,
    time::{Duration, Instant},
};

use bus_schema::UnitState;
use bus_tests::Lab;
use tokio::time::{interval, timeout};

const EXPORTER: &str = env!("CARGO_BIN_EXE_test-exporter");
const CLIENT: &str = env!("CARGO_BIN_EXE_test-client");
const BOARDS: usize = 10;
const CLIENTS: usize = 200;
const FIGHT: Duration = Duration::from_secs(60);
/// Short enough that those who are stopped lose their boards during the fight.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// A stopped process goes on after this time: longer than its lease lasts without it.
const STOPPED: Duration = Duration::from_secs(5);

fn signal(pid: Option<u32>, name: &str) {
    if let Some(pid) = pid {
        let _ = Command::new("kill").args([name, &pid.to_string()]).status(); // it may have ended
    }
}

/// Who used a board under which lease, in order.
fn history(lab: &Lab, board: &str) -> Vec<(String, u64)> {
    let file = lab.dir.path().join(board).join("count");
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = |line: &str| {
        let (client, epoch) = line.split_once(' ')?;
        Some((client.to_owned(), epoch.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// Long, as a fight has to go on for a while: two holders at once are rare or nothing.
#[tokio::test(flavor = "multi_thread")]
async fn slow_for_a_minute_two_hundred_clients_fight_for_ten_boards_and_none_has_two_holders()
-> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let names: Vec<_> = (0..BOARDS).map(|at| format!("board-{at}")).collect();
    let mut boards = Vec::new();
    for name in &names {
        boards.push(lab.spawn_board(EXPORTER, name, KEEP_ALIVE).await?);
    }
    let mut clients = Vec::new();
    for at in 0..CLIENTS {
        // Each wants three of the boards, and they overlap in every way.
        let wants: Vec<_> =
            [at, at * 7 + 1, at * 3 + 5].map(|at| names[at % BOARDS].clone()).into();
        let wants: Vec<_> = wants.iter().collect::<HashSet<_>>().into_iter().cloned().collect();
        clients.push((
            wants.join(","),
            lab.spawn_client(CLIENT, &format!("c{at}"), &wants.join(","))?,
        ));
    }
    let (began, mut turn, mut blow) =
        (Instant::now(), 0_usize, interval(Duration::from_millis(500)));
    let mut stopped: Vec<(Instant, Option<u32>)> = Vec::new();
    while began.elapsed() < FIGHT {
        blow.tick().await;
        turn += 1;
        stopped.retain(|(since, pid)| {
            let goes_on = since.elapsed() > STOPPED;
            if goes_on {
                signal(*pid, "-CONT");
            }
            !goes_on
        });
        let victim = turn * 37 % CLIENTS;
        match turn % 4 {
            0 => {
                let (wants, client) = &mut clients[victim];
                client.kill().await?;
                *client = lab.spawn_client(CLIENT, &format!("c{victim}"), wants)?;
            }
            1 | 2 => {
                signal(clients[victim].1.id(), "-STOP");
                stopped.push((Instant::now(), clients[victim].1.id()));
            }
            _ if turn % 8 == 3 => {
                let at = turn / 8 % BOARDS;
                let name = &names[at];
                boards.remove(at).kill().await?;
                boards.insert(at, lab.spawn_board(EXPORTER, name, KEEP_ALIVE).await?);
            }
            _ => {
                let board = &boards[turn / 8 % BOARDS];
                signal(board.id(), "-STOP");
                stopped.push((Instant::now(), board.id()));
            }
        }
    }
    for (_, pid) in stopped {
        signal(pid, "-CONT");
    }
    for (_, client) in &mut clients {
        client.kill().await?;
    }

    let mut used = 0;
    for name in &names {
        let mut owners = BTreeMap::new();
        let mut last = 0;
        for (client, epoch) in history(&lab, name) {
            assert!(epoch >= last, "{name}: {client} used it under {epoch} after {last} had begun");
            let owner = owners.entry(epoch).or_insert_with(|| client.clone());
            assert_eq!(*owner, client, "{name}: {epoch} has two holders");
            last = epoch;
        }
        used += owners.len();
    }
    assert!(used > CLIENTS / 2, "{used} leases are no fight");

    // No orphan: all are free when the silence of those who were killed is over.
    let watcher = lab.client("watcher").await?;
    let all_free = async {
        for name in &names {
            let exporter = name.parse()?;
            while watcher.board(&exporter).await?.units[0].state != UnitState::Free {
                tokio::task::yield_now().await;
            }
        }
        anyhow::Ok(())
    };
    timeout(Duration::from_secs(90), all_free).await??;
    for board in boards {
        board.kill().await?;
    }
    Ok(())
}
