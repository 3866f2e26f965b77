//! `cargo xtask mutants`

use anyhow::Result;
use clap::Args;

use crate::{command, repository, say, setup};

#[derive(Args)]
pub(crate) struct MutantsArgs {
    /// Only mutants in these files, as in portdemux-common/src/conntrack/state.rs; all if none is named
    #[arg(value_name = "FILE")]
    files: Vec<String>,
    /// Passed to `cargo mutants`, for example `--list`
    #[arg(last = true)]
    args: Vec<String>,
}

/// Changes portdemux-common in one place after the other, and says which changes its unit tests let live. Those that are
/// known stand in `.cargo/mutants.toml`, with the reasons.
pub(crate) fn run(args: &MutantsArgs) -> Result<()> {
    setup::mutants()?;
    let output = repository::target_dir().join("mutants");
    say::progress(format_args!(
        "what becomes of each is in {}",
        output.join("mutants.out").display()
    ));
    let files = args.files.iter().flat_map(|file| ["--file", file.as_str()]);
    command::run(
        command::cargo("mutants")
            .args(["--package", "portdemux-common", "--output"])
            .arg(&output)
            .args(files)
            .args(&args.args)
            .args(["--", "--lib"])
            // Nobody debugs a mutant, and it builds faster without.
            .env("CARGO_PROFILE_DEV_DEBUG", "0"),
    )
}
