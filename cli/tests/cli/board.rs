//! A board that boots Linux: what a test really does with one.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
};

use crate::{
    browser::{self, Browser},
    lab::{Ran, Running, program, run},
};

/// Logs in as a person does. The board's console wants no Enter before it says something.
const LOG_IN: &str = r##"
timeout 60s
fail "Kernel panic"
expect /board login: $/
line "root"
expect "Password: "
line "${password}"
expect "# " or "Login incorrect"
line "stty -echo; uname -n | sed 's/^/on /'"
expect /on board\s/
"##;

/// The files of the board, made when they are first asked for. `None`, and a word about it, where
/// they cannot be.
async fn board_files() -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for program in ["qemu-system-x86_64", "apt-get", "busybox", "cpio", "openssl"] {
        if !std::env::split_paths(&std::env::var_os("PATH")?).any(|dir| dir.join(program).exists())
        {
            eprintln!("not tested: there is no {program} here; .ci/setup installs it");
            return None;
        }
    }
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("linux-board");
    fs::create_dir_all(&dir).unwrap();
    let lock = File::create(dir.join("lock")).unwrap();
    lock.lock().unwrap(); // another test may be making it
    let build = here.join("../tests/linux-board/build");
    let built = Command::new(build).arg(dir.join("files")).status().await.unwrap();
    assert!(built.success(), "the board could not be made");
    Some(dir.join("files"))
}

/// The configuration of an exporter with this board.
fn linux(files: &Path) -> String {
    format!(
        "metadata: {{name: lab}}\nexport:\n  board:\n    type: qemu\n    config:\n      \
         arch: x86_64\n      smp: 1\n      mem: 256M\n      kernel: {0}/vmlinuz\n      \
         initrd: {0}/initrd.gz\n      append: console=tty0 console=ttyS0 quiet panic=-1\n      \
         hostfwd:\n        ssh: {{guestport: 22}}\n        web: {{guestport: 80}}\n",
        files.display()
    )
}

/// A broker, an exporter and a board.
struct Bench {
    home: tempfile::TempDir,
    dev: Running,
}

impl Bench {
    async fn start(yaml: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("exporter.yaml");
        fs::write(&file, yaml).unwrap();
        let mut command = program(&home);
        let mut dev = Running::start(command.args(["dev", "-q", file.to_str().unwrap()]));
        while !dev.line().await.starts_with("lab is up") {}
        Self { home, dev }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = program(&self.home);
        command.arg("-q").args(args);
        command
    }

    async fn run(&self, args: &[&str]) -> Ran {
        run(&mut self.command(args)).await
    }

    /// Runs a command of this host, in this bench's home.
    async fn host(&self, words: &[&str]) -> Ran {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env("HOME", self.home.path()).env_remove("SSH_AUTH_SOCK");
        command.env("XDG_RUNTIME_DIR", self.home.path()).env_remove("NATS_URL");
        command.stdin(Stdio::null()).kill_on_drop(true);
        run(&mut command).await
    }

    fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        let path = self.home.path().join(name);
        fs::write(&path, contents).unwrap();
        path.to_str().unwrap().to_owned()
    }

    async fn log_in(&self) {
        let script = self.file("log-in", LOG_IN);
        let args = ["expect", "lab/board/console", &script, "--set", "password=board"];
        self.run(&args).await.ok();
    }

    async fn end(self) {
        self.run(&["call", "lab/board/power", "off"]).await.ok();
        self.dev.signal("-TERM").await;
        self.dev.ended().await.ok();
    }
}

