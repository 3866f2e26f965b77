//! `cargo xtask ci`

use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::{aarch64, dist, docs, lint, load, say, setup, test, vm};

type Step = fn() -> Result<()>;

/// Does everything that must pass before a change lands. The tests come last, so that the output
/// ends with their results.
pub(crate) fn run() -> Result<()> {
    let start = Instant::now();
    let steps: [(&str, Step); 9] = [
        ("set-up", || {
            setup::toolchain()?;
            setup::tests()?;
            setup::dist()
        }),
        ("lint", lint::run),
        ("docs", docs::run),
        ("load", load::run),
        ("aarch64", aarch64::run),
        ("dist", dist::short),
        ("debug", test::run_host_in_debug),
        ("vm", vm::run_short),
        ("test", test::run_all),
    ];
    for (name, step) in steps {
        let begin = Instant::now();
        step().with_context(|| format!("{name} failed"))?;
        if name != "test" {
            say::step(format_args!(
                "{name} took {:.1} s ({:.1} s since the start)",
                begin.elapsed().as_secs_f64(),
                start.elapsed().as_secs_f64()
            ));
        }
    }
    Ok(())
}
