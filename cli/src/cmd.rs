//! The commands, one file each. A new one is a `mod` and a line in the list below.

mod admin;
mod bench;
mod call;
mod check;
mod completions;
mod connect;
mod console;
mod demo;
mod describe;
mod dev;
mod doctor;
mod drain;
mod drivers;
mod events;
mod exit_codes;
mod expect;
mod files;
mod flash;
mod forward;
mod lease;
mod list;
mod logs;
mod maintenance;
mod place;
mod put;
mod reload;
mod resume;
mod run;
mod serve;
mod shell;
#[cfg(feature = "ssh")]
mod ssh;
mod stream;
#[cfg(feature = "vnc")]
mod vnc;
mod whoami;

use crate::{advice::CliError, session::Session};

/// What a command is while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It has one thread and starts fast. An interrupt drops it.
    Client,
    /// It has many threads. An interrupt drops it.
    Worker,
    /// It has many threads, and sees to interrupts itself: it has devices to make safe.
    Server,
    /// It has many threads, and sees to interrupts itself: another program runs in it.
    Holder,
    /// As a server; and what it does is told on stdout, so it logs nothing unless it is asked.
    Demo,
}

macro_rules! commands {
    ($($(#[$meta:meta])* $module:ident $name:ident $role:ident,)*) => {
        /// What to do.
        #[derive(Debug, clap::Subcommand)]
        pub(crate) enum Command {
            $($(#[$meta])* $name($module::Cmd),)*
        }

        impl Command {
            pub(crate) fn role(&self) -> Role {
                match self {
                    $($(#[$meta])* Self::$name(_) => Role::$role,)*
                }
            }

            pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
                match self {
                    $($(#[$meta])* Self::$name(cmd) => Box::pin(cmd.run(session)).await,)*
                }
            }
        }
    };
}

commands! {
    call Call Client,
    stream Stream Client,
    connect Connect Client,
    console Console Client,
    forward Forward Worker,
    flash Flash Worker,
    put Put Worker,
    files Files Client,
    expect Expect Client,
    #[cfg(feature = "ssh")]
    ssh Ssh Worker,
    #[cfg(feature = "vnc")]
    vnc Vnc Client,
    list List Client,
    describe Describe Client,
    events Events Client,
    lease Lease Client,
    drain Drain Client,
    maintenance Maintenance Client,
    resume Resume Client,
    reload Reload Client,
    shell Shell Holder,
    run Run Holder,
    logs Logs Client,
    place Place Client,
    serve Serve Server,
    check Check Client,
    drivers Drivers Client,
    dev Dev Server,
    demo Demo Demo,
    bench Bench Worker,
    doctor Doctor Client,
    admin Admin Client,
    whoami Whoami Client,
    completions Completions Client,
    exit_codes ExitCodes Client,
}
