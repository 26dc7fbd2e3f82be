//! What is asked of the broker itself, in its system account.

/// Asks the broker to take an account's new JWT.
pub const CLAIMS_UPDATE: &str = "$SYS.REQ.CLAIMS.UPDATE";

/// Asks the broker for the JWT of `account` that it has.
pub fn claims_lookup(account: &str) -> String {
    format!("$SYS.REQ.ACCOUNT.{account}.CLAIMS.LOOKUP")
}

/// Where its answers go: an inbox of NATS's own form, as names of ours mean nothing there.
pub const INBOXES: &str = "_INBOX.>";