#[tokio::test]
async fn a_linux_is_logged_in_to_copied_to_and_fetched_from() {
    let Some(files) = board_files().await else { return };
    let bench = Bench::start(&linux(&files)).await;
    bench.run(&["call", "lab/board/power", "on"]).await.ok();
    bench.log_in().await;
    fetch_its_page(&bench).await;
    see_its_screen(&bench).await;
    let password = bench.file("password", "board\n");
    let ssh = ["ssh", "lab/board/ssh", "-l", "root", "--password-file", &password];
    let ssh = async |more: &[&str]| bench.run(&[&ssh[..], more].concat()).await;

    assert_eq!(ssh(&["--", "uname", "-n"]).await.ok(), "board\n");
    let ran = ssh(&["--", "echo out; echo err >&2; exit 7"]).await;
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(7), "out\n", "err\n"));
    let image: Vec<u8> = (0..700_000_u32).map(|at| (at % 249) as u8).collect();
    let (from, back) = (bench.file("image", &image), bench.file("back", ""));
    ssh(&["--put", &from, "/tmp/image", "--get", "/tmp/image", &back]).await.ok();
    assert!(fs::read(&back).unwrap() == image);
    let told = bench.run(&["ssh", "lab/board/ssh", "-l", "root"]).await.failed(26);
    assert!(told.contains("the server takes publickey or password"), "{told}");

    let key = by_the_systems_own(&bench, &ssh, &from, &image).await;
    another_host_key(&bench, &key).await;
    bench.end().await;
}

async fn fetch_its_page(bench: &Bench) {
    let mut forward =
        Running::start(&mut bench.command(&["forward", "lab/board/web", "--tcp", "0"]));
    let url = forward.line().await;
    let mut tcp = TcpStream::connect(url.strip_prefix("tcp://").unwrap()).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut page = String::new();
    tcp.read_to_string(&mut page).await.unwrap();
    assert!(page.ends_with("<h1>jmp-bus board</h1>\n"), "{page}");
    forward.interrupt().await;
    assert_eq!(forward.ended().await.code, Some(130));
}

/// The screen is seen in a browser, and what is typed there arrives on the board.
async fn see_its_screen(bench: &Bench) {
    let Some(chromium) = browser::program() else {
        eprintln!("not tested: there is no browser here; .ci/setup installs chromium");
        return;
    };
    let mut vnc = Running::start(&mut bench.command(&["vnc", "lab/board/vnc"]));
    let url = vnc.line().await;
    let mut page = Browser::open(chromium, &url).await;
    page.is("document.body.dataset.state === 'connected'").await;
    // A frame has come when there is more than darkness.
    page.is(
        "(() => { const c = document.querySelector('#screen canvas'); \
         const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; \
         let lit = 0; for (let i = 0; i < d.length; i += 4) lit += d[i] + d[i + 1] + d[i + 2] > 300; \
         return lit > 1000 })()",
    )
    .await;
    let picture = page.screenshot().await;
    fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("screen.png"), &picture).unwrap();
    let lit = lit(&picture);
    assert!(lit > 500, "{lit} bright points in the picture");

    let script = bench.file("typed", "expect /typed-in-a-browser/ within 30s\n");
    let args = ["expect", "lab/board/console", &script, "--method", "watch"];
    let (seen, ()) = tokio::join!(bench.run(&args), page.types("say typed-in-a-browser\n"));
    seen.ok();
    page.close().await;
    vnc.interrupt().await;
    assert_eq!(vnc.ended().await.code, Some(130));
}

/// How many points of a picture are bright, below the page's own head.
fn lit(picture: &[u8]) -> usize {
    const HEAD_ROWS: usize = 40;
    let mut decoder = png::Decoder::new(std::io::Cursor::new(picture));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut bytes).unwrap();
    let head = HEAD_ROWS * info.line_size;
    let points = bytes[head..info.buffer_size()].chunks(info.color_type.samples());
    points.filter(|point| point.iter().take(3).map(|c| u32::from(*c)).sum::<u32>() > 300).count()
}

