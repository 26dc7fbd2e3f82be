//! `leases`, `access`, `groups` and `hooks`.

use std::time::Duration;

use super::{good, said};
use crate::HookFailure;

const DRIVER: &str = "export: {m: {type: fake-machine}}";

#[test]
fn a_file_without_a_word_of_leases_lends_to_anybody_and_requires_none() {
    let config = good(&format!("name: b\n{DRIVER}"));
    assert_eq!(config.leases, crate::LeaseRules::default());
    assert!(!config.leases.required && config.hooks.before.is_none());
}

#[test]
fn rules_are_read_and_groups_are_their_members() {
    let config = good(&format!(
        "name: b\nleases: {{keepAlive: 30s, duration: 10m, maxDuration: 4h, subtrees: [m]}}\n\
         groups: {{ci: [ci-1, ci-2]}}\n\
         access:\n  - {{groups: [ci], clients: ['dev-*'], subtrees: [m], maxDuration: 1h, maxPriority: 5, maxLeases: 2}}\n\
         hooks:\n  beforeLease: {{script: 'true', exec: /bin/bash, timeout: 5, onFailure: endLease}}\n  afterLease: {{script: date}}\n  healthCheck: {{script: 'ping board', timeout: 3}}\n{DRIVER}"
    ));
    let rules = config.leases;
    assert!(rules.required, "where there is access, calls need a lease");
    assert_eq!(
        (rules.keep_alive, rules.duration),
        (Duration::from_secs(30), Duration::from_secs(600))
    );
    assert_eq!(rules.access[0].clients, ["dev-*", "ci-1", "ci-2"]);
    assert_eq!((rules.access[0].priority_max, rules.access[0].leases_max), (Some(5), Some(2)));
    let before = config.hooks.before.unwrap();
    assert_eq!(
        (before.timeout, before.on_failure),
        (Duration::from_secs(5), HookFailure::EndLease)
    );
    let after = config.hooks.after.unwrap();
    assert_eq!((after.timeout, after.on_failure), (Duration::from_secs(120), HookFailure::Warn));
}

#[test]
fn what_makes_no_sense_about_leases_is_told() {
    let told = said(&format!(
        "name: b\nleases: {{keepAliv: 30s, duration: 3h, maxDuration: 2h, subtrees: [m, m/x]}}\n\
         access: [{{groups: [nobody]}}]\nhooks: {{afterLease: {{onFailure: warn}}}}\n{DRIVER}"
    ));
    for part in [
        "unknown key \"keepAliv\"; did you mean \"keepAlive\"?",
        "there is no group \"nobody\"",
        "the key \"script\" is missing",
    ] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    let told = said(&format!(
        "name: b\nleases: {{keepAlive: 100ms, duration: 3h, maxDuration: 2h, subtrees: [m, m/x]}}\n{DRIVER}"
    ));
    for part in ["shorter than a second", "at most \"maxDuration\"", "m/x lies in another"] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
}
