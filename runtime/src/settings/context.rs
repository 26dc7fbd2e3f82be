//! The context files of the `nats` CLI (ADR-21). They are another tool's, so unknown fields pass.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{Flags, SERVER_OF_A_CONTEXT, SettingsError};

/// What a context says.
#[derive(Default)]
pub(super) struct Context {
    pub(super) flags: Flags,
    pub(super) user_jwt: Option<String>,
    pub(super) jetstream_domain: Option<String>,
}

/// The file, as it is written. Empty fields count as none.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Written {
    url: Option<String>,
    token: Option<String>,
    user: Option<String>,
    password: Option<String>,
    creds: Option<String>,
    nkey: Option<String>,
    cert: Option<String>,
    key: Option<String>,
    ca: Option<String>,
    tls_first: Option<bool>,
    inbox_prefix: Option<String>,
    user_jwt: Option<String>,
    jetstream_domain: Option<String>,
    jetstream_api_prefix: Option<String>,
    nsc: Option<String>,
    socks_proxy: Option<String>,
}

/// The context of that name, or the selected one, if there is any.
pub(super) fn load(
    name: Option<&str>,
    config_home: Option<&Path>,
) -> Result<Option<(PathBuf, Context)>, SettingsError> {
    let Some(dir) = config_home.map(|home| home.join("nats")) else {
        return match name {
            None => Ok(None),
            Some(name) => Err(SettingsError::NoConfigHome { name: name.to_owned() }),
        };
    };
    let name = match name {
        Some(name) => Some(name.to_owned()),
        None => selected(&dir.join("context.txt"))?,
    };
    name.map(|name| read(&dir.join("context"), name)).transpose()
}

fn selected(file: &Path) -> Result<Option<String>, SettingsError> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|name| !name.is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(unreadable(file, source)),
    }
}

fn read(dir: &Path, name: String) -> Result<(PathBuf, Context), SettingsError> {
    if name.is_empty() || name.contains(['/', '\\']) || name.contains("..") {
        return Err(SettingsError::ContextName { name });
    }
    let file = dir.join(format!("{name}.json"));
    let text = match fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(SettingsError::NoContext { name, known: known(dir), dir: dir.to_owned() });
        }
        Err(source) => return Err(unreadable(&file, source)),
    };
    let written: Written =
        serde_json::from_slice(&text).map_err(|error| SettingsError::ContextMalformed {
            file: file.clone(),
            line: error.line(),
            column: error.column(),
        })?;
    let context = written.accept(&file)?;
    Ok((file, context))
}

/// The names of the contexts that are there.
fn known(dir: &Path) -> Vec<String> {
    let files = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let jsons = files.filter(|file| file.extension().is_some_and(|end| end == "json"));
    let mut names: Vec<_> =
        jsons.filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    names
}

impl Written {
    fn accept(self, file: &Path) -> Result<Context, SettingsError> {
        let text = |field: Option<String>| field.filter(|value| !value.is_empty());
        let path = |field| text(field).map(PathBuf::from);
        let refused = [
            (&self.nsc, "nsc", "write a file with `nsc generate creds` and name it as `creds`"),
            (&self.socks_proxy, "socks_proxy", "use a port that is forwarded, as with `ssh -L`"),
            (&self.jetstream_api_prefix, "jetstream_api_prefix", "use `jetstream_domain`"),
        ];
        for (value, field, instead) in refused {
            if value.as_ref().is_some_and(|value| !value.is_empty()) {
                return Err(SettingsError::Refused { file: file.to_owned(), field, instead });
            }
        }
        let flags = Flags {
            server: text(self.url).or_else(|| Some(SERVER_OF_A_CONTEXT.into())),
            context: None,
            creds: path(self.creds),
            nkey: path(self.nkey),
            user: text(self.user),
            password: text(self.password),
            token: text(self.token),
            tlsca: path(self.ca),
            tlscert: path(self.cert),
            tlskey: path(self.key),
            tls_first: self.tls_first.unwrap_or_default(),
            inbox_prefix: text(self.inbox_prefix),
        };
        let (user_jwt, jetstream_domain) = (text(self.user_jwt), text(self.jetstream_domain));
        Ok(Context { flags, user_jwt, jetstream_domain })
    }
}

fn unreadable(file: &Path, source: io::Error) -> SettingsError {
    SettingsError::File { field: "context", file: file.to_owned(), source }
}
