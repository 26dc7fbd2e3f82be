//! A client that a test can kill and stop: `test-client URL TOKEN ROOT NAME BOARDS`. It leases the
//! first of the boards that it can have, uses it, gives it back, and begins anew, for ever.

use std::time::Duration;

use bus_schema::Address;
use bus_tests::TestDriverClient;
use runtime::{Auth, Client, Lease, LeaseRequest, Secret, Settings};

/// Calls under each lease.
const CALLS: usize = 3;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, token, root, name, boards] = args.as_slice() else {
        anyhow::bail!("test-client URL TOKEN ROOT NAME BOARDS");
    };
    let settings = Settings {
        servers: vec![url.clone()],
        auth: Auth::Token(Secret::new(token.clone())),
        ..Settings::default()
    };
    let boards = boards.split(',').map(str::parse).collect::<Result<Vec<Address>, _>>()?;
    let client = Client::connect(settings, root.parse()?, name.parse()?).await?;
    let request = LeaseRequest { wait: Duration::from_secs(30), ..LeaseRequest::default() };
    loop {
        // Whatever goes wrong, exporters are killed here, and clients stopped.
        if let Ok(leases) = client.leases(&boards, 1, &request).await {
            for lease in leases {
                use_board(&lease).await;
                let _ = lease.release().await;
            }
        }
    }
}

/// The board writes down who uses it, under which lease.
async fn use_board(lease: &Lease) {
    let driver = lease.driver(&lease.address()).with_deadline(Duration::from_secs(5));
    let board = TestDriverClient::new(driver);
    for _ in 0..CALLS {
        if board.under(lease.epoch()).await.is_err() {
            return;
        }
    }
}
