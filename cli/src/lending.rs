//! Words that lend something, where a method takes a resource: `@FILE`, `@-`, `@https://…`, `@s3://…`;
//! `@>FILE` and `@>s3://…` for what comes back.

use std::{
    fs::Permissions,
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use bus_schema::{Invoke as _, Loan, Method, Type, Value, limits::PAYLOAD_BYTES_MAX};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use runtime::{CallError, Client, DriverRef, Found, Lend, LendSink, Put};
use tempfile::TempPath;
use tokio::{fs::File, io::AsyncWriteExt as _};

use crate::{advice::CliError, bucket::Object, output::Output, progress::Upload};

/// What a person typed, before anybody reads it.
#[derive(Debug)]
pub(crate) struct Words<'a> {
    typed: &'a [String],
    /// The method, if it had to be looked up.
    method: Option<Method>,
}

/// Words that can be sent, and what is lent with them.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) values: Vec<Value>,
    pub(crate) loans: Vec<Loan>,
}

/// Something to be lent, as a word behind `@` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lent {
    Stdin,
    File(PathBuf),
    Url(String),
    Object(Object),
    To(PathBuf),
    ToObject(Object),
}

/// Whether the signature has to be known to understand these words.
pub(crate) fn need_signature(typed: &[String]) -> bool {
    typed.iter().any(|word| word.starts_with('@') && !word.starts_with("@@"))
}

/// The method of a driver that was found.
pub(crate) async fn signature(
    client: &Client,
    found: &Found,
    method: &str,
) -> Result<Option<Method>, CliError> {
    let interfaces = client.registry().interfaces(&found.record, &found.exporter).await?;
    Ok(interfaces.iter().find_map(|interface| interface.method(method)).cloned())
}

impl Lent {
    pub(crate) fn read(word: &str) -> Result<Self, CliError> {
        let (word, comes_back) = match word.strip_prefix('>') {
            Some(word) => (word, true),
            None => (word, false),
        };
        if let Some(object) = Object::read(word) {
            return object.map(if comes_back { Self::ToObject } else { Self::Object });
        }
        match word {
            _ if comes_back => Ok(Self::To(word.into())),
            "-" => Ok(Self::Stdin),
            url if ["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) => {
                Ok(Self::Url(url.to_owned()))
            }
            other if other.contains("://") => {
                let text =
                    format!("{other} cannot be lent: a file, -, or an http(s):// or s3:// URL can");
                Err(CliError::Usage(text))
            }
            path => Ok(Self::File(path.into())),
        }
    }

    /// Whether only one call can have it.
    pub(crate) fn is_for_one(&self) -> bool {
        matches!(self, Self::Stdin | Self::To(_) | Self::ToObject(_))
    }

    /// What is lent. A file is told about while it is stored.
    pub(crate) async fn lend(&self, out: Output) -> Result<Lend, CliError> {
        Ok(match self {
            Self::Stdin => Lend::reader(tokio::io::stdin()),
            Self::Url(url) => {
                let plain = url.split(['?', '#']).next().unwrap_or_default();
                let name = plain.rsplit('/').next().unwrap_or_default();
                Lend::url(url, std::iter::empty::<(String, String)>()).named(name)
            }
            Self::Object(object) => object.source().await?,
            Self::To(path) => new_file(path)
                .map_err(|source| CliError::io(format!("create {}", path.display()), source))?,
            Self::ToObject(object) => object.sink()?,
            Self::File(path) => {
                let upload = Upload::of(path, out);
                Lend::put(Put { on_moved: Some(upload.on_moved()), ..Put::new(path) })
            }
        })
    }
}

/// A file that is there once all of it came. What is no file (a device, a pipe) is written as it is.
fn new_file(path: &Path) -> io::Result<Lend> {
    if path.metadata().is_ok_and(|known| !known.is_file()) {
        let open = std::fs::OpenOptions::new().write(true).open(path)?;
        return Ok(Lend::writer(File::from_std(open)));
    }
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let mut part = tempfile::Builder::new();
    let part = part.prefix(".jmp-bus-").permissions(Permissions::from_mode(0o666)); // and umask
    let (file, part) = part.tempfile_in(dir)?.into_parts();
    Ok(Lend::sink(NewFile { file: File::from_std(file), part: Some(part), path: path.to_owned() }))
}

