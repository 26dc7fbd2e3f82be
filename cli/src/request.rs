//! What is asked of a driver: which one, which method, with which words.

use std::{io, sync::Arc, time::Duration};

use bus_schema::{Address, Kind, Target, Value, refuse_method};
use bytes::Bytes;
use runtime::{CallError, Client, DriverRef, Found, StreamError};
use tokio::time::timeout;

use crate::{advice::CliError, held::HeldLeases, lending::plain};

/// A driver that is used.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Asked {
    /// The driver: `exporter/child`, `@place/role`, or its UUID.
    pub(crate) target: Target,
    /// Give up after this time instead of the method's own: `10s`, `2m`. What goes on, such as a
    /// stream, has to begin within it.
    #[arg(long, value_name = "TIME", value_parser = deadline)]
    pub(crate) deadline: Option<Duration>,
}

/// A deadline that somebody typed.
pub(crate) fn deadline(typed: &str) -> Result<Duration, String> {
    let right = "a time of a millisecond or more: 10s, 2m, 500ms";
    match humantime::parse_duration(typed) {
        Ok(span) if span >= Duration::from_millis(1) => Ok(span),
        _ => Err(format!("expected {right}")),
    }
}

impl Asked {
    /// Uses the driver. An address is a subject, so nothing is looked up first; only if nobody
    /// listens there the registry is asked, as a driver may have a UUID of its own.
    pub(crate) async fn of<T>(
        &self,
        client: &Client,
        ask: impl AsyncFn(DriverRef) -> Result<T, CallError>,
    ) -> Result<T, CliError> {
        let target = self.settle(client).await?;
        let direct = match &target {
            Target::Address(address) => Some(Self::held(client.driver(address), address)),
            Target::Id(_) | Target::Place(_) => None,
        };
        if let Some(driver) = &direct {
            match ask(self.in_time(driver.clone())).await {
                Err(CallError::NoDriver { .. }) => {}
                ended => return Ok(ended?),
            }
        }
        let found = client.registry().resolve(&target).await?;
        let found = found
            .filter(|found| direct.as_ref().is_none_or(|direct| direct.id() != found.record.id));
        match found {
            Some(found) => {
                let driver = client.driver_found(&found);
                let driver = match found.address() {
                    Ok(address) => Self::held(driver, &address),
                    Err(_) => driver,
                };
                Ok(ask(self.in_time(driver)).await?)
            }
            None => Err(not_found(client, &target).await),
        }
    }

    /// The driver, if it is there: for what is opened again and again.
    pub(crate) async fn driver(&self, client: &Client) -> Result<DriverRef, CliError> {
        Ok(self.found(client).await?.0)
    }

    /// [`driver`](Self::driver), and what the registry says of it.
    pub(crate) async fn found(
        &self,
        client: &Client,
    ) -> Result<(DriverRef, Option<Found>), CliError> {
        const PATIENCE: Duration = Duration::from_secs(2);
        let target = self.settle(client).await?;
        let direct = match &target {
            Target::Id(_) | Target::Place(_) => None,
            Target::Address(address) => {
                if client.ping(&address.exporter, PATIENCE).await.is_err() {
                    return Err(not_found(client, &target).await);
                }
                Some(client.driver(address))
            }
        };
        let found = client.registry().resolve(&target).await?;
        let driver = match (direct, &found) {
            // A driver may have a UUID of its own.
            (Some(direct), Some(found)) if found.record.id == direct.id() => direct,
            (_, Some(found)) => client.driver_found(found),
            (Some(direct), None) if is_unheard_of(client, &target).await => direct,
            _ => return Err(not_found(client, &target).await),
        };
        let address = match &target {
            Target::Address(address) => Some(address.clone()),
            Target::Id(_) | Target::Place(_) => {
                found.as_ref().and_then(|found| found.address().ok())
            }
        };
        let driver = match address {
            Some(address) => Self::held(driver, &address),
            None => driver,
        };
        Ok((self.in_time(driver), found))
    }

    /// The target without a place. Inside of `jmp-bus run @place` the place is what was leased: if
    /// an admin has put another driver into the role since, nobody meant that one.
    async fn settle(&self, client: &Client) -> Result<Target, CliError> {
        let target = client.settle(&self.target).await?;
        if let (Target::Address(address), Some(only)) = (&target, client.is_hook_of())
            && address.exporter != *only
        {
            let text = format!(
                "a hook of {only} uses drivers of {only}, and {address} is none: say who you are, \
                 with --as and credentials"
            );
            return Err(CliError::Usage(text));
        }
        if let (Target::Place(of), Target::Address(address)) = (&self.target, &target)
            && HeldLeases::of_environment().lacks(&of.place, address)
        {
            return Err(CliError::PlaceChanged { of: of.clone(), now: address.clone() });
        }
        Ok(target)
    }

