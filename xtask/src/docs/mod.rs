//! `cargo xtask docs`

mod links;

use anyhow::Result;

use crate::{command, say, setup};

/// Builds the API documentation and checks every link, in code and in Markdown.
pub(crate) fn run() -> Result<()> {
    setup::toolchain()?;
    say::step("API documentation");
    command::run(
        command::cargo("doc")
            .args(command::BUILT)
            .arg("--no-deps")
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    say::step("links");
    links::check()
}
