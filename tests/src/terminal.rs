//! What a program shows to a person.

use std::{
    fs::File,
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result};
use nix::{
    pty::{Winsize, openpty},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

mod screen;

pub use screen::Screen;

use crate::{
    run::Captured,
    wait::{PATIENCE, wait_for},
};

/// How many lines a terminal has unless a test says otherwise.
pub const LINES: u16 = 24;

/// What a person saw and how the program ended.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Everything that was written to the terminal, by way of standard output or standard error.
    pub text: String,
    /// What is on the screen.
    pub screen: Screen,
    /// How the program ended.
    pub status: ExitStatus,
}

/// Runs a command to its end on a terminal of so many columns and [`LINES`] lines.
///
/// # Errors
///
/// If there is no terminal, or the command does not start or not end.
pub fn run(command: Command, columns: u16) -> Result<Shown> {
    Session::start(command, columns, LINES)?.end()
}

/// A program that runs on a terminal. It is killed on drop.
#[derive(Debug)]
pub struct Session {
    child: Child,
    written: Captured,
    columns: u16,
    lines: u16,
}

impl Session {
    /// Starts a command on a terminal of this size.
    ///
    /// # Errors
    ///
    /// If there is no terminal, or the command does not start.
    pub fn start(mut command: Command, columns: u16, lines: u16) -> Result<Self> {
        let size = Winsize {
            ws_row: lines,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let terminal = openpty(&size, None).context("open a terminal")?;
        // Reading from the master ends when nobody holds the other end any more: the command has it
        // until it is dropped.
        let child = command
            .stdin(Stdio::null())
            .stdout(terminal.slave.try_clone()?)
            .stderr(terminal.slave)
            .spawn()
            .context("start a program on a terminal")?;
        Ok(Self {
            child,
            written: Captured::from(Some(File::from(terminal.master))),
            columns,
            lines,
        })
    }

    /// What is on the screen.
    ///
    /// # Errors
    ///
    /// If the program wrote something that a [`Screen`] does not know.
    pub fn screen(&self) -> Result<Screen> {
        Screen::after(&self.written.text(), self.columns, self.lines)
    }

    /// Sends a signal to the program.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id())?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("send {signal}"))
    }

    /// Waits for the program's end.
    ///
    /// # Errors
    ///
    /// If it does not end, or wrote something that a [`Screen`] does not know.
    pub fn end(mut self) -> Result<Shown> {
        let status = wait_for("its end", PATIENCE, || Ok(self.child.try_wait()?))?;
        let text = self.written.finish();
        Ok(Shown {
            screen: Screen::after(&text, self.columns, self.lines)?,
            text: text.replace("\r\n", "\n"),
            status,
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Both fail if it has ended.
        let _: std::io::Result<()> = self.child.kill();
        let _: std::io::Result<ExitStatus> = self.child.wait();
    }
}
