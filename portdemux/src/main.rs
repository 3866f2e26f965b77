//! The portdemux command.

use std::process::ExitCode;

use portdemux::memory::Memory;

#[global_allocator]
static MEMORY: Memory = Memory;

fn main() -> ExitCode {
    portdemux::cli::main()
}
