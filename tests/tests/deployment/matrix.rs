//! Every role at every subject: what the broker lets through is what the table of permissions
//! says, and what it denies is in its log.

use std::collections::BTreeSet;

use bus_schema::{
    Session,
    permission::{Permissions, Role, TABLE},
    subject::Inbox,
};
use bus_tests::{Deployment, settled};
use bytes::Bytes;

const DOCUMENT: &str = include_str!("../../../bus-schema/PROTOCOL.md");

/// Two of each sort, and two who share a name with one of another sort.
const USERS: &[(Role, &str)] = &[
    (Role::Client, "alice"),
    (Role::Client, "bob"),
    (Role::Client, "bench"),
    (Role::Observer, "eve"),
    (Role::Admin, "root"),
    (Role::Exporter, "bench"),
    (Role::Exporter, "rogue"),
    (Role::Exporter, "alice"),
];

/// The subjects of PROTOCOL.md's table, as each of these clients and exporters has them.
fn subjects() -> BTreeSet<String> {
    let section = DOCUMENT.split("## 3. Subjects").nth(1).expect("a section");
    let section = section.split("### 3.1").next().expect("a section");
    let mut found = BTreeSet::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let row = line.split('`').nth(1).expect("a subject");
        for client in ["alice", "bob", "bench", "eve", "root", "exporter"] {
            for exporter in ["bench", "rogue", "alice"] {
                found.insert(example(row, client, exporter));
            }
        }
    }
    assert!(found.len() > 100, "the table was not found: {found:?}");
    found
}

fn example(row: &str, client: &str, exporter: &str) -> String {
    if row.starts_with("$SRV") {
        return "$SRV.PING".to_owned();
    }
    let token = |token: &str| match token {
        "…" => "jmp.v1".to_owned(),
        "C" => client.to_owned(),
        "E" => exporter.to_owned(),
        "S" | "T" | "D" => "1".to_owned(),
        other if other.starts_with('<') => "1".to_owned(),
        other => other.to_owned(),
    };
    let rest = row.strip_prefix("….").unwrap_or_else(|| panic!("{row}: no subject"));
    format!("jmp.v1.{}", rest.split('.').map(token).collect::<Vec<_>>().join("."))
}

/// What nobody should be let through by a wide subscription, and what each row of the table is.
fn patterns(root: &bus_schema::Root) -> BTreeSet<String> {
    let mut all: BTreeSet<_> = [
        ">",
        "*.>",
        "jmp.>",
        "jmp.v1.>",
        "jmp.v1.c.>",
        "jmp.v1.c.*.*.>",
        "jmp.v1.x.>",
        "jmp.v1.i.>",
        "jmp.v1.i.*.>",
        "jmp.v1.ix.>",
        "jmp.v1.x.*.down.>",
        "jmp.v1.x.*.out.>",
        "_INBOX.>",
        "$JS.>",
        "$SYS.>",
        "$SRV.>",
        "$KV.>",
        "jmp.v1.c.alice.>",
        "jmp.v1.c.bob.>",
    ]
    .map(str::to_owned)
    .into();
    for name in ["alice", "bob", "bench", "rogue", "eve", "root"] {
        all.extend(TABLE.iter().map(|row| row.subjects.pattern(root, name)));
    }
    all
}

/// What JetStream can be asked, about each stream.
fn jetstream() -> Vec<String> {
    let mut all = vec!["$JS.API.INFO".to_owned(), "$JS.API.STREAM.NAMES".to_owned()];
    for stream in ["jmp_out", "jmp_registry", "jmp_events", "jmp_logs", "mine"] {
        for verb in [
            "STREAM.CREATE",
            "STREAM.UPDATE",
            "STREAM.DELETE",
            "STREAM.PURGE",
            "STREAM.INFO",
            "STREAM.MSG.DELETE",
            "STREAM.MSG.GET",
            "STREAM.SNAPSHOT",
            "STREAM.RESTORE",
            "CONSUMER.CREATE",
            "CONSUMER.DURABLE.CREATE",
            "CONSUMER.NAMES",
            "CONSUMER.LIST",
        ] {
            all.push(format!("$JS.API.{verb}.{stream}"));
        }
        for verb in ["CREATE", "DELETE", "INFO", "MSG.NEXT"] {
            all.push(format!("$JS.API.CONSUMER.{verb}.{stream}.c"));
        }
        all.push(format!("$JS.ACK.{stream}.c.1.1.1.1.1"));
    }
    all
}

