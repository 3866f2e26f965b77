//! What a program shows to a person.

use std::{
    fs::File,
    io::Read as _,
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result};
use nix::pty::{Winsize, openpty};

/// What a person saw and how the program ended.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Everything that was written to the terminal, by way of standard output or standard error.
    pub text: String,
    /// How the program ended.
    pub status: ExitStatus,
}

/// Runs a command to its end on a terminal of so many columns and 24 lines.
///
/// # Errors
///
/// If there is no terminal, or the command does not start.
pub fn run(mut command: Command, columns: u16) -> Result<Shown> {
    let size = Winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let terminal = openpty(&size, None).context("open a terminal")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(terminal.slave.try_clone()?)
        .stderr(terminal.slave)
        .spawn()
        .context("start a program on a terminal")?;
    // The command still holds the terminal's other end, and so would it for ever.
    drop(command);
    let mut bytes = Vec::new();
    // Reading ends with an error when nobody holds the other end any more.
    let _: std::io::Result<usize> = File::from(terminal.master).read_to_end(&mut bytes);
    Ok(Shown {
        text: String::from_utf8_lossy(&bytes).replace("\r\n", "\n"),
        status: child.wait()?,
    })
}