/// The system's ssh and scp go through the bus by a configuration that is printed.
async fn by_the_systems_own(
    bench: &Bench,
    ssh: &impl AsyncFn(&[&str]) -> Ran,
    from: &str,
    image: &[u8],
) -> String {
    let key = bench.home.path().join("key").to_str().unwrap().to_owned();
    bench.host(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &key]).await.ok();
    ssh(&["--put", &format!("{key}.pub"), "/tmp/key.pub"]).await.ok();
    let allow = "mkdir -p .ssh && cp /tmp/key.pub .ssh/authorized_keys && chmod -R go-rwx .ssh";
    ssh(&["--", allow]).await.ok();
    let text = bench.run(&["ssh", "--config", "lab/board/ssh", "-l", "root"]).await.ok();
    let config = bench.file("config", text);
    let options = ["-F", &config, "-i", &key, "-o", "BatchMode=yes"];
    let own = async |program: &str, more: &[&str]| {
        bench.host(&[&[program], &options[..], more].concat()).await.ok()
    };
    let ran = own("ssh", &["lab-board-ssh", "uname", "-n"]).await;
    assert_eq!(ran, "board\n");
    own("scp", &["-q", from, "lab-board-ssh:/tmp/by-scp"]).await;
    let back = bench.file("by-scp", "");
    own("scp", &["-q", "lab-board-ssh:/tmp/by-scp", &back]).await;
    assert!(fs::read(&back).unwrap() == image);
    key
}

/// What is known by another key is refused, by us and by OpenSSH, until it is forgotten.
async fn another_host_key(bench: &Bench, key: &str) {
    let known = bench.home.path().join(".local/state/jmp-bus/known_hosts");
    let text = fs::read_to_string(&known).unwrap();
    let name = text.split(' ').next().unwrap();
    let other = fs::read_to_string(format!("{key}.pub")).unwrap();
    fs::write(&known, format!("{name} {other}")).unwrap();
    let ssh = ["ssh", "lab/board/ssh", "-l", "root", "-i", key];
    let told = bench.run(&[&ssh[..], &["--", "true"]].concat()).await.failed(25);
    assert!(told.contains(&format!("THE HOST KEY OF {name} HAS CHANGED")), "{told}");
    let config = bench.home.path().join("config");
    let config = config.to_str().unwrap();
    let refused = bench
        .host(&["ssh", "-F", config, "-i", key, "-o", "BatchMode=yes", "lab-board-ssh", "true"])
        .await;
    assert_eq!(refused.code, Some(255), "{refused:?}");
    assert!(refused.err.contains("REMOTE HOST IDENTIFICATION HAS CHANGED"), "{refused:?}");
    bench.run(&["ssh", "lab/board/ssh", "--forget"]).await.ok();
    assert_eq!(bench.run(&[&ssh[..], &["--", "uname", "-n"]].concat()).await.ok(), "board\n");
}

/// Stops a U-Boot at its prompt and asks it something.
const STOP_IT: &str = r#"
timeout 30s
expect "Hit any key to stop autoboot"
send " "
expect "\n=> "
line "echo this is ${arch}"
expect /this is (\w+)\r\n/
"#;

#[tokio::test]
async fn a_boot_loader_is_stopped_by_a_script() {
    if !Path::new("/usr/lib/u-boot/qemu_arm64/u-boot.bin").exists() {
        eprintln!("not tested: there is no U-Boot here; .ci/setup installs it");
        return;
    }
    let yaml = "metadata: {name: lab}\nexport:\n  board:\n    type: qemu\n    config: {arch: \
                aarch64, cpu: cortex-a57, smp: 1, mem: 256M, bios: \
                /usr/lib/u-boot/qemu_arm64/u-boot.bin}\n";
    let bench = Bench::start(yaml).await;
    let script = bench.file("stop-it", STOP_IT.replace("${", "\\${"));
    let mut expect = bench.command(&["expect", "lab/board/console", &script, "-o", "json"]);
    let on = bench.command(&["call", "lab/board/power", "on"]).output();
    let (ran, on) = tokio::join!(run(&mut expect), on);
    assert!(on.unwrap().status.success());
    let last: serde_json::Value = serde_json::from_str(ran.ok().lines().last().unwrap()).unwrap();
    assert_eq!(last["groups"][0], "arm", "{last}");
    bench.end().await; // an idle U-Boot keeps a processor busy
}
