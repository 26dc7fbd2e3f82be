//! An interface and a driver written by hand, as the macros expand to, beside the same written
//! with them: generated code can do nothing that an author could not.

#[path = "support/host.rs"]
mod host;

use std::{fmt::Debug, sync::Arc, time::Duration};

use bus_schema::{Args, Fault, RawItems, RawPipe, Serve, Value};
use host::{Context, Direct, block_on};

fn blinked(cx: &Context, times: u32, gap: Duration) -> Result<Duration, Fault> {
    match times {
        0 => Err(Fault::argument(format_args!("{} wants no blink", cx.client))),
        _ => Ok(gap * times),
    }
}

mod by_macro {
    use std::time::Duration;

    use bus_schema::{Fault, driver, interface};

    use super::{
        blinked,
        host::{ByteStream, Context, Items},
    };

    /// Gives light.
    #[interface]
    pub(crate) trait Light {
        /// Blinks and says how long that took.
        #[method(deadline = "90s")]
        async fn blink(
            &self,
            cx: &Context,
            times: u32,
            #[default(Duration::from_millis(5))] gap: Duration,
        ) -> Result<Duration, Fault>;

        /// Its age.
        #[method(concurrent)]
        fn hours(&self) -> u64;

        /// What it sees.
        async fn watch(&self, items: Items<u32>) -> Result<(), Fault>;

        /// Its voice.
        async fn speak(&self, pipe: ByteStream) {
            let mut pipe = pipe;
            pipe.write(b"hm").await;
        }
    }

    pub(crate) struct Lamp;

    impl Light for Lamp {
        async fn blink(&self, cx: &Context, times: u32, gap: Duration) -> Result<Duration, Fault> {
            blinked(cx, times, gap)
        }

        fn hours(&self) -> u64 {
            1_000
        }

        async fn watch(&self, items: Items<u32>) -> Result<(), Fault> {
            items.send(7).await
        }
    }

    #[driver(Light)]
    impl Lamp {
        #[safe]
        async fn dark(&self) -> Result<(), Fault> {
            Err(Fault::device("stuck"))
        }
    }
}

mod by_hand {
    use std::{
        future::{Future, ready},
        sync::{Arc, OnceLock},
        time::Duration,
    };

    use bus_schema::{
        Args, Describe, Fault, Field, Interface, Invoke, InvokeBlocking, Kind, Method, Outgoing,
        RawContext, RawItems, RawPipe, Serve, Serving, Value, block, encode_value, refuse_method,
    };

    use super::{
        blinked,
        host::{ByteStream, Context, Items},
    };

    pub(crate) trait Light: Send + Sync + 'static {
        fn blink(
            &self,
            cx: &Context,
            times: u32,
            gap: Duration,
        ) -> impl Future<Output = Result<Duration, Fault>> + Send;

        fn hours(&self) -> u64;

        fn watch(&self, items: Items<u32>) -> impl Future<Output = Result<(), Fault>> + Send;

