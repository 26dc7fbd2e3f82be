//! The hook of an exporter that this command runs in, if it does.

use bus_schema::{ExporterName, HookId};

use crate::args::variable;

/// The variable that says so: `bench:0123abcd`.
const VARIABLE: &str = "JMP_BUS_HOOK";

/// A run of a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hook {
    /// Whose.
    pub(crate) exporter: ExporterName,
    /// What its exporter knows it by.
    pub(crate) id: HookId,
}

impl Hook {
    /// The hook of the environment.
    pub(crate) fn of_environment() -> Option<Self> {
        Self::read(&variable(VARIABLE)?)
    }

    fn read(text: &str) -> Option<Self> {
        let (exporter, id) = text.split_once(':')?;
        Some(Self { exporter: exporter.parse().ok()?, id: id.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_is_named_by_its_exporter_and_its_number() {
        let hook = Hook::read("bench:000000ab").unwrap();
        assert_eq!((hook.exporter.as_str(), hook.id), ("bench", HookId(0xab)));
        for bad in ["", "bench", "bench:", "bench:ab", "Bench:000000ab"] {
            assert_eq!(Hook::read(bad), None, "{bad}");
        }
    }
}
