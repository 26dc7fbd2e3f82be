//! stub
fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let server = std::env::var("NATS_URL").ok();
    let token = std::env::var("NATS_TOKEN").ok();
    if args[1] == "__bare-call" {
        return jmp_bus::bench::bare_call(&server.unwrap(), token, &args[2]);
    }
    let rt = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    rt.block_on(async {
        if args[1] == "bench" && args.len() > 2 && args[2] == "--peer" {
            let kind = match args[3].as_str() {
                "floor" => jmp_bus::bench::PeerKind::Floor,
                "bus" => jmp_bus::bench::PeerKind::Bus,
                _ => jmp_bus::bench::PeerKind::Fleet,
            };
            let settings = runtime::Settings {
                servers: vec![server.unwrap()],
                auth: runtime::Auth::Token(runtime::Secret::new(token.unwrap())),
                ..Default::default()
            };
            return jmp_bus::bench::serve_as(kind, settings, args[5].parse()?, || {
                println!("ready")
            })
            .await;
        }
        let broker = runtime::LocalBroker::start(Default::default()).await?;
        let settings = broker.connect_settings();
        let runtime::Auth::Token(token) = &settings.auth else { panic!() };
        let environment = vec![
            ("NATS_URL".to_owned(), broker.url()),
            ("NATS_TOKEN".to_owned(), token.expose().to_owned()),
        ];
        let bench = jmp_bus::bench::Bench {
            settings,
            root: "bench".parse()?,
            rounds: 5,
            scale: 1.0,
            only: args[2..].to_vec(),
            program: vec![std::env::current_exe()?.display().to_string(), "bench".to_owned()],
            environment,
        };
        bench.run(|row| println!("{row}")).await?;
        broker.stop().await;
        Ok(())
    })
}
