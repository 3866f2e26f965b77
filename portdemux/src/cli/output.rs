//! Everything the command prints goes through here.

pub(super) mod progress;
mod streams;

use std::{
    fmt::{self, Display, Write as _},
    io::{self, IsTerminal as _},
};

use streams::{Stream, Streams};

use super::visible::{except, visible};
use crate::{
    error::told,
    figures::{cut, padded, width},
};

/// What a command says: its output, whole lines at a time, and what a user should know besides. Copies say it to the
/// same streams.
#[derive(Clone, Debug)]
pub struct Output {
    streams: Streams,
    colour: bool,
    is_terminal: bool,
    labels_have_colour: bool,
}

/// What stands between the codes of a style when those are asked for.
const PLACE: &str = " ";

/// How something is to look on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A table's head.
    Head,
    /// Something that came to be.
    Added,
    /// Something that is different.
    Changed,
    /// Something that went, or was lost.
    Removed,
    /// Of little weight.
    Faint,
}

impl Style {
    const ALL: [Self; 5] = [
        Self::Head,
        Self::Added,
        Self::Changed,
        Self::Removed,
        Self::Faint,
    ];

    const fn code(self) -> &'static str {
        match self {
            Self::Head => "1",
            Self::Added => "32",
            Self::Changed => "33",
            Self::Removed => "31",
            Self::Faint => "2",
        }
    }
}

impl Output {
    /// Standard output and standard error as they are connected.
    #[must_use]
    pub fn new() -> Self {
        let is_terminal = io::stdout().is_terminal();
        Self {
            streams: Streams::new(Box::new(io::stdout()), Box::new(io::stderr())),
            colour: is_terminal && wants_colour(),
            is_terminal,
            labels_have_colour: io::stderr().is_terminal() && wants_colour(),
        }
    }

    /// Two writers of the caller's, for what would go to standard output and to standard error.
    #[must_use]
    pub fn to(
        output: impl io::Write + Send + 'static,
        error: impl io::Write + Send + 'static,
    ) -> Self {
        Self {
            streams: Streams::new(Box::new(output), Box::new(error)),
            colour: false,
            is_terminal: false,
            labels_have_colour: false,
        }
    }

