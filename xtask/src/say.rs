//! The one place that writes to the terminal.

use std::{
    fmt::Display,
    io::{IsTerminal as _, Write as _},
};

/// Says a line on standard output.
pub(crate) fn line(text: impl Display) {
    // Whoever closed the pipe has read enough; the chore itself goes on.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Says on standard error what is being done: standard output is left to what it says.
pub(crate) fn progress(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Announces a step of a longer chore.
pub(crate) fn step(text: impl Display) {
    let (bold, plain) = styles(std::io::stdout().is_terminal());
    line(format_args!("{bold}==> {text}{plain}"));
}

/// Warns about something that does not stop the chore.
pub(crate) fn warning(text: impl Display) {
    let (bold, plain) = styles(std::io::stderr().is_terminal());
    let _ = writeln!(std::io::stderr(), "{bold}warning:{plain} {text}");
}

/// Says why the chore failed, cause after cause.
pub(crate) fn error(err: &anyhow::Error) {
    let (bold, plain) = styles(std::io::stderr().is_terminal());
    let _ = writeln!(std::io::stderr(), "{bold}error:{plain} {err:#}");
}

fn styles(is_terminal: bool) -> (&'static str, &'static str) {
    if is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) {
        ("\x1b[1m", "\x1b[0m")
    } else {
        ("", "")
    }
}
