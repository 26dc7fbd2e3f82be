//! `jmp-bus vnc`: the board's screen in a browser.

use std::process::Stdio;

use actors::{NovncAdapter, StreamMethod};
use serde_json::json;
use tokio::process::Command;

use crate::{
    advice::CliError,
    args::variable,
    request::{Asked, has_one_of},
    session::Session,
};

/// Show the board's screen in a browser.
///
/// Prints the address of a page for a browser of this host. Who has the address may use the screen,
/// so it has a random part; nobody else's page can, and nothing is fetched from another host.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    #[command(flatten)]
    asked: Asked,
    /// The stream to show: one of the RFB protocol (VNC).
    #[arg(long, default_value = "connect")]
    method: String,
    /// The port of the loopback interface; 0 is any free one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
    /// Open the page in the browser of this user.
    #[arg(long)]
    open: bool,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let client = session.client().await?;
        let (driver, found) = self.asked.found(client).await?;
        if let Some(found) = &found {
            has_one_of(client, found, &[&self.method]).await?;
        }
        let stream = StreamMethod::named(driver, &self.method);
        let title = self.asked.target.to_string();
        let mut page = stream.adapt(NovncAdapter { title, port: self.port }).await?;
        let url = page.url().to_owned();
        session.out.document(&json!({ "url": url }), || format!("{url}\n")).await?;
        if self.open {
            open(session, &url);
        }
        loop {
            let trouble = page.trouble().await;
            session.out.note(trouble);
        }
    }
}

/// Hands the page to the user's browser. That may fail, which is no reason not to serve it.
fn open(session: &Session, url: &str) {
    let browser = variable("BROWSER").unwrap_or_else(|| "xdg-open".to_owned());
    let mut command = Command::new(&browser);
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Err(error) = command.spawn() {
        session.out.note(format_args!("cannot start {browser} ({error}): open the page yourself"));
    }
}
