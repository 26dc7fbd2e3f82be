//! A real browser without a window, driven by its DevTools protocol.

use std::{fs, path::Path, process::Stdio, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

/// A browser on a busy machine takes its time to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A page in a browser. It ends when it is dropped; [`close`](Self::close) leaves nothing behind.
pub(crate) struct Browser {
    socket: WebSocketStream<TcpStream>,
    session: String,
    asked: u64,
    browser: Child,
    profile: TempDir,
}

/// Where the browser is, if it is installed.
pub(crate) fn program() -> Option<&'static str> {
    ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
        .into_iter()
        .find(|path| Path::new(path).exists())
}

impl Browser {
    /// Opens a page.
    pub(crate) async fn open(program: &str, url: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new(program);
        command.env("TMPDIR", profile.path());
        command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]);
        command.args(["--remote-debugging-port=0", "--window-size=900,700"]);
        // Nothing of it is to look for another host.
        command.args(["--disable-background-networking", "--disable-component-update"]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut browser = command.kill_on_drop(true).spawn().unwrap();
        let mut said = BufReader::new(browser.stderr.take().unwrap()).lines();
        let listening = async {
            loop {
                let line = said.next_line().await.unwrap().expect("it ends without a word");
                if let Some((_, url)) = line.split_once("DevTools listening on ") {
                    return url.trim().to_owned();
                }
            }
        };
        let devtools = timeout(PATIENCE, listening).await.expect("DevTools in time");
        let address = devtools.split('/').nth(2).unwrap();
        let tcp = TcpStream::connect(address).await.unwrap();
        let (socket, _) = client_async(&devtools, tcp).await.unwrap();
        let mut page = Self { socket, session: String::new(), asked: 0, browser, profile };
        let target = page.ask("Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = page.ask("Target.attachToTarget", attach).await;
        page.session = attached["sessionId"].as_str().unwrap().to_owned();
        page.ask("Page.navigate", json!({ "url": url })).await;
        page
    }

    /// Asks for something, and gives the answer.
    async fn ask(&mut self, method: &str, params: Json) -> Json {
        self.asked += 1;
        let id = self.asked;
        let mut request = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() {
            request["sessionId"] = self.session.clone().into();
        }
        self.socket.send(Message::text(request.to_string())).await.unwrap();
        let answer = async {
            loop {
                let message = self.socket.next().await.expect("the browser has ended").unwrap();
                let Message::Text(text) = message else { continue };
                let mut said: Json = serde_json::from_str(&text).unwrap();
                if said["id"] == id {
                    assert!(said["error"].is_null(), "{method}: {said}");
                    return said["result"].take();
                }
            }
        };
        timeout(PATIENCE, answer).await.unwrap_or_else(|_| panic!("{method} is not answered"))
    }

    /// What a promise of the page gives.
    pub(crate) async fn eval(&mut self, promise: &str) -> Json {
        let params = json!({
            "expression": promise, "awaitPromise": true, "returnByValue": true,
        });
        let mut said = self.ask("Runtime.evaluate", params).await;
        assert!(said["exceptionDetails"].is_null(), "{promise}: {said}");
        said["result"]["value"].take()
    }

    /// Waits until an expression is true in the page.
    pub(crate) async fn is(&mut self, wanted: &str) {
        let promise = format!(
            "new Promise(done => {{ const look = () => {{ try {{ if ({wanted}) return done(true) }} \
             catch {{}} requestAnimationFrame(look) }}; look() }})"
        );
        // The page may be replaced while it is asked, which ends the promise without an answer.
        assert_eq!(self.eval(&promise).await, true, "{wanted}");
    }

    /// Types, as a keyboard does; letters, digits, space, `-` and Enter.
    pub(crate) async fn types(&mut self, text: &str) {
        for key in text.chars() {
            let (code, name) = match key {
                'a'..='z' => (format!("Key{}", key.to_ascii_uppercase()), key.to_string()),
                '0'..='9' => (format!("Digit{key}"), key.to_string()),
                ' ' => ("Space".to_owned(), " ".to_owned()),
                '-' => ("Minus".to_owned(), "-".to_owned()),
                '\n' => ("Enter".to_owned(), "Enter".to_owned()),
                other => panic!("{other:?} is on no key here"),
            };
            for kind in ["rawKeyDown", "keyUp"] {
                let event = json!({ "type": kind, "code": code, "key": name });
                self.ask("Input.dispatchKeyEvent", event).await;
            }
        }
    }

    /// A picture of the page: PNG.
    pub(crate) async fn screenshot(&mut self) -> Vec<u8> {
        let shot = self.ask("Page.captureScreenshot", json!({ "format": "png" })).await;
        BASE64.decode(shot["data"].as_str().unwrap()).unwrap()
    }

    /// Ends the browser, and returns when nothing is left of it.
    pub(crate) async fn close(mut self) {
        let request = json!({ "id": 0, "method": "Browser.close" });
        self.socket.send(Message::text(request.to_string())).await.unwrap();
        timeout(PATIENCE, self.browser.wait()).await.expect("it ends").unwrap();
        let profile = self.profile.path();
        // Its helpers end a moment later, and write to the last.
        let gone = async {
            while fs::remove_dir_all(profile).is_err() && profile.exists() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, gone).await.expect("its profile can be removed");
    }
}
