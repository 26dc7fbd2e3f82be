//! What `jmp-bus doctor` looks at: whether the broker lets a user do what its role is for.

use std::time::Duration;

use bus_schema::{
    Incarnation, Root, Session,
    permission::Role,
    subject::{Inbox, Streams, SubjectSet},
};
use bytes::Bytes;
use tokio::time::timeout;

use super::{BusError, Conn, Denial, random};
use crate::Settings;

/// A broker that is well answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// Denials come by another way than the sentinel that is sent behind what was denied.
const DENIALS_WITHIN: Duration = Duration::from_millis(200);
/// A name in the place of a wildcard: it is nobody's.
const NOBODY: &str = "doctor";

/// What a user with a role was found to be able to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkup {
    /// What was tried.
    pub tried: usize,
    /// What was denied though the role is for it, as `publish a.b`.
    pub denied: Vec<String>,
    /// Streams that should be there and are not.
    pub missing_streams: Vec<String>,
}

impl Settings {
    /// Tries everything that `role` may do under `root` as `name`. Nobody is disturbed by it.
    ///
    /// # Errors
    ///
    /// [`BusError`] if the broker cannot be asked.
    pub async fn check_up(&self, root: &Root, role: Role, name: &str) -> Result<Checkup, BusError> {
        let conn = self.connect("jmp-bus doctor").await?;
        let checkup = check_up(&conn, root, role, name).await;
        conn.close().await;
        checkup
    }
}

async fn check_up(conn: &Conn, root: &Root, role: Role, name: &str) -> Result<Checkup, BusError> {
    let may = role.permissions(root, name);
    let inbox = own_inbox(root, role, name)?;
    let mut checkup = Checkup::default();
    let mut denials = conn.denials.listen();
    let mut subscriptions = Vec::new();
    for pattern in &may.subscribe {
        subscriptions.push(conn.subscribe(pattern.clone()).await?);
    }
    // Whatever is said there is stored.
    let stored = SubjectSet::Files.pattern(root, name);
    for pattern in may.publish.iter().filter(|pattern| **pattern != stored) {
        let subject = example(pattern);
        conn.request(subject, inbox.token(random()), Bytes::new()).await?;
    }
    checkup.tried = may.subscribe.len() + may.publish.len();
    let confirmed = conn.confirm(inbox.token(random()), name, &[]).await;
    while let Ok(Ok(Denial { action, subject })) = timeout(DENIALS_WITHIN, denials.recv()).await {
        checkup.denied.push(format!("{action} {subject}"));
    }
    drop(subscriptions);
    match confirmed {
        // It is among them.
        Err(BusError::Denied { .. }) => return Ok(checkup),
        confirmed => confirmed?,
    }
    checkup.missing_streams = missing_streams(conn, root, &may.publish, &inbox, name).await?;
    Ok(checkup)
}

/// A subject of the pattern that means nothing to anybody.
fn example(pattern: &str) -> String {
    let token = |token| if matches!(token, "*" | ">") { NOBODY } else { token };
    pattern.split('.').map(token).collect::<Vec<_>>().join(".")
}

fn own_inbox(root: &Root, role: Role, name: &str) -> Result<Inbox, BusError> {
    let unfit = |error: bus_schema::NameError| BusError::Unfit(error.to_string());
    Ok(match role {
        Role::Exporter => {
            Inbox::of_exporter(root, &name.parse().map_err(unfit)?, Incarnation(random()))
        }
        Role::Client | Role::Observer | Role::Admin | Role::Leaf => {
            Inbox::of_client(root, &name.parse().map_err(unfit)?, Session(random()))
        }
    })
}

/// The streams that one may read and that do not answer. What is in them does not matter.
async fn missing_streams(
    conn: &Conn,
    root: &Root,
    may_publish: &[String],
    inbox: &Inbox,
    name: &str,
) -> Result<Vec<String>, BusError> {
    let Streams { out, registry, events, logs, files, admin } = Streams::of(root);
    let mut missing = Vec::new();
    for stream in [out, registry, events, logs, files, admin] {
        let whole = Streams::direct_get_many(&stream);
        let one = format!("{whole}.");
        let (subject, body) = if may_publish.contains(&whole) {
            (whole, r#"{"seq":1}"#)
        } else if let Some(some) = may_publish.iter().find(|subject| subject.starts_with(&one)) {
            (some.clone(), "")
        } else {
            continue;
        };
        let reply = inbox.token(random());
        let answer = conn.asked(subject, reply, body.into(), PATIENCE, name).await?;
        if answer.is_no_responders() {
            missing.push(stream);
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_means_nothing_to_anybody() {
        assert_eq!(example("r.v1.x.*.out.alice.>"), "r.v1.x.doctor.out.alice.doctor");
        assert_eq!(example("a.b"), "a.b");
    }
}
