//! Files that are lent while they are stored, where each may do what its role may.

use std::time::Duration;

use anyhow::Context as _;
use bus_schema::{
    BlockPart, Coding, Sha256,
    permission::Role,
    subject::{Piece, Stored, StoredTo, Streams},
};
use bus_tests::{Deployment, Taker, TakerClient, settled};
use futures_util::StreamExt as _;
use runtime::{Exporter, ExporterConfig, Node, Put};
use tokio::time::timeout;

use crate::life;

const GRACE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_part_goes_to_its_exporter_and_to_jetstream_and_nobody_else_hears_it()
-> anyhow::Result<()> {
    let deployment = Deployment::start().await?;
    let root = &deployment.root;
    let alice = deployment.nats(Role::Client, "alice").await?;
    let bench = deployment.nats(Role::Exporter, "bench").await?;
    let other = deployment.nats(Role::Exporter, "other").await?;
    let (client, exporter, block) = ("alice".parse()?, "bench".parse()?, Sha256([7; 32]));
    let to = StoredTo { client, exporter, block, part: 0 };
    let wildcard = StoredTo::parts_of(root, &to.client, &to.exporter, block);
    let mut heard = bench.subscribe(wildcard.clone()).await?;
    let _denied = other.subscribe(wildcard.clone()).await?;
    settled(&bench, "jmp.v1.ix.bench.1.1".to_owned()).await?;
    settled(&other, "jmp.v1.ix.other.1.1".to_owned()).await?;
    assert!(deployment.denied("exporter other", "Subscription", &wildcard));

    let reply = "jmp.v1.i.alice.1.2";
    let mut acks = alice.subscribe(reply).await?;
    let part = BlockPart { parts: 1, bytes: 1, coding: Coding::Plain, data: "x".into() }.encode();
    alice.publish_with_reply(to.under(root), reply, part.clone()).await?;
    let ack = timeout(GRACE, acks.next()).await?.context("an acknowledgement")?;
    let ack: serde_json::Value = serde_json::from_slice(&ack.payload)?;
    assert_eq!(ack["stream"], "jmp_files", "{ack}");
    let came = timeout(GRACE, heard.next()).await?.context("the part")?;
    assert_eq!((StoredTo::read(root, &came.subject)?, &came.payload), (to.clone(), &part));

    // It is stored where every exporter looks.
    let stored = Stored { client: to.client, piece: Piece::Part(block, 0) }.under(root);
    let get = Streams::direct_get(&Streams::of(root).files, &stored);
    let reply = "jmp.v1.ix.other.1.2";
    let mut answers = other.subscribe(reply).await?;
    other.publish_with_reply(get, reply, "".into()).await?;
    let answer = timeout(GRACE, answers.next()).await?.context("an answer")?;
    assert_eq!(answer.payload, part);
    Ok(())
}

#[tokio::test]
async fn so_it_does_from_and_to_a_leaf() -> anyhow::Result<()> {
    let (deployment, leaf) = Deployment::start_with_leaf().await?;
    let root = &deployment.root;
    let near = async |role, name| deployment.nats(role, name).await;
    let far = async |role, name| deployment.nats_at(&leaf, role, name).await;
    let (alice, bench) = (near(Role::Client, "alice").await?, near(Role::Exporter, "bench").await?);
    let far_alice = far(Role::Client, "alice").await?;
    let far_bench = far(Role::Exporter, "bench").await?;
    let pairs = [(&far_alice, &far_bench), (&far_alice, &bench), (&alice, &far_bench)];
    let part = BlockPart { parts: 1, bytes: 1, coding: Coding::Plain, data: "x".into() }.encode();
    for (byte, (alice, bench)) in (0..).zip(pairs) {
        let (client, exporter, block) = ("alice".parse()?, "bench".parse()?, Sha256([byte; 32]));
        let to = StoredTo { client, exporter, block, part: 0 };
        let wildcard = StoredTo::parts_of(root, &to.client, &to.exporter, block);
        let mut heard = bench.subscribe(wildcard).await?;
        let reply = format!("jmp.v1.i.alice.2.{byte}");
        let mut acks = alice.subscribe(reply.clone()).await?;
        // Until both brokers know of each other, and of who listens.
        let both = async {
            loop {
                let (to, reply) = (to.under(root), reply.clone());
                alice.publish_with_reply(to, reply, part.clone()).await?;
                let soon = Duration::from_millis(200);
                let ack = timeout(soon, acks.next()).await.ok().flatten();
                let came = timeout(soon, heard.next()).await.ok().flatten();
                if let (Some(ack), Some(came)) = (ack, came)
                    && ack.status.is_none()
                {
                    return anyhow::Ok((ack, came));
                }
            }
        };
        let (ack, came) = timeout(GRACE, both).await.context("it does not come through")??;
        let ack: serde_json::Value = serde_json::from_slice(&ack.payload)?;
        assert_eq!((&ack["stream"], &came.payload), (&"jmp_files".into(), &part), "{byte}: {ack}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_lent_while_it_is_stored() -> anyhow::Result<()> {
    let deployment = Deployment::start().await?;
    let config = ExporterConfig {
        root: deployment.root.clone(),
        ..ExporterConfig::new("bench".parse()?, Node::of("taker", Taker::default()))
    };
    let settings = deployment.settings(Role::Exporter, "bench")?;
    let exporter = Exporter::start(config, settings).await?;
    let alice = life::client(&deployment, Role::Client, "alice").await?;
    let path = deployment.dir.path().join("disk.img");
    std::fs::write(&path, (0..20_u32 << 20).map(|n| (n % 251) as u8).collect::<Vec<_>>())?;
    let storing = alice.store(Put::new(&path)).await?;
    let bench = TakerClient::new(alice.driver(&"bench".parse()?));
    let took = bench.take(&storing).await?;
    assert_eq!(took.bytes, 20 << 20);
    let stored = storing.stored().await?;
    assert_eq!(bench.take(&stored).await?.sha256, took.sha256);
    alice.close().await;
    Ok(exporter.shutdown(GRACE).await?)
}
