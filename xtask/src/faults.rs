//! `cargo xtask faults`

use anyhow::Result;
use clap::Args;

use crate::{setup, test};

#[derive(Args)]
pub(crate) struct FaultsArgs {
    /// Which: all, a sample, those of one scenario, as in apply, of one of its calls, as in 'apply: openat', or one of
    /// them, as in 'apply: openat 3 EIO'
    #[arg(value_name = "FAULT", default_value = "all")]
    fault: String,
}

/// Sets up, then has each system call of each command fail once in each way.
pub(crate) fn run(args: &FaultsArgs) -> Result<()> {
    setup::toolchain()?;
    setup::tests()?;
    test::run_faults(&args.fault)
}
