//! What NATS is told when a connection is made.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_nats::ConnectOptions;

use crate::{
    authority::render,
    settings::{Auth, Settings, SettingsError},
};

/// A peer that is gone without a word is noticed after two of these.
const PING_EVERY: Duration = Duration::from_secs(10);

/// The first wait of a reconnect: a server that restarts is back before a caller gives up.
const RECONNECT_AFTER_MIN: Duration = Duration::from_millis(50);

/// The longest wait: how late a lab may notice that its broker is back.
const RECONNECT_AFTER_MAX: Duration = Duration::from_secs(2);

impl Settings {
    /// The options of a connection to [`servers`](Self::servers). Files are read here. A first
    /// connection is tried once; a lost one is made again for ever.
    ///
    /// # Errors
    ///
    /// [`SettingsError::File`] and [`SettingsError::Content`], about a file with credentials.
    pub fn options(&self) -> Result<ConnectOptions, SettingsError> {
        let mut options = ConnectOptions::new()
            .name(self.name.as_deref().unwrap_or("jmp-bus"))
            .ping_interval(PING_EVERY)
            .max_reconnects(None)
            .reconnect_delay_callback(delays())
            .require_tls(self.tls.is_required());
        if let Some(ca) = &self.tls.ca {
            options = options.add_root_certificates(ca.clone());
        }
        if let (Some(cert), Some(key)) = (&self.tls.cert, &self.tls.key) {
            options = options.add_client_certificate(cert.clone(), key.clone());
        }
        if self.tls.first {
            options = options.tls_first();
        }
        if let Some(prefix) = &self.inbox_prefix {
            options = options.custom_inbox_prefix(prefix);
        }
        with_auth(options, &self.auth)
    }
}

fn with_auth(options: ConnectOptions, auth: &Auth) -> Result<ConnectOptions, SettingsError> {
    Ok(match auth {
        Auth::None => options,
        Auth::Token(token) => options.token(token.expose().to_owned()),
        Auth::UserPassword { user, password } => {
            options.user_and_password(user.clone(), password.expose().to_owned())
        }
        Auth::Creds(file) => {
            with_creds(options, &read("creds", file)?).ok_or_else(|| SettingsError::Content {
                field: "creds",
                file: file.clone(),
                lacks: "user JWT and its seed",
            })?
        }
        Auth::CredsText(creds) => {
            with_creds(options, creds.expose()).expect("credentials of our own are whole")
        }
        Auth::Nkey(file) => options.nkey(seed(file)?),
        // A bearer JWT is its own proof: there is nothing to sign with.
        Auth::Jwt { jwt, seed: None } => {
            options.jwt(jwt.expose().to_owned(), |_nonce| async { Ok(Vec::new()) })
        }
        Auth::Jwt { jwt, seed: Some(file) } => {
            with_creds(options, &render(jwt.expose(), &seed(file)?)).ok_or_else(|| no_seed(file))?
        }
    })
}

/// The error of the library is dropped, as it might quote what it could not read.
fn with_creds(options: ConnectOptions, creds: &str) -> Option<ConnectOptions> {
    options.credentials(creds).ok()
}

/// The user's seed in a file, which may have decoration around it.
fn seed(file: &Path) -> Result<String, SettingsError> {
    let text = read("nkey", file)?;
    let seed = text.lines().map(str::trim).find(|line| is_seed(line));
    seed.map(str::to_owned).ok_or_else(|| no_seed(file))
}

fn is_seed(line: &str) -> bool {
    line.len() == 58
        && line.starts_with("SU")
        && line.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7'))
}

fn no_seed(file: &Path) -> SettingsError {
    SettingsError::Content { field: "nkey", file: file.to_owned(), lacks: "seed of a user (SU…)" }
}

fn read(field: &'static str, file: &Path) -> Result<String, SettingsError> {
    fs::read_to_string(file).map_err(|source| SettingsError::File {
        field,
        file: file.to_owned(),
        source,
    })
}

/// NATS asks for a delay before every attempt, the very first included, which must not wait.
fn delays() -> impl Fn(usize) -> Duration + Send + Sync + 'static {
    let started = AtomicBool::new(false);
    move |attempt| match started.swap(true, Ordering::Relaxed) {
        false => Duration::ZERO,
        true => delay(attempt, rand::random()),
    }
}

/// Doubles from attempt to attempt. `jitter`, from 0 to 1, takes off up to a half, so that a
/// hundred clients do not return at once.
fn delay(attempt: usize, jitter: f64) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    let full = RECONNECT_AFTER_MIN.saturating_mul(1 << doublings).min(RECONNECT_AFTER_MAX);
    full.mul_f64(1.0 - jitter / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Secret;

    const SEED: &str = "SUANQDPB2RUOE4ETUA26CNX7FUKE5ZZKFCQIIW63OX225F2CO7UEXTM7ZY";

    #[test]
    fn reconnects_start_fast_and_slow_down_to_two_seconds() {
        let full: Vec<_> = (1..=8).map(|attempt| delay(attempt, 0.0).as_millis()).collect();
        assert_eq!(full, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(delay(usize::MAX, 1.0), Duration::from_secs(1));
        assert_eq!(delay(0, 0.0), RECONNECT_AFTER_MIN);
    }

    #[test]
    fn the_first_attempt_does_not_wait_and_the_later_ones_do() {
        let delays = delays();
        assert_eq!(delays(1), Duration::ZERO);
        assert!(delays(1) >= RECONNECT_AFTER_MIN / 2);
    }

    #[test]
    fn a_seed_is_found_in_its_decoration() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("user.nk");
        fs::write(&file, format!("-----BEGIN USER NKEY SEED-----\n  {SEED}\n------END")).unwrap();
        assert_eq!(seed(&file).unwrap(), SEED);
        let with = |auth| Settings { auth, ..Settings::default() }.options();
        with(Auth::Nkey(file.clone())).unwrap();
        with(Auth::Jwt { jwt: Secret::new("a.b.c"), seed: Some(file.clone()) }).unwrap();
        with(Auth::Jwt { jwt: Secret::new("a.b.c"), seed: None }).unwrap();

        fs::write(&file, "nothing").unwrap();
        let refused = with(Auth::Nkey(file.clone())).unwrap_err();
        assert!(refused.to_string().ends_with("has no seed of a user (SU…)"), "{refused}");
        let refused = with(Auth::Creds(file)).unwrap_err();
        assert!(refused.to_string().ends_with("has no user JWT and its seed"), "{refused}");
    }

    #[test]
    fn a_creds_file_is_taken_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("user.creds");
        fs::write(&file, render("a.b.c", SEED)).unwrap();
        Settings { auth: Auth::Creds(file), ..Settings::default() }.options().unwrap();
    }

    #[tokio::test]
    async fn a_local_broker_lets_its_settings_in() {
        let broker = crate::LocalBroker::start(Default::default()).await.unwrap();
        let settings = broker.connect_settings();
        assert!(settings.is_loopback());
        let connected = settings.options().unwrap().connect(broker.url()).await.unwrap();
        connected.flush().await.unwrap();
        let refused = Settings::default().options().unwrap().connect(broker.url()).await;
        assert!(refused.is_err());
        broker.stop().await;
    }
}