        fn speak(&self, pipe: ByteStream) -> impl Future<Output = ()> + Send {
            async move {
                let mut pipe = pipe;
                pipe.write(b"hm").await;
            }
        }
    }

    pub(crate) struct LightInterface;

    impl LightInterface {
        pub(crate) const METHODS: &'static [&'static str] = &["blink", "hours", "watch", "speak"];

        pub(crate) fn describe() -> Arc<Interface> {
            static INTERFACE: OnceLock<Arc<Interface>> = OnceLock::new();
            Arc::clone(INTERFACE.get_or_init(|| {
                let method = |name: &str, kind, help: &str, result| Method {
                    name: name.to_owned(),
                    kind,
                    help: help.to_owned(),
                    params: vec![],
                    result,
                    concurrent: kind != Kind::Call,
                    uncancellable: false,
                    observe: false,
                    deadline_ms: None,
                };
                let times = Field {
                    name: "times".to_owned(),
                    ty: u32::describe(),
                    help: String::new(),
                    optional: false,
                    default: None,
                };
                let gap = Field {
                    name: "gap".to_owned(),
                    ty: Duration::describe(),
                    help: String::new(),
                    optional: true,
                    default: Value::of(&Duration::from_millis(5)),
                };
                let help = "Blinks and says how long that took.";
                let blink = method("blink", Kind::Call, help, Duration::describe());
                let hours = method("hours", Kind::Call, "Its age.", u64::describe());
                let item = u32::describe();
                Arc::new(Interface {
                    name: "light".to_owned(),
                    version: 1,
                    help: "Gives light.".to_owned(),
                    methods: vec![
                        Method { params: vec![times, gap], deadline_ms: Some(90_000), ..blink },
                        Method { concurrent: true, ..hours },
                        method("watch", Kind::StreamingCall, "What it sees.", item),
                        method("speak", Kind::Stream, "Its voice.", <()>::describe()),
                    ],
                })
            }))
        }

        fn call<D: Light>(
            driver: Arc<D>,
            cx: RawContext,
            method: &str,
            args: Args,
        ) -> Serving<Vec<u8>> {
            match method {
                "blink" => Box::pin(async move {
                    let interface = Self::describe();
                    let mut reader = args.reader(&interface.methods[0])?;
                    let times = reader.take::<u32>()?;
                    let gap = reader.take_or(|| Duration::from_millis(5))?;
                    reader.finish()?;
                    let cx = Context::try_from(cx)?;
                    let result = driver.blink(&cx, times, gap).await?;
                    Ok(encode_value(&result)?)
                }),
                "hours" => Box::pin(async move {
                    let interface = Self::describe();
                    args.reader(&interface.methods[1])?.finish()?;
                    let blocking = Arc::clone(cx.blocking());
                    let result = block(blocking, move || driver.hours()).await?;
                    Ok(encode_value(&result)?)
                }),
                _ => {
                    let refusal = refuse_method(&[Self::describe()], method, Kind::Call);
                    Box::pin(ready(Err(refusal.into())))
                }
            }
        }

        fn streaming_call<D: Light>(
            driver: Arc<D>,
            method: &str,
            args: Args,
            items: RawItems,
        ) -> Serving<()> {
            match method {
                "watch" => Box::pin(async move {
                    let interface = Self::describe();
                    args.reader(&interface.methods[2])?.finish()?;
                    let items = Items::try_from(items)?;
                    Ok(driver.watch(items).await?)
                }),
                _ => {
                    let refusal = refuse_method(&[Self::describe()], method, Kind::StreamingCall);
                    Box::pin(ready(Err(refusal.into())))
                }
            }
        }

        fn stream<D: Light>(
            driver: Arc<D>,
            method: &str,
            args: Args,
            pipe: RawPipe,
        ) -> Serving<()> {
            match method {
                "speak" => Box::pin(async move {
                    let interface = Self::describe();
                    args.reader(&interface.methods[3])?.finish()?;
                    let pipe = ByteStream::try_from(pipe)?;
                    driver.speak(pipe).await;
                    Ok(())
                }),
                _ => {
                    let refusal = refuse_method(&[Self::describe()], method, Kind::Stream);
                    Box::pin(ready(Err(refusal.into())))
                }
            }
        }
    }

    pub(crate) struct LightClient<I>(pub(crate) I);

    impl<I: Invoke> LightClient<I> {
        pub(crate) async fn blink(&self, times: u32, gap: Duration) -> Result<Duration, I::Error> {
            let deadline = Some(Duration::from_secs(90));
            self.0.call(Outgoing::new("blink", deadline, &(times, gap))).await
        }

        pub(crate) async fn speak(&self) -> Result<I::Pipe, I::Error> {
            self.0.stream(Outgoing::new("speak", None, &[(); 0])).await
        }
    }

    pub(crate) struct LightBlocking<I>(pub(crate) I);

    impl<I: InvokeBlocking> LightBlocking<I> {
        pub(crate) fn hours(&self) -> Result<u64, I::Error> {
            self.0.call(Outgoing::new("hours", None, &[(); 0]))
        }

        pub(crate) fn watch(&self) -> Result<I::Items<u32>, I::Error> {
            self.0.streaming_call(Outgoing::new("watch", None, &[(); 0]))
        }
    }

    pub(crate) struct Lamp;

    impl Light for Lamp {
        async fn blink(&self, cx: &Context, times: u32, gap: Duration) -> Result<Duration, Fault> {
            blinked(cx, times, gap)
        }

        fn hours(&self) -> u64 {
            1_000
        }

        async fn watch(&self, items: Items<u32>) -> Result<(), Fault> {
            items.send(7).await
        }
    }

    impl Serve for Lamp {
        fn interfaces(&self) -> Vec<Arc<Interface>> {
            vec![LightInterface::describe()]
        }

        fn call(self: Arc<Self>, cx: RawContext, method: &str, args: Args) -> Serving<Vec<u8>> {
            LightInterface::call(self, cx, method, args)
        }

        fn streaming_call(
            self: Arc<Self>,
            _cx: RawContext,
            method: &str,
            args: Args,
            items: RawItems,
        ) -> Serving<()> {
            LightInterface::streaming_call(self, method, args, items)
        }

        fn stream(
            self: Arc<Self>,
            _cx: RawContext,
            method: &str,
            args: Args,
            pipe: RawPipe,
        ) -> Serving<()> {
            LightInterface::stream(self, method, args, pipe)
        }

        fn safe(self: Arc<Self>, _cx: RawContext) -> Option<Serving<()>> {
            Some(Box::pin(async { Err(Fault::device("stuck").into()) }))
        }
    }
}

