//! What the demo shows.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
};

/// Standard output.
#[derive(Debug)]
pub(crate) struct Screen {
    is_terminal: bool,
    colour: bool,
}

#[expect(
    clippy::unused_self,
    reason = "everything that is shown is shown on the screen"
)]
impl Screen {
    pub(crate) fn new() -> Self {
        let is_terminal = io::stdout().is_terminal();
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            is_terminal,
            colour: is_terminal && wanted,
        }
    }

    pub(crate) fn head(&self, text: &str) {
        write(&format!("\n{}\n", self.styled("1", text)));
    }

    pub(crate) fn say(&self, text: &str) {
        write(&format!("{text}\n"));
    }

    pub(crate) fn command(&self, arguments: &str) {
        write(&format!(
            "{}\n",
            self.styled("36", &format!("$ portdemux {arguments}"))
        ));
    }

    pub(crate) fn output(&self, text: &str) {
        write(text);
    }

    /// A place for a table that changes.
    pub(crate) const fn table(&self) -> Table<'_> {
        Table {
            screen: self,
            lines: 0,
        }
    }

    fn styled(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// A table that is drawn over itself on a terminal, and shown once elsewhere.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    screen: &'a Screen,
    lines: usize,
}

impl Table<'_> {
    pub(crate) fn show(&mut self, text: &str, is_last: bool) {
        if !self.screen.is_terminal {
            if is_last {
                write(text);
            }
            return;
        }
        let mut drawn = String::new();
        if self.lines > 0 {
            let _ = write!(drawn, "\x1b[{}F\x1b[J", self.lines);
        }
        drawn.push_str(text);
        self.lines = text.lines().count();
        write(&drawn);
    }
}

fn write(text: &str) {
    let mut stdout = io::stdout().lock();
    // Whoever closed the output does not want to see more of it.
    let _: io::Result<()> = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}