    /// Whether a person is looking.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// How many columns and lines there are: of the terminal, or 80 and no end.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        if !self.is_terminal {
            return (usize::MAX, usize::MAX);
        }
        terminal_size::terminal_size().map_or((80, 24), |(width, height)| {
            (width.0.into(), height.0.into())
        })
    }

    /// A text in a style, if there is colour.
    #[must_use]
    pub fn styled(&self, style: Style, text: &str) -> String {
        if self.colour {
            format!("\x1b[{}m{text}\x1b[0m", style.code())
        } else {
            text.to_owned()
        }
    }

    /// Writes a text to standard output, when it may be written, with the styles in it and control characters
    /// written out.
    pub fn write(&self, text: &str) {
        let styles = Style::ALL.map(|style| self.styled(style, PLACE));
        let mut codes: Vec<&str> = styles.iter().flat_map(|style| style.split(PLACE)).collect();
        codes.retain(|code| !code.is_empty());
        self.write_as_it_is(&except(text, |rest| {
            codes
                .iter()
                .find(|code| rest.starts_with(**code))
                .map(|code| code.len())
        }));
    }

    /// Writes a text to standard output, when it may be written, with all that is in it.
    pub fn write_as_it_is(&self, text: &str) {
        self.streams.say(Stream::Output, text);
    }

    /// Writes a line to standard output, when it may be written.
    pub fn line(&self, line: impl Display) {
        self.write_as_it_is(&visible(&format!("{line}\n")));
    }

    /// Whether what is written from here on comes anywhere: its reader is there, and it could be written so far.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.streams.is_read()
    }

    /// Holds back what is said until [`Self::release`].
    pub fn hold(&self) {
        self.streams.hold();
    }

    /// Forgets what was held back, and goes on holding back.
    pub fn discard(&self) {
        self.streams.discard();
    }

    /// Says what was held back.
    ///
    /// # Errors
    ///
    /// Standard output could not be written. A reader that has gone away is no error.
    pub fn release(&self) -> io::Result<()> {
        self.streams.release()
    }

    /// Says what a user should know although the command goes on.
    pub fn warn(&self, message: impl Display, help: Option<&str>) {
        let message = message.to_string();
        let mut text = format!("{} {}\n", self.label("warning:", "1;33"), visible(&message));
        if let Some(help) = help {
            let _ = writeln!(text, "{} {}", self.label("   help:", "36"), visible(help));
        }
        self.streams.say(Stream::Error, &text);
    }

    /// Says that something is not known, why, and what to do, although the command goes on.
    pub fn warn_of(&self, what: impl Display, error: &anyhow::Error) {
        let (causes, advice) = told(error);
        self.warn(format!("{what}: {causes}"), advice.as_deref());
    }

    /// Says something of use beside the output.
    pub fn note(&self, message: impl Display) {
        self.streams
            .say(Stream::Error, &visible(&format!("note: {message}\n")));
    }

    /// Says what clap has to say: help, or what is wrong with the arguments.
    pub fn say(&self, said: &clap::Error) {
        let (stream, colour) = if said.use_stderr() {
            (Stream::Error, self.labels_have_colour)
        } else {
            (Stream::Output, self.colour)
        };
        let text = said.render();
        self.streams.say(
            stream,
            &if colour {
                text.ansi().to_string()
            } else {
                text.to_string()
            },
        );
    }

    /// Says why the command failed and what to do.
    pub fn fail(&self, error: &anyhow::Error) {
        self.streams.say(Stream::Error, &self.describe(error));
    }

    fn describe(&self, error: &anyhow::Error) -> String {
        if let Some(rules) = error.downcast_ref::<crate::rules::RulesError>() {
            // It is a page of its own, made for a reader.
            return visible(&format!("{rules}\n")).into_owned();
        }
        let (causes, advice) = told(error);
        let mut text = format!("{} {}\n", self.label("error:", "1;31"), visible(&causes));
        if let Some(advice) = advice {
            let _ = writeln!(text, "{} {}", self.label(" help:", "36"), visible(&advice));
        }
        text
    }

    fn label(&self, label: &str, code: &str) -> String {
        if self.labels_have_colour {
            format!("\x1b[{code}m{label}\x1b[0m")
        } else {
            label.to_owned()
        }
    }
}

impl Default for Output {
    fn default() -> Self {
        Self::new()
    }
}

fn wants_colour() -> bool {
    // https://no-color.org
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Which side a column's cells stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    head: &'static str,
    align: Align,
    /// Columns of the highest weight go first where the table is too wide; 0 stays.
    weight: u8,
}

/// To what width a column of words is cut before another column goes.
const LEGIBLE: usize = 24;
/// To what width it is cut before a column goes that is rather kept.
const SHORT: usize = 12;
/// To what width it is cut when no other column can go.
const NARROWEST: usize = 8;

/// A table with aligned columns.
#[derive(Debug, Default)]
pub struct Table {
    columns: Vec<Column>,
    /// Columns up to this weight are kept where cutting words short makes room.
    kept: u8,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without columns.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts words short before a column of at most this weight goes.
    #[must_use]
    pub fn keep(mut self, weight: u8) -> Self {
        self.kept = weight;
        self
    }

    /// Adds a column; `weight` says how soon it goes where there is no room.
    #[must_use]
    pub fn column(mut self, head: &'static str, align: Align, weight: u8) -> Self {
        self.columns.push(Column {
            head,
            align,
            weight,
        });
        self
    }

