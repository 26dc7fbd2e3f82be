//! The desk: the broker of a running `jmp-bus dev`, which other commands find by a file.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use runtime::{Auth, LocalBroker, Secret, Settings};
use serde::{Deserialize, Serialize};

use crate::{advice::CliError, args::variable};

/// What the file says. The token is not in it: it is in the broker's own file.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    url: String,
    token_file: PathBuf,
    pid: u32,
}

/// A desk that is up.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) url: String,
    pub(crate) settings: Settings,
}

/// Says where the desk is, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Announced {
    file: PathBuf,
}

/// The desk of this user, if one is up. What a desk that was killed has left is removed.
pub(crate) fn find() -> Option<Desk> {
    let file = file()?;
    let record: Record = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
    let token = fs::read_to_string(&record.token_file).ok();
    let token = token.as_deref().and_then(token_of).filter(|_| listens(&record.url));
    let Some(token) = token else {
        let _ = fs::remove_file(&file); // somebody else may have done so
        return None;
    };
    let settings = Settings {
        servers: vec![record.url.clone()],
        auth: Auth::Token(Secret::new(token)),
        ..Settings::default()
    };
    Some(Desk { url: record.url, settings })
}

/// Lets other commands find `broker`, unless they find another one.
pub(crate) fn announce(broker: &LocalBroker) -> Result<Option<Announced>, CliError> {
    let Some(file) = file() else { return Ok(None) };
    if find().is_some() {
        return Ok(None);
    }
    let record =
        Record { url: broker.url(), token_file: broker.token_file(), pid: std::process::id() };
    let write = |dir: &Path| {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        // Whole or not at all: another command may read it now.
        let fresh = dir.join(format!("dev.json.{}", std::process::id()));
        let mut options = OpenOptions::new();
        let mut opened =
            options.create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
        opened.write_all(&serde_json::to_vec(&record)?)?;
        fs::rename(&fresh, &file)
    };
    let dir = file.parent().unwrap_or(Path::new("."));
    write(dir).map_err(|source| CliError::io(format!("write {}", file.display()), source))?;
    Ok(Some(Announced { file }))
}

impl Drop for Announced {
    fn drop(&mut self) {
        let ours = fs::read(&self.file)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok())
            .is_some_and(|record| record.pid == std::process::id());
        if ours {
            let _ = fs::remove_file(&self.file); // the next command that finds it sees that it is stale
        }
    }
}

/// `$XDG_RUNTIME_DIR/jmp-bus/dev.json`; without one, a place that is the user's alone, too.
fn file() -> Option<PathBuf> {
    let dir = |name: &str| variable(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let dir = dir("XDG_RUNTIME_DIR")
        .or_else(|| dir("XDG_CACHE_HOME"))
        .or_else(|| Some(dir("HOME")?.join(".cache")))?;
    Some(dir.join("jmp-bus").join("dev.json"))
}

/// The token of a line `token: "…"`.
fn token_of(text: &str) -> Option<String> {
    let (_, quoted) = text.split_once("token:")?;
    let token = quoted.trim().strip_prefix('"')?.strip_suffix('"')?;
    (!token.is_empty()).then(|| token.to_owned())
}

fn listens(url: &str) -> bool {
    const PATIENCE: Duration = Duration::from_secs(1);
    let connect = |address: &str| -> io::Result<()> {
        let address = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
        TcpStream::connect_timeout(&address, PATIENCE).map(drop)
    };
    url.strip_prefix("nats://").is_some_and(|address| connect(address).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_from_the_file_of_the_broker() {
        assert_eq!(token_of("token: \"abc\"\n").as_deref(), Some("abc"));
        for bad in ["", "token: abc", "token: \"\"", "tok"] {
            assert_eq!(token_of(bad), None, "{bad}");
        }
    }
}
