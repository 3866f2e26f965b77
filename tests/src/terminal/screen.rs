//! A terminal's screen: what is to be seen after everything that was written to it.

use std::{mem, str::Chars};

use anyhow::{Context as _, Result, bail};

/// A screen of characters. It knows what ECMA-48 and xterm call by these names and no more: carriage
/// return, line feed, CUP to the first place, ED and EL to the end, SGR, the alternate screen (1049)
/// and the cursor (25).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Screen {
    lines: Vec<Vec<char>>,
    columns: usize,
    row: usize,
    column: usize,
    /// The other screen, while the alternate one is shown.
    other: Option<Vec<Vec<char>>>,
    /// Whether the cursor can be seen.
    pub has_cursor: bool,
    /// How many lines went out of sight at the top.
    pub scrolled: usize,
    /// How many lines went on in the next because they were too long.
    pub wrapped: usize,
}

impl Screen {
    /// The screen after this was written to it.
    pub(super) fn after(text: &str, columns: u16, lines: u16) -> Result<Self> {
        let columns = usize::from(columns);
        let mut screen = Self {
            lines: vec![vec![' '; columns]; usize::from(lines)],
            columns,
            row: 0,
            column: 0,
            other: None,
            has_cursor: true,
            scrolled: 0,
            wrapped: 0,
        };
        // Of a sequence that is still being written only the end is missing.
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            match character {
                '\r' => screen.column = 0,
                '\n' => screen.line_feed(),
                '\x1b' => match sequence(&mut rest) {
                    Some((parameters, last)) => screen.control(&parameters, last)?,
                    None => break,
                },
                character if character.is_control() => {
                    bail!("a screen does not know {character:?}")
                }
                character => screen.put(character),
            }
        }
        Ok(screen)
    }

    /// Whether the alternate screen is shown.
    #[must_use]
    pub const fn is_alternate(&self) -> bool {
        self.other.is_some()
    }

    /// The lines from the top to the last that is not empty.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let lines = self.lines.iter().map(|line| line.iter().collect());
        let mut lines: Vec<String> = lines
            .map(|line: String| line.trim_end().to_owned())
            .collect();
        while lines.pop_if(|line| line.is_empty()).is_some() {}
        lines
    }

    fn put(&mut self, character: char) {
        if self.column == self.columns {
            self.wrapped += 1;
            self.column = 0;
            self.line_feed();
        }
        self.lines[self.row][self.column] = character;
        self.column += 1;
    }

    fn line_feed(&mut self) {
        if self.row + 1 < self.lines.len() {
            self.row += 1;
            return;
        }
        self.scrolled += 1;
        self.lines.remove(0);
        self.lines.push(vec![' '; self.columns]);
    }

    fn control(&mut self, parameters: &str, last: char) -> Result<()> {
        match (parameters, last) {
            ("", 'H') => (self.row, self.column) = (0, 0),
            ("", 'K') => self.clear_line(),
            ("", 'J') => {
                self.clear_line();
                let empty = vec![' '; self.columns];
                self.lines[self.row + 1..].fill(empty);
            }
            (_, 'm') => {}
            ("?25", 'h') => self.has_cursor = true,
            ("?25", 'l') => self.has_cursor = false,
            ("?1049", 'h') => {
                let empty = vec![vec![' '; self.columns]; self.lines.len()];
                self.other = Some(mem::replace(&mut self.lines, empty));
            }
            ("?1049", 'l') => {
                self.lines = self.other.take().context("no alternate screen is shown")?;
            }
            _ => bail!("a screen does not know CSI {parameters} {last}"),
        }
        Ok(())
    }

    fn clear_line(&mut self) {
        let column = self.column;
        self.lines[self.row][column..].fill(' ');
    }
}

/// The rest of a control sequence: its parameters and the character that ends it.
fn sequence(rest: &mut Chars) -> Option<(String, char)> {
    if rest.next()? != '[' {
        return Some((String::new(), '\x1b'));
    }
    let mut parameters = String::new();
    for character in rest {
        if ('\x40'..='\x7e').contains(&character) {
            return Some((parameters, character));
        }
        parameters.push(character);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        Screen::after(text, 8, 3).unwrap().lines()
    }

    #[test]
    fn what_is_written_over_another_page_is_what_is_seen() {
        let text = "first\r\nsecond\r\nthird\x1b[H1st\x1b[K\r\n\x1b[1m2nd\x1b[0m\x1b[J";
        assert_eq!(lines(text), ["1st", "2nd"]);
    }

    #[test]
    fn what_is_too_long_or_too_much_is_counted() {
        let screen = Screen::after("12345678", 8, 3).unwrap();
        assert_eq!((screen.wrapped, screen.scrolled), (0, 0));
        let screen = Screen::after("123456789\r\n2\r\n3", 8, 3).unwrap();
        assert_eq!((screen.wrapped, screen.scrolled), (1, 1));
        assert_eq!(screen.lines(), ["9", "2", "3"]);
    }

    #[test]
    fn the_alternate_screen_leaves_the_other_as_it_was() {
        let shown = "before\x1b[?1049h\x1b[?25l\x1b[Hafter";
        let screen = Screen::after(shown, 8, 3).unwrap();
        assert!(screen.is_alternate() && !screen.has_cursor);
        assert_eq!(screen.lines(), ["after"]);
        let screen = Screen::after(&format!("{shown}\x1b[?25h\x1b[?1049l"), 8, 3).unwrap();
        assert!(!screen.is_alternate() && screen.has_cursor);
        assert_eq!(screen.lines(), ["before"]);
    }

    #[test]
    fn what_it_does_not_know_is_an_error_and_what_is_unfinished_is_not() {
        assert!(Screen::after("\x1b[5A", 8, 3).is_err());
        assert!(Screen::after("\x07", 8, 3).is_err());
        assert_eq!(lines("text\x1b[?10"), ["text"]);
    }
}
