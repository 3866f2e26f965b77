//! `cargo xtask bench`

use anyhow::Result;
use clap::Args;

use crate::{build, setup};

#[derive(Args)]
pub(crate) struct BenchArgs {
    /// Passed to the benchmark; `-- --help` lists what it takes
    #[arg(last = true)]
    args: Vec<String>,
}

/// Sets up, builds and runs the benchmark.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    setup::tests()?;
    build::become_binary("bench", &args.args)
}
