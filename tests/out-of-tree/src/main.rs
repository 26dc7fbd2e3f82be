//! `jmp-bus` with the relay of one lab.

mod my_relay;

use my_relay::MyRelay;

fn main() -> std::process::ExitCode {
    jmp_bus::Cli::builtin().with::<MyRelay>().run()
}
