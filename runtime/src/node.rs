//! A tree of drivers before it is served: what the configuration, or a program, asks for.

use std::{collections::BTreeMap, fmt, sync::Arc};

use bus_schema::{DriverId, Fault, Path, Serve};
use futures_util::future::BoxFuture;

/// Makes a driver's value: at start, and anew after a crash.
pub type Factory = Arc<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Serve>, Fault>> + Send + Sync>;

/// One driver of a tree, and what hangs below it.
#[derive(Clone)]
pub struct Node {
    /// What it is.
    pub role: Role,
    /// Its labels, for selectors.
    pub labels: BTreeMap<String, String>,
    /// What it is, for people.
    pub description: String,
    /// Help for single methods, over that of the interface.
    pub methods_description: BTreeMap<String, String>,
    /// Its children, by name.
    pub children: BTreeMap<String, Node>,
    /// What it was made from, if that is known: a driver that is made from the same again goes on
    /// when the configuration is read anew.
    pub made_from: Option<Arc<str>>,
}

/// What a [`Node`] is.
#[derive(Clone)]
pub enum Role {
    /// A driver of its own.
    Driver {
        /// The kind: the `type` of the configuration.
        kind: String,
        /// Makes it.
        factory: Factory,
        /// Its UUID, if the configuration pins one.
        id: Option<DriverId>,
        /// The name of the turn that it shares with other drivers of the exporter, because they
        /// touch one physical thing.
        turn: Option<String>,
    },
    /// Another name for the driver at this path, counted from the root of the tree.
    Alias(Path),
}

impl Node {
    /// A driver of `kind`, made by `factory`.
    pub fn new(kind: impl Into<String>, factory: Factory) -> Self {
        let role = Role::Driver { kind: kind.into(), factory, id: None, turn: None };
        Self {
            role,
            labels: BTreeMap::new(),
            description: String::new(),
            methods_description: BTreeMap::new(),
            children: BTreeMap::new(),
            made_from: None,
        }
    }

    /// A driver that is there already. After a crash the same value serves on: where that is
    /// wrong, give a [`Factory`] to [`Node::new`].
    pub fn of<D: Serve>(kind: impl Into<String>, driver: D) -> Self {
        let driver: Arc<dyn Serve> = Arc::new(driver);
        let factory: Factory = Arc::new(move || {
            let driver = driver.clone();
            Box::pin(async move { Ok(driver) })
        });
        Self::new(kind, factory)
    }

    /// Says of it, and of all below it, what they were made from.
    pub(crate) fn say_made_from(&mut self, what: &Arc<str>) {
        self.made_from = Some(what.clone());
        self.children.values_mut().for_each(|child| child.say_made_from(what));
    }

    /// The same node with a child.
    #[must_use]
    pub fn with_child(mut self, name: impl Into<String>, child: Node) -> Self {
        self.children.insert(name.into(), child);
        self
    }

    /// The same node with a label.
    #[must_use]
    pub fn with_label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role: &dyn fmt::Debug = match &self.role {
            Role::Driver { kind, .. } => kind,
            Role::Alias(path) => path,
        };
        f.debug_struct("Node")
            .field("role", role)
            .field("children", &self.children)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver { kind, .. } => f.debug_tuple("Driver").field(kind).finish(),
            Self::Alias(path) => f.debug_tuple("Alias").field(path).finish(),
        }
    }
}
