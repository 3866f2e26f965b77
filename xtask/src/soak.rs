//! `cargo xtask soak`

use anyhow::Result;
use clap::Args;

use crate::{build, setup};

#[derive(Args)]
pub(crate) struct SoakArgs {
    /// For how long
    #[arg(long, default_value = "10")]
    minutes: String,
    /// Passed to the soak; `-- --help` lists what it takes
    #[arg(last = true)]
    args: Vec<String>,
}

/// Sets up, builds and soaks.
pub(crate) fn run(args: &SoakArgs) -> Result<()> {
    setup::toolchain()?;
    setup::tests()?;
    let mut words = vec!["--minutes".to_owned(), args.minutes.clone()];
    words.extend(args.args.iter().cloned());
    build::become_binary("soak", &words)
}
