//! The portdemux command.

use std::process::ExitCode;

fn main() -> ExitCode {
    portdemux::cli::main()
}