    /// Adds a row; an empty cell shows an en dash.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(
            cells
                .into_iter()
                .map(|cell| {
                    if cell.is_empty() {
                        "–".into()
                    } else {
                        visible(&cell)
                            .replace('\n', "\\u000a")
                            .replace('\t', "\\u0009")
                    }
                })
                .collect(),
        );
    }

    /// Lays the table out in as many columns of text as there are, and says below it which of its own had no room.
    #[must_use]
    pub fn render(&self, output: &Output) -> String {
        let mut left_out = Vec::new();
        let text = self.render_noting(output, &mut left_out);
        text + &no_room(&left_out, output)
    }

    /// Lays the table out, and leaves it to others to say which columns had no room.
    #[must_use]
    pub fn render_noting(&self, output: &Output, left_out: &mut Vec<&'static str>) -> String {
        let mut widths: Vec<usize> = (0..self.columns.len())
            .map(|at| {
                let cells = self.rows.iter().map(|row| width(&row[at]));
                cells.max().unwrap_or(0).max(width(self.columns[at].head))
            })
            .collect();
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let room = output.size().0.saturating_add(2);
        let excess = loop {
            let taken: usize = shown.iter().map(|&at| widths[at] + 2).sum();
            let excess = taken.saturating_sub(room);
            let heaviest = shown.iter().copied();
            let heaviest = heaviest.max_by_key(|&at| self.columns[at].weight);
            let weight = heaviest.map_or(0, |at| self.columns[at].weight);
            let legible = if weight > self.kept { LEGIBLE } else { SHORT };
            let words = shown.iter().filter(|&&at| self.has_words(at));
            let spare = words.map(|&at| widths[at].saturating_sub(legible));
            if excess <= spare.sum() {
                break excess;
            }
            match heaviest {
                Some(at) if weight > 0 => shown.retain(|&kept| kept != at),
                _ => break excess,
            }
        };
        self.narrow(&mut widths, &shown, excess);
        for (at, column) in self.columns.iter().enumerate() {
            if !shown.contains(&at) && !left_out.contains(&column.head) {
                left_out.push(column.head);
            }
        }
        let mut text = String::new();
        let head = self
            .columns
            .iter()
            .map(|column| column.head.to_owned())
            .collect::<Vec<_>>();
        let line = self.lay_out(&head, &shown, &widths);
        let _ = writeln!(text, "{}", output.styled(Style::Head, &line));
        for row in &self.rows {
            let _ = writeln!(text, "{}", self.lay_out(row, &shown, &widths));
        }
        text
    }

    /// Takes so much room from the columns of words, always from the widest.
    fn narrow(&self, widths: &mut [usize], shown: &[usize], excess: usize) {
        let words = shown.iter().copied().filter(|&at| self.has_words(at));
        let words: Vec<usize> = words.collect();
        for _ in 0..excess {
            let widest = words.iter().copied().max_by_key(|&at| widths[at]);
            match widest {
                Some(at) if widths[at] > NARROWEST => widths[at] -= 1,
                _ => return,
            }
        }
    }

    fn has_words(&self, at: usize) -> bool {
        self.columns[at].align == Align::Left
    }

    fn lay_out(&self, cells: &[String], shown: &[usize], widths: &[usize]) -> String {
        let mut line = String::new();
        for &at in shown {
            let cell = cut(&cells[at], widths[at]);
            let between = if line.is_empty() { "" } else { "  " };
            let _ = match self.columns[at].align {
                Align::Left => write!(line, "{between}{}", padded(&cell, widths[at])),
                Align::Right => {
                    let missing = widths[at].saturating_sub(width(&cell));
                    write!(line, "{between}{:missing$}{cell}", "")
                }
            };
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// A line that says which columns were left out of a page, if any were.
#[must_use]
pub fn no_room(left_out: &[&str], output: &Output) -> String {
    if left_out.is_empty() {
        return String::new();
    }
    let room = output.size().0;
    let names = left_out.join(", ");
    let texts = [
        format!("left out for want of room: {names}; a wider terminal or --json has them"),
        format!("left out for want of room: {names}; see --json"),
        format!("left out: {names}; see --json"),
    ];
    let fitting = texts.iter().find(|text| width(text) <= room);
    let text = fitting.unwrap_or(&texts[2]);
    output.styled(Style::Faint, &cut(text, room)) + "\n"
}

impl Display for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}
