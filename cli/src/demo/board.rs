//! The virtual boards, and what is known of them.

use std::{env::split_paths, path::Path};

use clap::ValueEnum;

use crate::{advice::CliError, args::variable};

/// Where Debian puts U-Boot; `u-boot.yaml` names it, too.
const FIRMWARE: &str = "/usr/lib/u-boot/qemu_arm64/u-boot.bin";
const QEMU: &str = "qemu-system-aarch64";

/// The board that was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum BoardAsked {
    /// The first of the others that can be had.
    #[default]
    Auto,
    /// U-Boot in QEMU.
    Qemu,
    /// A shell on a terminal.
    Shell,
}

/// A virtual board.
#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// How to get the other one.
    pub(crate) hint: Option<&'static str>,
    /// The exporter's configuration. Its port 8080 stands for that of the demo's service.
    pub(crate) yaml: &'static str,
    pub(crate) power: &'static str,
    pub(crate) console: &'static str,
    /// What the line begins with that says that it boots.
    pub(crate) banner: &'static str,
    pub(crate) autoboot: &'static str,
    /// What is typed, and what is in an answer to it. None is an echo of the other.
    pub(crate) asked: [(&'static str, &'static str); 3],
    /// Typed before that, without an answer.
    pub(crate) prepare: Option<&'static str>,
    /// What its power reading shows while it is on.
    pub(crate) volts: f64,
    /// What the command line of its process begins with, and no other of the demo's.
    pub(crate) process: &'static str,
}

/// The address of the service.
pub(crate) const WEB: &str = "demo/web";
/// What selects the relays.
pub(crate) const RELAYS: &str = "role=relay";
/// How many there are.
pub(crate) const RELAY_COUNT: usize = 8;

static U_BOOT: Board = Board {
    name: "qemu",
    about: "U-Boot in QEMU",
    hint: None,
    yaml: include_str!("u-boot.yaml"),
    power: "demo/board/power",
    console: "demo/board/console",
    banner: "U-Boot 2",
    autoboot: "Hit any key to stop autoboot",
    asked: [
        ("version", "U-Boot 2"),
        ("echo this is ${arch}", "this is arm"),
        // The CRC of 256 bytes 0x5a.
        ("crc32 41000000 100", "==> 534c7266"),
    ],
    prepare: Some("mw.b 41000000 5a 100"),
    volts: 5.0,
    process: QEMU,
};

static SHELL: Board = Board {
    name: "shell",
    about: "a shell on a terminal",
    hint: Some(
        "U-Boot in QEMU comes with `apt-get install qemu-system-arm u-boot-qemu`, or `.ci/setup`",
    ),
    yaml: include_str!("shell.yaml"),
    power: "demo/board",
    console: "demo/board/console",
    banner: "Linux ",
    autoboot: "Hit Enter to stop autoboot",
    asked: [
        ("uname -sr", "Linux "),
        ("echo $((1234 * 5678))", "7006652"),
        // The checksum of 256 zeros, as text.
        ("printf %0256d 0 | cksum", "4062251224 256"),
    ],
    prepare: None,
    volts: 1.0,
    process: "sh\0-i",
};

impl Board {
    /// The board that is asked for, if this machine has it.
    pub(crate) fn choose(asked: BoardAsked) -> Result<&'static Self, CliError> {
        match asked {
            BoardAsked::Shell => Ok(&SHELL),
            BoardAsked::Auto => Ok(missing().map_or(&U_BOOT, |_| &SHELL)),
            BoardAsked::Qemu => match missing() {
                None => Ok(&U_BOOT),
                Some(what) => Err(CliError::NoBoard(what)),
            },
        }
    }
}

/// What of the first board is not installed.
fn missing() -> Option<&'static str> {
    let path = variable("PATH").unwrap_or_default();
    if !split_paths(&path).any(|dir| dir.join(QEMU).is_file()) {
        return Some(QEMU);
    }
    (!Path::new(FIRMWARE).is_file()).then_some(FIRMWARE)
}
