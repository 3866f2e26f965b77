//! `cargo xtask ci`

use std::{thread, time::Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::{aarch64, dist, docs, fuzz, lint, load, say, setup, test, vm};

type Step = fn() -> Result<()>;

/// For how many seconds each target is fuzzed.
const FUZZED: u32 = 60;

/// Does everything that must pass before a change lands. The tests come last, so that the output
/// ends with their results.
pub(crate) fn run() -> Result<()> {
    let start = Instant::now();
    let steps: [(&str, Step); 9] = [
        ("set-up", || {
            setup::toolchain()?;
            setup::tests()?;
            setup::fuzz()?;
            setup::dist()
        }),
        ("lint", lint::run),
        ("docs", docs::run),
        ("load", load::run),
        ("aarch64", aarch64::run),
        ("dist", dist::short),
        ("debug", test::run_host_in_debug),
        // An emulated machine takes one CPU, and so does the fuzzer.
        ("vm and fuzz", || {
            beside(vm::run_short, || fuzz::run_short(FUZZED))
        }),
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

/// Does two things at the same time.
fn beside(one: Step, other: Step) -> Result<()> {
    thread::scope(|scope| {
        let other = scope.spawn(other);
        let done = one();
        let other = other.join().map_err(|_| anyhow!("it panicked"))?;
        done.and(other)
    })
}
