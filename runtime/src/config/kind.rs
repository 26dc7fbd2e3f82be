//! The kinds of driver that a configuration can name.

use std::{
    fmt,
    future::Future,
    io,
    path::{self, PathBuf},
    sync::Arc,
};

use bus_schema::{
    AddressError, Describe, DriverId, ExporterName, Fault, Interface, Path, Serve, Type, Value,
    limits::DEPTH_MAX,
};
use serde::de::DeserializeOwned;

use super::problem;
use crate::{Factory, Node};

/// A kind of driver that `type:` can name.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Its name, in kebab-case: `fake-power`.
    pub name: &'static str,
    /// Other names, such as Jumpstarter's class path.
    pub aliases: &'static [&'static str],
    /// What it drives, for people.
    pub help: &'static str,
    /// The type of its `config`: a struct, or [`Type::Unit`] for none.
    pub config: fn() -> Type,
    /// What every driver of the kind can do. Empty if that depends on the device; then the names in
    /// `methods_description` are not checked.
    pub interfaces: fn() -> Vec<Arc<Interface>>,
    /// Makes the node from a value of that type. It checks and opens nothing: `jmp-bus check` calls
    /// it too, on another machine than the lab's.
    pub build: fn(Value, &Site) -> Result<Node, BuildError>,
    /// Where its children come from.
    pub children: ChildrenRule,
    /// Whether it runs commands on the exporter's host for whoever calls it. Such a kind is refused
    /// on an unauthenticated broker that is not on loopback.
    pub runs_commands: bool,
}

/// Where the children of a kind come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildrenRule {
    /// The kind brings its own.
    Own,
    /// The configuration names them.
    Configured,
    /// It has none.
    None,
}

/// Why a kind does not take its configuration, beyond what the type says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct BuildError {
    at: Vec<String>,
    text: String,
}

impl BuildError {
    /// The configuration as a whole is wrong.
    pub fn new(text: impl fmt::Display) -> Self {
        Self { at: Vec::new(), text: text.to_string() }
    }

    /// The same error, about what is at `step` (a key, or a number in a list) of the configuration.
    /// The first call names the innermost.
    #[must_use]
    pub fn inside(mut self, step: impl fmt::Display) -> Self {
        self.at.insert(0, step.to_string());
        self
    }

    /// The keys from the configuration's top to what is wrong.
    pub fn at(&self) -> &[String] {
        &self.at
    }
}

/// What a driver may know of where it is.
#[derive(Clone, Debug)]
pub struct Site {
    /// The exporter that serves it.
    pub exporter: ExporterName,
    /// Its path in the tree.
    pub path: Path,
    /// Its UUID.
    pub id: DriverId,
    state: PathBuf,
}

impl Site {
    /// The driver at `path`; `state` is the directory below which drivers keep what must survive a
    /// restart.
    pub fn new(exporter: ExporterName, path: Path, state: impl Into<PathBuf>) -> Self {
        let id = DriverId::at(&exporter, &path);
        Self { exporter, path, id, state: state.into() }
    }

    /// The same place under a UUID that the configuration pins.
    #[must_use]
    pub fn pinned(self, id: DriverId) -> Self {
        Self { id, ..self }
    }

    /// The place of a child.
    ///
    /// # Errors
    ///
    /// [`AddressError`] if `name` is no child's name or is too deep.
    pub fn child(&self, name: &str) -> Result<Self, AddressError> {
        let path = self.path.child(name)?;
        Ok(Self::new(self.exporter.clone(), path, &self.state))
    }

    /// Where the driver's directory is, whether or not it exists. It is named by the UUID: a path
    /// may hold `..`, and a pinned driver keeps its state when it moves.
    pub fn state_path(&self) -> PathBuf {
        self.state.join(self.id.to_string())
    }

    /// The driver's own directory, made if it does not exist yet.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub fn state_dir(&self) -> io::Result<PathBuf> {
        let dir = self.state_path();
        make_private(&dir)?;
        Ok(dir)
    }
}

/// Other users of the host have no business with a driver's state (keys, disk images).
fn make_private(dir: &path::Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(dir)
}