/// What both must do alike.
fn same<T: Debug + PartialEq>(of: impl Fn(Arc<dyn Serve>) -> T) -> T {
    let (by_macro, by_hand) = (of(Arc::new(by_macro::Lamp)), of(Arc::new(by_hand::Lamp)));
    assert_eq!(by_macro, by_hand);
    by_hand
}

#[test]
fn both_describe_the_same() {
    let interfaces = same(|lamp| lamp.interfaces());
    assert_eq!(interfaces[0].methods.len(), by_hand::LightInterface::METHODS.len());
    assert_eq!(by_macro::LightInterface::METHODS, by_hand::LightInterface::METHODS);
}

#[test]
fn both_serve_the_same() {
    for (method, args) in [
        ("blink", &b"\x91\x02"[..]),
        ("blink", b"\x91\x00"),
        ("blink", b"\x90"),
        ("blink", b"\x91\xa1x"),
        ("blink", b"\x93\x01\x01\x01"),
        ("blink", b"\x91\x01\x01"),
        ("blink", b"\xc1"),
        ("hours", b""),
        ("hours", b"\x91\x01"),
        ("watch", b"\x90"),
        ("speak", b"\x90"),
        ("glow", b"\x90"),
    ] {
        let args = || Args(bytes::Bytes::from_static(args));
        let called = same(|lamp| block_on(lamp.call(Direct::context(), method, args())));
        if let Ok(bytes) = called {
            Value::from_msgpack(&bytes).unwrap();
        }
        same(|lamp| {
            let items = RawItems(Box::new(host::Sent::default()));
            block_on(lamp.streaming_call(Direct::context(), method, args(), items))
        })
        .ok();
        same(|lamp| {
            let pipe = RawPipe(Box::new(host::Written::default()));
            block_on(lamp.stream(Direct::context(), method, args(), pipe))
        })
        .ok();
    }
    same(|lamp| block_on(lamp.safe(Direct::context()).unwrap())).unwrap_err();
}

/// Each client calls the driver of the other.
#[test]
fn both_clients_send_the_same() {
    let (gap, served) = (Duration::from_secs(1), Duration::from_secs(3));
    let (made, plain) = (Direct::new(by_macro::Lamp), Direct::new(by_hand::Lamp));
    let client = by_macro::LightClient::new(plain.clone());
    assert_eq!(block_on(client.blink(3, gap)).unwrap(), served);
    assert_eq!(block_on(client.speak()).unwrap(), b"hm");
    let client = by_hand::LightClient(made.clone());
    assert_eq!(block_on(client.blink(3, gap)).unwrap(), served);
    assert_eq!(block_on(client.speak()).unwrap(), b"hm");
    let client = by_macro::LightBlocking::new(plain);
    assert_eq!((client.hours().unwrap(), client.watch().unwrap()), (1_000, vec![7]));
    let client = by_hand::LightBlocking(made);
    assert_eq!((client.hours().unwrap(), client.watch().unwrap()), (1_000, vec![7]));
}
