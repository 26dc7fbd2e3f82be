//! `jmp-bus`, with the drivers that are built in.

fn main() -> std::process::ExitCode {
    jmp_bus::Cli::builtin().run()
}