fn own_inbox(deployment: &Deployment, role: Role, name: &str) -> String {
    let (session, root) = (Session(1), &deployment.root);
    match role {
        Role::Exporter => {
            let (name, run) = (name.parse().expect("a name"), bus_schema::Incarnation(1));
            Inbox::of_exporter(root, &name, run).token(7)
        }
        _ => Inbox::of_client(root, &name.parse().expect("a name"), session).token(7),
    }
}

/// Tries everything as one user, and says what was not as the table has it.
async fn surprises(deployment: &Deployment, role: Role, name: &str) -> anyhow::Result<Vec<String>> {
    let may: Permissions = role.permissions(&deployment.root, name);
    let who = format!("{role} {name}");
    let nats = deployment.nats(role, name).await?;
    let own = own_inbox(deployment, role, name);
    let mut said = subjects();
    // An admin's would be obeyed.
    said.extend(jetstream().into_iter().filter(|_| role != Role::Admin));
    let mut heard = subjects();
    heard.extend(patterns(&deployment.root));
    for subject in &said {
        nats.publish(subject.clone(), Bytes::new()).await?;
    }
    let mut listening = Vec::new();
    for pattern in &heard {
        listening.push(nats.subscribe(pattern.clone()).await?);
    }
    settled(&nats, own).await?;
    let denials = deployment.denials();
    let denied = |how: &str, subject: &String| {
        denials.contains(&(who.clone(), how.to_owned(), subject.clone()))
    };
    let mut surprises = Vec::new();
    for subject in &said {
        let denied = denied("Publish", subject);
        if denied == may.may_publish(subject) {
            surprises.push(format!("{who} publishes {subject}: denied is {denied}"));
        }
    }
    for pattern in &heard {
        let denied = denied("Subscription", pattern);
        if denied == may.may_subscribe(pattern) {
            surprises.push(format!("{who} subscribes {pattern}: denied is {denied}"));
        }
    }
    Ok(surprises)
}

#[tokio::test]
async fn the_broker_lets_through_what_the_table_says_and_denies_the_rest() -> anyhow::Result<()> {
    let deployment = Deployment::start().await?;
    let mut all = Vec::new();
    for (role, name) in USERS {
        all.extend(surprises(&deployment, *role, name).await?);
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
    Ok(())
}

/// What must never be possible, said without the table: were the table wrong, this would tell.
#[test]
fn the_table_gives_nobody_what_is_anothers() {
    let root = bus_schema::Root::default();
    for (role, name) in USERS {
        let may = role.permissions(&root, name);
        let is_exporter = *role == Role::Exporter;
        for other in ["alice", "bob", "bench", "rogue", "eve", "root", "mallory"] {
            let same = other == *name;
            let who = format!("{role} {name} at {other}'s");
            let speaks = may.may_publish(&format!("jmp.v1.c.{other}.call.lab.d.on"));
            assert_eq!(speaks, same && matches!(role, Role::Client | Role::Admin), "{who}");
            let serves = may.may_publish(&format!("jmp.v1.x.{other}.presence"));
            assert_eq!(serves, same && is_exporter, "{who}");
            let hears = may.may_subscribe(&format!("jmp.v1.c.*.*.{other}.>"));
            assert_eq!(hears, same && is_exporter, "{who}");
            let answered = may.may_subscribe(&format!("jmp.v1.i.{other}.>"));
            assert_eq!(answered, same && !is_exporter, "{who}");
            let acknowledged = may.may_subscribe(&format!("jmp.v1.ix.{other}.>"));
            assert_eq!(acknowledged, same && is_exporter, "{who}");
            let sees = may.may_subscribe(&format!("jmp.v1.x.*.down.{other}.>"));
            let sees_all = matches!(role, Role::Observer | Role::Admin);
            assert_eq!(sees, sees_all || (same && !is_exporter), "{who}");
        }
        assert!(
            !may.may_publish(&format!("jmp.v1.c.{name}.admin.lab._._")) || *role == Role::Admin
        );
        assert!(!may.may_subscribe("jmp.v1.c.>") && !may.may_subscribe("$SYS.>"));
        for subject in jetstream() {
            assert_eq!(
                may.may_publish(&subject),
                *role == Role::Admin && !subject.contains("ACK"),
                "{subject}"
            );
        }
        assert!(!may.may_publish("$SYS.REQ.CLAIMS.UPDATE"));
        if *role == Role::Client {
            assert!(!may.may_publish("$JS.API.DIRECT.GET.jmp_out"), "all records of everybody");
        }
    }
}
