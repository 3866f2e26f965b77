//! `cargo xtask dist`: what is given to others.

mod archive;
mod boot;
mod check;
mod hidden;
mod package;
mod roots;
mod sbom;
mod wire;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    command::{self, Command},
    repository, say, setup,
};

/// How large a file may be that is given to others, or the binary in it, in bytes.
const MOST: u64 = 12 << 20;

#[derive(Args)]
pub(crate) struct DistArgs {
    /// Only the Debian package, without the static binary, the bill of materials and the checksums
    #[arg(long)]
    package_only: bool,
    /// Also installs, removes and purges the package in a root of these suites, as in bookworm,trixie
    #[arg(long, value_name = "SUITE", value_delimiter = ',')]
    test: Vec<String>,
    /// Also boots it in machines with a root of these suites and their kernels, as in bookworm,trixie
    #[arg(long, value_name = "SUITE", value_delimiter = ',')]
    boot: Vec<String>,
}

/// Sets up, makes everything and checks it.
pub(crate) fn run(args: &DistArgs) -> Result<()> {
    setup::toolchain()?;
    setup::dist()?;
    let directory = repository::target_dir().join("dist");
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let package = package::make(&directory, !args.package_only)?;
    check::package(&package)?;
    let mut made = vec![package.clone()];
    if !args.package_only {
        made.push(archive::make(&directory)?);
        made.push(sbom::make(&directory)?);
        made.push(checksums(&directory, &made)?);
    }
    for file in &made {
        let size = fs::metadata(file)?.len();
        say::line(format_args!("{:>10}  {}", size, file.display()));
        if size > MOST {
            bail!("{} is larger than {MOST} bytes", file.display());
        }
    }
    for suite in &args.test {
        roots::test(suite, &package)?;
    }
    if !args.boot.is_empty() {
        let newer = package::newer(&package, &repository::target_dir().join("roots"))?;
        for suite in &args.boot {
            boot::test(suite, &package, &newer)?;
        }
    }
    Ok(())
}

/// The short form, in which it runs in CI: the package alone, and what can be checked of it without a root of its own.
pub(crate) fn short() -> Result<()> {
    run(&DistArgs {
        package_only: true,
        test: Vec::new(),
        boot: Vec::new(),
    })
}

/// The version of everything.
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Where what is given to others is built, so that it does not say where: other flags build everything anew.
fn apart() -> PathBuf {
    repository::target_dir().join("package")
}

/// The name of a file, which every path here has.
fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}

fn checksums(directory: &Path, files: &[PathBuf]) -> Result<PathBuf> {
    let sums = directory.join("SHA256SUMS");
    let text = command::output(
        Command::new("sha256sum")
            .current_dir(directory)
            .args(files.iter().map(|file| name(file))),
    )?;
    fs::write(&sums, text).with_context(|| format!("write {}", sums.display()))?;
    Ok(sums)
}