    /// What an error of copying to or from a stream of the driver means.
    pub(crate) fn cut(&self, error: io::Error) -> CliError {
        let kind = error.kind();
        match error.downcast::<StreamError>() {
            Ok(error) => CallError::Broken { address: self.target.to_string(), error }.into(),
            Err(_) if kind == io::ErrorKind::BrokenPipe => CliError::NobodyReads,
            Err(error) => CliError::io("copy", error),
        }
    }

    /// The driver, used under the lease of the environment that it belongs to, if one does.
    pub(crate) fn held(driver: DriverRef, address: &Address) -> DriverRef {
        match HeldLeases::of_environment().epoch_at(address) {
            Some(epoch) => driver.under(epoch),
            None => driver,
        }
    }

    pub(crate) fn in_time(&self, driver: DriverRef) -> DriverRef {
        match self.deadline {
            Some(deadline) => driver.with_deadline(deadline),
            None => driver,
        }
    }
}

/// Whether the driver has one of these streams: a port that no connection could use is not opened.
/// Nothing is known of a driver that the registry has not heard of yet.
pub(crate) async fn has_one_of(
    client: &Client,
    found: &Found,
    methods: &[&str],
) -> Result<(), CliError> {
    let interfaces = client.registry().interfaces(&found.record, &found.exporter).await?;
    let interfaces: Vec<_> = interfaces.into_iter().map(Arc::new).collect();
    let is_stream = |name: &&str| {
        let known = interfaces.iter().find_map(|interface| interface.method(name));
        known.is_some_and(|method| method.kind == Kind::Stream)
    };
    if interfaces.is_empty() || methods.iter().any(is_stream) {
        return Ok(());
    }
    let method = methods.last().copied().unwrap_or_default();
    let refusal = refuse_method(&interfaces, method, Kind::Stream);
    let address = found.address().map_or_else(|_| found.record.id.to_string(), |of| of.to_string());
    Err(CallError::Refused { address, refusal }.into())
}

/// Whether the registry has nothing of an exporter that answers: it is a hint and may lag.
async fn is_unheard_of(client: &Client, target: &Target) -> bool {
    let Target::Address(address) = target else { return false };
    client.registry().tree(&address.exporter).await.is_ok_and(|tree| tree.is_empty())
}

/// What to say of a driver that is not there.
pub(crate) async fn not_found(client: &Client, target: &Target) -> CliError {
    const PATIENCE: Duration = Duration::from_secs(2);
    let instead = match target {
        Target::Id(_) | Target::Place(_) => None,
        Target::Address(address) => timeout(PATIENCE, near(client, address)).await.ok().flatten(),
    };
    let instead = instead
        .unwrap_or_else(|| "see `jmp-bus list`; is its host's `jmp-bus serve` up?".to_owned());
    CliError::NotFound { what: format!("driver {target}"), instead }
}

/// What there is in place of a driver that is not.
async fn near(client: &Client, address: &Address) -> Option<String> {
    const SHOWN_MAX: usize = 8;
    let exporters = client.registry().exporters().await.ok()?;
    if !exporters.iter().any(|presence| presence.exporter == address.exporter) {
        let names: Vec<_> =
            exporters.iter().take(SHOWN_MAX).map(|p| p.exporter.to_string()).collect();
        return match names.is_empty() {
            true => Some("no exporter is up; start one with `jmp-bus serve`".to_owned()),
            false => Some(format!("exporters that are up: {}", names.join(", "))),
        };
    }
    let tree = client.registry().tree(&address.exporter).await.ok()?;
    let paths: Vec<_> = tree
        .iter()
        .filter(|record| !record.path.is_empty())
        .take(SHOWN_MAX)
        .map(|record| format!("{}/{}", address.exporter, record.path))
        .collect();
    (!paths.is_empty()).then(|| format!("{} has: {}", address.exporter, paths.join(", ")))
}

/// The words of an operation to which nothing is lent. `@file` is the contents of a file, `@-` those
/// of stdin, `@@x` is `@x`.
pub(crate) fn words(typed: &[String]) -> Result<Vec<Value>, CliError> {
    typed.iter().map(|word| plain(word)).collect()
}

/// Words as a MessagePack array, for what is opened.
pub(crate) fn packed(words: &[Value]) -> Result<Bytes, CliError> {
    let packed = rmp_serde::to_vec_named(words);
    Ok(packed.map_err(|error| CallError::Unsendable(error.to_string()))?.into())
}
