//! The portdemux command with another layout, to test upgrades with.

use std::process::ExitCode;

fn main() -> ExitCode {
    portdemux::cli::main()
}
