//! A test of the suite `upgrade`: `portdemux-next`, with another ABI and other layouts, takes over from this version.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// The one with traffic. What the others ask does not depend on the kernel, or not on another one than [`super::rules`]
/// asks for.
const TEST: &str = "traffic::every_packet_is_accounted_for_while_another_version_takes_over";

pub(crate) fn run() -> Result<()> {
    let output = Command::new("upgrade")
        .args(["--exact", TEST, "--nocapture"])
        .env("PORTDEMUX_NEXT_BIN", "/bin/portdemux-next")
        .output()
        .context("start the suite")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
