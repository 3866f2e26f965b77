//! A kernel that is too old: it is told so in one line, before anything is made.

use std::fs;

use anyhow::{Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
};

pub(crate) fn run() -> Result<()> {
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let refused = portdemux.fails(1, &["attach", INTERFACE])?;
    let lines: Vec<&str> = refused.stderr.lines().collect();
    ensure!(
        lines.len() <= 2,
        "more than a line and its help: {}",
        refused.stderr
    );
    ensure!(
        lines.first().is_some_and(|line| line.starts_with("error: ")
            && line.contains("Linux 5.15")
            && line.contains("lacks")),
        "not what it lacks: {}",
        refused.stderr
    );
    ensure!(
        fs::read_dir(portdemux.bpffs())?.next().is_none(),
        "something was pinned"
    );
    ensure!(portdemux.records()?.is_empty(), "something was recorded");
    Ok(())
}
