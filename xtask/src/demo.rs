//! `cargo xtask demo`

use anyhow::Result;
use clap::Args;

use crate::{build, setup};

#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Passed to the demo; `-- --help` lists what it takes
    #[arg(last = true)]
    args: Vec<String>,
}

/// Sets up, builds and runs the demo.
pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    setup::lab()?;
    build::become_binary("demo", &args.args)
}