struct NewFile {
    file: File,
    /// Where it is until it is whole. Dropping it removes it.
    part: Option<TempPath>,
    path: PathBuf,
}

impl LendSink for NewFile {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move { self.file.write_all(&bytes).await })
    }

    fn finish(&mut self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.file.flush().await?;
            match self.part.take() {
                Some(part) => part.persist(&self.path).map_err(|error| error.error),
                None => Ok(()),
            }
        })
    }

    fn give_up(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

impl<'a> Words<'a> {
    pub(crate) fn new(typed: &'a [String], method: Option<Method>) -> Self {
        Self { typed, method }
    }

    /// Whether something is lent that only one call can have.
    pub(crate) fn are_for_one(&self) -> Result<bool, CliError> {
        for (at, word) in self.typed.iter().enumerate() {
            if let Some(lent) = self.lent(at, word)?
                && lent.is_for_one()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn lent(&self, at: usize, word: &str) -> Result<Option<Lent>, CliError> {
        let param = self.method.as_ref().and_then(|method| method.params.get(at));
        let takes = param.is_some_and(|param| param.ty == Type::Resource);
        match word.strip_prefix('@') {
            Some(word) if takes && !word.starts_with('@') => Lent::read(word).map(Some),
            _ => Ok(None),
        }
    }

    /// Makes what is lent ready for one call to `driver`; `@file` elsewhere is the contents of the
    /// file.
    pub(crate) async fn ready(&self, driver: &DriverRef, out: Output) -> Result<Ready, CliError> {
        let (mut values, mut loans) = (Vec::new(), Vec::new());
        for (at, word) in self.typed.iter().enumerate() {
            let Some(lent) = self.lent(at, word)? else {
                values.push(plain(word)?);
                continue;
            };
            let loan = driver.lend(lent.lend(out).await?).await?;
            let value = Value::of(&loan.lent);
            values.push(value.ok_or_else(|| CallError::Unsendable("what is lent".to_owned()))?);
            loans.push(loan);
        }
        Ok(Ready { values, loans })
    }
}

/// A word that lends nothing. `@file` is the contents of a file, `@-` those of stdin, `@@x` is `@x`.
pub(crate) fn plain(word: &str) -> Result<Value, CliError> {
    match word.strip_prefix('@') {
        None => Ok(Value::Text(word.to_owned())),
        Some(text) if text.starts_with('@') => Ok(Value::Text(text.to_owned())),
        Some(file) => contents(file).map(Value::Bytes),
    }
}

fn contents(file: &str) -> Result<Bytes, CliError> {
    use io::Read as _;
    let mut bytes = Vec::new();
    let limit = PAYLOAD_BYTES_MAX as u64;
    let read = match file {
        "-" => io::stdin().lock().take(limit + 1).read_to_end(&mut bytes),
        file => std::fs::File::open(file)
            .and_then(|opened| opened.take(limit + 1).read_to_end(&mut bytes)),
    };
    read.map_err(|source| CliError::io(format!("read {file}"), source))?;
    if bytes.len() > PAYLOAD_BYTES_MAX {
        let mib = PAYLOAD_BYTES_MAX >> 20;
        return Err(CliError::Usage(format!(
            "{file} is larger than {mib} MiB, the most of a call"
        )));
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_behind_an_at_says_what_is_lent() {
        for (word, lent) in [
            ("-", Lent::Stdin),
            ("https://h/a", Lent::Url("https://h/a".to_owned())),
            ("disk.img", Lent::File("disk.img".into())),
            (">out.img", Lent::To("out.img".into())),
        ] {
            assert_eq!(Lent::read(word).unwrap(), lent);
        }
        assert!(matches!(Lent::read("s3://bucket/a"), Ok(Lent::Object(_))));
        assert!(matches!(Lent::read(">s3://bucket/a"), Ok(Lent::ToObject(_))));
        let said = Lent::read("ftp://host/a").unwrap_err().to_string();
        assert!(said.contains("s3://"), "{said}");
    }
}
