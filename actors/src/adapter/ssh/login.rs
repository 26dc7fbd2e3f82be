//! Who we are, as the server wants it proved.

use std::{fmt, io, path::PathBuf, sync::Arc};

use runtime::Secret;
use russh::{
    client::{AuthResult, Handle, KeyboardInteractiveAuthResponse},
    keys::{
        Error as KeyError, HashAlg, PrivateKey, PrivateKeyWithHashAlg, agent::client::AgentClient,
        decode_secret_key,
    },
};

use super::{Checker, SshError};

/// Rounds of questions that a server may ask for a password.
const QUESTIONS_MAX: usize = 8;

/// One way to prove who we are.
#[derive(Clone, Debug)]
pub enum Login {
    /// By a password, which is also the answer to a server that asks questions.
    Password(Secret),
    /// By a private key in a file.
    KeyFile {
        /// The file.
        file: PathBuf,
        /// What it is encrypted with.
        passphrase: Option<Secret>,
    },
    /// By a private key as it is in a file.
    Key(Secret),
    /// By the keys of an agent that listens on this socket.
    Agent(PathBuf),
}

impl Login {
    /// Whether this is worth showing to a server: a key file may be none, or be encrypted.
    pub fn is_usable(&self) -> bool {
        matches!(self, Self::Password(_) | Self::Agent(_)) || key(self).is_ok()
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password(_) => f.write_str("a password"),
            Self::KeyFile { file, .. } => write!(f, "the key {}", file.display()),
            Self::Key(_) => f.write_str("the key that was given"),
            Self::Agent(_) => f.write_str("the agent's keys"),
        }
    }
}

/// Shows the server what there is, until it is content.
pub(super) async fn log_in(
    handle: &mut Handle<Checker>,
    user: &str,
    logins: &[Login],
) -> Result<(), SshError> {
    let mut tried = Vec::new();
    // Some boards let anybody in; and this asks which ways there are.
    let mut takes = match handle.authenticate_none(user).await? {
        AuthResult::Success => return Ok(()),
        AuthResult::Failure { remaining_methods, .. } => remaining_methods,
    };
    for login in logins {
        let shown = match login {
            Login::Password(password) => by_password(handle, user, password.expose()).await,
            Login::KeyFile { .. } | Login::Key(_) => by_key(handle, user, &key(login)?).await,
            Login::Agent(socket) => match by_agent(handle, user, socket).await {
                Err(AgentFailed(why)) => {
                    tried.push(format!("{login} cannot be used ({why})"));
                    continue;
                }
                Ok(shown) => Ok(shown),
            },
        };
        match shown? {
            AuthResult::Success => return Ok(()),
            AuthResult::Failure { remaining_methods, .. } => {
                takes = remaining_methods;
                tried.push(format!("{login} was refused"));
            }
        }
    }
    if tried.is_empty() {
        tried.push("no password and no key was given".to_owned());
    }
    let takes: Vec<_> = takes.iter().map(<&str>::from).collect();
    Err(SshError::Refused {
        user: user.to_owned(),
        tried: tried.join(", "),
        takes: if takes.is_empty() { "nothing more".to_owned() } else { takes.join(" or ") },
    })
}

async fn by_password(
    handle: &mut Handle<Checker>,
    user: &str,
    password: &str,
) -> Result<AuthResult, SshError> {
    let shown = handle.authenticate_password(user, password).await?;
    if shown.success() {
        return Ok(shown);
    }
    // A server with PAM may ask instead of taking one.
    let mut asked = handle.authenticate_keyboard_interactive_start(user, None).await?;
    for _ in 0..QUESTIONS_MAX {
        match asked {
            KeyboardInteractiveAuthResponse::Success => return Ok(AuthResult::Success),
            KeyboardInteractiveAuthResponse::Failure { .. } => break,
            KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => {
                let answers = prompts.iter().map(|_| password.to_owned()).collect();
                asked = handle.authenticate_keyboard_interactive_respond(answers).await?;
            }
        }
    }
    Ok(shown)
}

async fn by_key(
    handle: &mut Handle<Checker>,
    user: &str,
    key: &Arc<PrivateKey>,
) -> Result<AuthResult, SshError> {
    let hash = handle.best_supported_rsa_hash().await?.flatten().or(Some(HashAlg::Sha512));
    let key = PrivateKeyWithHashAlg::new(key.clone(), hash);
    Ok(handle.authenticate_publickey(user, key).await?)
}

/// The agent is not there, or does not do what it is asked: the next way is tried.
struct AgentFailed(String);

async fn by_agent(
    handle: &mut Handle<Checker>,
    user: &str,
    socket: &PathBuf,
) -> Result<AuthResult, AgentFailed> {
    let failed = |error: &dyn fmt::Display| AgentFailed(error.to_string());
    let mut agent = AgentClient::connect_uds(socket).await.map_err(|error| failed(&error))?;
    let hash = handle.best_supported_rsa_hash().await.map_err(|error| failed(&error))?;
    let mut last = None;
    for identity in agent.request_identities().await.map_err(|error| failed(&error))? {
        let key = identity.public_key().into_owned();
        let hash = hash.flatten().filter(|_| key.algorithm().is_rsa());
        let shown = handle.authenticate_publickey_with(user, key, hash, &mut agent).await;
        match shown.map_err(|error| failed(&error))? {
            AuthResult::Success => return Ok(AuthResult::Success),
            refused => last = Some(refused),
        }
    }
    last.ok_or_else(|| AgentFailed("it has none".to_owned()))
}

/// The private key of a login by one.
fn key(login: &Login) -> Result<Arc<PrivateKey>, SshError> {
    let (name, text, passphrase) = match login {
        Login::KeyFile { file, passphrase } => {
            let text = std::fs::read_to_string(file);
            let text =
                text.map_err(|source| SshError::local(format!("read {}", file.display()), source))?;
            (file.display().to_string(), Secret::new(text), passphrase.as_ref())
        }
        Login::Key(text) => ("that was given".to_owned(), text.clone(), None),
        Login::Password(_) | Login::Agent(_) => {
            let none = io::Error::from(io::ErrorKind::InvalidInput);
            return Err(SshError::local(format!("read a key of {login}"), none));
        }
    };
    let read = decode_secret_key(text.expose(), passphrase.map(Secret::expose));
    read.map(Arc::new).map_err(|error| SshError::Key {
        file: name,
        why: match error {
            KeyError::KeyIsEncrypted if passphrase.is_none() => {
                "it is encrypted: add it to an agent (ssh-add), or use one without a passphrase"
                    .to_owned()
            }
            error => error.to_string(),
        },
    })
}
