//! `cargo xtask test`

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    build,
    command::{self, Stdio},
    repository, say, setup,
};

#[derive(Args)]
pub(crate) struct TestArgs {
    /// Runs only this suite of the package portdemux-tests
    #[arg(long, value_name = "SUITE")]
    suite: Option<String>,
    /// Passed to the test programs, for example the name of a test
    #[arg(last = true)]
    args: Vec<String>,
}

/// Sets up and runs the tests.
pub(crate) fn run(args: &TestArgs) -> Result<()> {
    setup::toolchain()?;
    setup::tests()?;
    run_built(args)
}

/// Runs every test.
pub(crate) fn run_all() -> Result<()> {
    run_built(&TestArgs {
        suite: None,
        args: Vec::new(),
    })
}

/// Runs the tests that need no kernel in a debug build, in which arithmetic that overflows and command lines that
/// contradict themselves panic. It has no programs for the kernel: none of these tests may need a BPF toolchain.
pub(crate) fn run_host_in_debug() -> Result<()> {
    let packages = ["portdemux-common", "portdemux", "portdemux-tests", "xtask"];
    command::run(
        command::cargo("test")
            .args(packages.map(|package| format!("--package={package}")))
            .args(["--no-default-features", "--quiet", "--lib", "--bins"])
            .args(["--test", "parser"])
            // Without optimization each case takes a hundred times as long; the many are tried in release.
            .env("PROPTEST_CASES", "16"),
    )
}

/// Runs a suite with some paths in its environment.
pub(crate) fn run_suite_with(suite: &str, paths: &[(&str, &Path)]) -> Result<()> {
    let args = TestArgs {
        suite: Some(suite.into()),
        args: Vec::new(),
    };
    run_built_with(&args, paths)
}

/// Runs the suite of faults with those that are meant, and shows what is wrong as it comes.
pub(crate) fn run_faults(meant: &str) -> Result<()> {
    command::run(
        command::cargo("build")
            .args(command::BUILT)
            .args(["--lib", "--bins"]),
    )?;
    command::run(
        command::cargo_as_root("test")?
            .args(command::BUILT)
            .args(["--test", "faults", "--", "--nocapture"])
            .env("PORTDEMUX_BIN", built())
            .env("PORTDEMUX_FAULTS", meant),
    )
}

/// The command as it was built with all the rest.
fn built() -> PathBuf {
    repository::target_dir().join("release/portdemux")
}

fn run_built(args: &TestArgs) -> Result<()> {
    if args
        .suite
        .as_deref()
        .is_some_and(|suite| suite != "upgrade")
    {
        return run_built_with(args, &[]);
    }
    let next = build::next()?;
    run_built_with(args, &[("PORTDEMUX_NEXT_BIN", &next)])
}

fn run_built_with(args: &TestArgs, paths: &[(&str, &Path)]) -> Result<()> {
    // The suites start the command as a user would, and `cargo test` does not build that for them.
    command::run(
        command::cargo("build")
            .args(command::BUILT)
            .args(["--lib", "--bins"]),
    )?;
    let mut totals = Totals::default();
    let mut failed = false;
    if let Some(suite) = &args.suite {
        let select = ["--test", suite];
        failed |= !test(&select, &args.args, paths, &mut totals)?;
    } else {
        // Documentation tests first, so that the suites' results are what is read at the end.
        let (doc, programs) = (["--doc"], ["--lib", "--bins", "--tests"]);
        for targets in [doc.as_slice(), programs.as_slice()] {
            failed |= !test(targets, &args.args, paths, &mut totals)?;
        }
    }
    say::line(&totals);
    if failed || totals.failed > 0 {
        bail!("tests failed");
    }
    if totals.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

/// Runs `cargo test`, shows what it says and adds up its results; returns whether it succeeded.
fn test(
    select: &[&str],
    args: &[String],
    paths: &[(&str, &Path)],
    totals: &mut Totals,
) -> Result<bool> {
    // Without privileges the suites say what they skip.
    let mut cargo = command::cargo_as_root("test").or_else(|err| {
        say::warning(format_args!("{err:#}; tests that load BPF programs skip"));
        Ok::<_, anyhow::Error>(command::cargo("test"))
    })?;
    cargo
        .args(command::BUILT)
        .arg("--no-fail-fast")
        .args(select)
        .arg("--")
        .args(args)
        .envs(paths.iter().copied())
        // What was built with all the rest; otherwise each suite would ask cargo for it.
        .env("PORTDEMUX_BIN", built())
        .stdout(Stdio::piped());
    let mut child = command::spawn(&mut cargo)?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.context("read what the tests say")?;
            let line = String::from_utf8_lossy(&line);
            totals.add(&line);
            say::line(line);
        }
    }
    let status = child.wait().context("wait for the tests")?;
    Ok(status.success())
}

/// The sum over all test programs.
#[derive(Default, Debug, PartialEq, Eq)]
struct Totals {
    passed: u64,
    failed: u64,
}

impl Totals {
    /// Adds the result of a test program, if this is the line that states it.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let count = |what: &str| -> u64 {
            result
                .split([';', '.'])
                .find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
                .unwrap_or(0)
        };
        self.passed += count("passed");
        self.failed += count("failed");
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tests: {} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_programs_add_up() {
        let mut totals = Totals::default();
        for line in [
            "running 3 tests",
            "test a ... ok",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 40 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.00s",
        ] {
            totals.add(line);
        }
        assert_eq!(totals.to_string(), "tests: 43 passed, 2 failed");
    }
}
