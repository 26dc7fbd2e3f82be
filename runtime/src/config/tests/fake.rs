//! Kinds of driver with nothing behind them. Everything is written by hand, as the macros would.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bus_schema::{
    Args, Describe, Failure, Fault, Field, Interface, Kind as MethodKind, Method, RawContext,
    RawItems, RawPipe, Serve, Serving, Type, Value, Variant,
};
use bytes::Bytes;
use serde::Deserialize;

use crate::{BuildError, ChildrenRule, DriverKind, Factory, Kind, Kinds, Node, Role, Site};

pub(super) fn kinds() -> Kinds {
    let by_hand = |name, children, build| Kind {
        name,
        aliases: &[],
        help: "",
        config: || Type::Unit,
        interfaces: Vec::new,
        build,
        children,
        runs_commands: false,
    };
    Kinds::new()
        .with(by_hand("composite", ChildrenRule::Configured, |_, _| Ok(nothing("composite"))))
        .with(by_hand("fake-host", ChildrenRule::Configured, |_, _| Ok(nothing("fake-host"))))
        .with(by_hand("fake-machine", ChildrenRule::Own, |_, site| machine(site)))
        .with(Kind { runs_commands: true, ..by_hand("fake-shell", ChildrenRule::None, shell) })
        .with(Kind::of::<FakePower>())
}

fn shell(_: Value, site: &Site) -> Result<Node, BuildError> {
    match site.path.name() {
        "broken" => Err(BuildError::new("no shell is called\nbroken")),
        _ => Ok(nothing("fake-shell")),
    }
}

fn machine(site: &Site) -> Result<Node, BuildError> {
    site.child("console").map_err(BuildError::new)?;
    Ok(nothing("fake-machine").with_child("console", nothing("fake-console")))
}

fn nothing(kind: &str) -> Node {
    let factory: Factory =
        Arc::new(|| Box::pin(async { Err(Fault::unsupported("there is nothing here")) }));
    Node::new(kind, factory)
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "read through Debug")]
pub(super) enum Mode {
    On,
    Off,
    Pulse(Duration),
}

#[derive(Clone, Debug, Deserialize)]
#[expect(dead_code, reason = "read through Debug")]
pub(super) struct Settings {
    url: String,
    #[serde(default)]
    port: u16,
    #[serde(default)]
    offset: i32,
    #[serde(default)]
    volts: f64,
    #[serde(default)]
    inverted: bool,
    delay: Option<Duration>,
    mode: Option<Mode>,
    #[serde(default)]
    pins: Vec<u16>,
    #[serde(default)]
    names: BTreeMap<String, String>,
    since: Option<std::time::SystemTime>,
    key: Option<Bytes>,
    serial: Option<bus_schema::DriverId>,
}

impl Describe for Mode {
    fn describe() -> Type {
        let variant =
            |name: &str, carries| Variant { name: name.to_owned(), help: String::new(), carries };
        Type::Enum {
            name: "Mode".to_owned(),
            variants: vec![
                variant("on", Type::Unit),
                variant("off", Type::Unit),
                variant("pulse", Type::Duration),
            ],
        }
    }
}

impl Describe for Settings {
    fn describe() -> Type {
        let field = |name: &str, ty| Field {
            optional: name != "url",
            name: name.to_owned(),
            ty,
            help: String::new(),
            default: None,
        };
        Type::Struct {
            name: "Settings".to_owned(),
            fields: vec![
                field("url", String::describe()),
                field("port", u16::describe()),
                field("offset", i32::describe()),
                field("volts", f64::describe()),
                field("inverted", bool::describe()),
                field("delay", Option::<Duration>::describe()),
                field("mode", Option::<Mode>::describe()),
                field("pins", Vec::<u16>::describe()),
                field("names", BTreeMap::<String, String>::describe()),
                field("since", Option::<std::time::SystemTime>::describe()),
                field("key", Option::<Bytes>::describe()),
                field("serial", Option::<bus_schema::DriverId>::describe()),
            ],
        }
    }
}

/// Tells its settings and its place as the help of its interface.
struct FakePower {
    settings: Settings,
    site: Site,
}

impl DriverKind for FakePower {
    const KIND: &'static str = "fake-power";
    const ALIASES: &'static [&'static str] = &["fake.driver.Power"];
    const HELP: &'static str = "an outlet that is not there";
    type Config = Settings;

    async fn open(settings: Settings, site: Site) -> Result<Self, Fault> {
        tokio::task::yield_now().await;
        Ok(Self { settings, site })
    }

    fn interfaces_of_kind() -> Vec<Arc<Interface>> {
        let method = |name: &str| Method {
            name: name.to_owned(),
            kind: MethodKind::Call,
            help: String::new(),
            params: Vec::new(),
            result: Type::Text,
            concurrent: false,
            uncancellable: false,
            observe: false,
            deadline_ms: None,
        };
        vec![Arc::new(Interface {
            name: "power".to_owned(),
            version: 1,
            help: String::new(),
            methods: vec![method("on"), method("off")],
        })]
    }
}

impl Serve for FakePower {
    fn interfaces(&self) -> Vec<Arc<Interface>> {
        let Self { settings, site } = self;
        let help = format!("{settings:?} at {}/{} {}", site.exporter, site.path, site.id);
        let said = |kind: &Arc<Interface>| Interface { help: help.clone(), ..(**kind).clone() };
        Self::interfaces_of_kind().iter().map(|kind| Arc::new(said(kind))).collect()
    }

    fn call(self: Arc<Self>, _: RawContext, _: &str, _: Args) -> Serving<Vec<u8>> {
        Box::pin(async { Err(Failure::Fault(Fault::unsupported("no call"))) })
    }

    fn streaming_call(
        self: Arc<Self>,
        _: RawContext,
        _: &str,
        _: Args,
        _: RawItems,
    ) -> Serving<()> {
        Box::pin(async { Err(Failure::Fault(Fault::unsupported("no streaming call"))) })
    }

    fn stream(self: Arc<Self>, _: RawContext, _: &str, _: Args, _: RawPipe) -> Serving<()> {
        Box::pin(async { Err(Failure::Fault(Fault::unsupported("no stream"))) })
    }
}

/// What the drivers that a node's factory makes were opened with.
pub(super) async fn opened(node: &Node) -> String {
    let Role::Driver { factory, .. } = &node.role else { panic!("{node:?} is no driver") };
    factory().await.unwrap().interfaces()[0].help.clone()
}