/// A kind of driver with one Rust type behind it: what a driver author writes.
/// [`Kind::of`] makes a [`Kind`] of it.
pub trait DriverKind: Serve + Sized {
    /// See [`Kind::name`].
    const KIND: &'static str;
    /// See [`Kind::aliases`].
    const ALIASES: &'static [&'static str] = &[];
    /// See [`Kind::help`].
    const HELP: &'static str;
    /// See [`Kind::children`].
    const CHILDREN: ChildrenRule = ChildrenRule::None;
    /// See [`Kind::runs_commands`].
    const RUNS_COMMANDS: bool = false;

    /// The `config` of one driver. `()` if there is nothing to configure.
    type Config: DeserializeOwned + Describe + Clone + Send + Sync + 'static;

    /// Opens the device: at start, and anew after a crash.
    fn open(config: Self::Config, site: Site) -> impl Future<Output = Result<Self, Fault>> + Send;

    /// See [`Kind::interfaces`].
    fn interfaces_of_kind() -> Vec<Arc<Interface>>;
}

impl Kind {
    /// The kind whose drivers are `D`s.
    pub fn of<D: DriverKind>() -> Self {
        Self {
            name: D::KIND,
            aliases: D::ALIASES,
            help: D::HELP,
            config: D::Config::describe,
            interfaces: D::interfaces_of_kind,
            build: build::<D>,
            children: D::CHILDREN,
            runs_commands: D::RUNS_COMMANDS,
        }
    }

    /// Every name it goes by.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        [self.name].into_iter().chain(self.aliases.iter().copied())
    }
}

fn build<D: DriverKind>(value: Value, site: &Site) -> Result<Node, BuildError> {
    let config: D::Config = decode(&value)?;
    let site = site.clone();
    let factory: Factory = Arc::new(move || {
        let opened = D::open(config.clone(), site.clone());
        Box::pin(async move { Ok(Arc::new(opened.await?) as Arc<dyn Serve>) })
    });
    Ok(Node::new(D::KIND, factory))
}

/// The Rust value of a checked configuration. Fails where its type says more than the wire's: a
/// port above 65,535.
fn decode<T: DeserializeOwned>(value: &Value) -> Result<T, BuildError> {
    let bytes = bus_schema::encode_value(value).map_err(BuildError::new)?;
    let mut de = rmp_serde::Deserializer::from_read_ref(&bytes[..]).with_human_readable();
    de.set_max_depth(DEPTH_MAX);
    let mut track = serde_path_to_error::Track::new();
    let de = serde_path_to_error::Deserializer::new(&mut de, &mut track);
    T::deserialize(de).map_err(|error| {
        let path = track.path();
        let error = BuildError::new(bus_schema::plainly(&error.to_string()));
        path.iter().rev().filter_map(step).fold(error, BuildError::inside)
    })
}

fn step(segment: &serde_path_to_error::Segment) -> Option<String> {
    use serde_path_to_error::Segment;
    match segment {
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Map { key } => Some(key.clone()),
        Segment::Enum { variant } => Some(variant.clone()),
        Segment::Unknown => None,
    }
}

/// The kinds that a program knows: an explicit list.
#[derive(Clone, Debug, Default)]
pub struct Kinds(Vec<Kind>);

impl Kinds {
    /// None yet. A configuration needs at least the kind `composite`.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same list with `kind`, which takes the place of an earlier one of its name.
    #[must_use]
    pub fn with(mut self, kind: Kind) -> Self {
        self.0.retain(|earlier| earlier.name != kind.name);
        self.0.push(kind);
        self
    }

    /// The kind that goes by `name`.
    pub fn get(&self, name: &str) -> Option<&Kind> {
        self.0.iter().rev().find(|kind| kind.names().any(|known| known == name))
    }

    /// The name that somebody who wrote `name` probably meant.
    pub fn near(&self, name: &str) -> Option<&'static str> {
        problem::near(name, self.names())
    }

    /// The kinds, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &Kind> {
        self.0.iter()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().flat_map(Kind::names)
    }
}
