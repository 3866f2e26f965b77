//! What is wrong with a ruleset, as it is told to its author.

use std::fmt;

use crate::figures::{padded, width};

/// How many mistakes are written out; of more only the number is told.
const SHOWN: usize = 20;

/// Everything that is wrong with a ruleset, in the order of its lines.
///
/// Displays as `error:` blocks. If a change was asked for, the last ends by saying that there was none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct RulesError {
    /// Where the rules come from, as it stands before `:LINE`; empty if they have no file.
    pub file: String,
    /// The mistakes; at least one.
    pub diagnostics: Vec<Diagnostic>,
    /// Whether the ruleset was to be put in force.
    pub was_to_change: bool,
    /// Set if the lines up to this one are those of the ruleset in force, which has no file that an
    /// author could open, and those behind it are of a rule that is to be added to it.
    pub in_force: Option<usize>,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong, in lower case and without a full stop.
    pub message: String,
    /// What shows that it is so.
    pub evidence: Vec<Evidence>,
    /// What to do about it, if there is more to say than the message does.
    pub help: Option<String>,
}

/// One line under the message of a [`Diagnostic`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// What stands there: one column, or several that are aligned with those of its neighbours.
    pub columns: Vec<String>,
    /// The line of the file it stands in, from 1; 0 if it has none.
    pub line: usize,
}

impl Diagnostic {
    /// A mistake without evidence or help.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            evidence: Vec::new(),
            help: None,
        }
    }

    /// Adds what stands in a line.
    #[must_use]
    pub fn at(mut self, line: usize, columns: impl IntoIterator<Item = String>) -> Self {
        self.evidence.push(Evidence {
            columns: columns.into_iter().collect(),
            line,
        });
        self
    }

    /// Adds a line of evidence that stands nowhere in the file.
    #[must_use]
    pub fn note(self, text: impl Into<String>) -> Self {
        self.at(0, [text.into()])
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The first line of the file that it is about, from 1; 0 if it is about none.
    #[must_use]
    pub fn line(&self) -> usize {
        self.evidence
            .iter()
            .map(|evidence| evidence.line)
            .find(|&line| line > 0)
            .unwrap_or(0)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, of: &RulesError) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        let widths = self.widths();
        for Evidence { columns, line } in &self.evidence {
            f.write_str("\n ")?;
            if *line == 0 {
                write!(f, " {}", columns.join("  "))?;
                continue;
            }
            for (column, width) in columns.iter().zip(&widths) {
                write!(f, " {} ", padded(column, *width))?;
            }
            match of.in_force {
                Some(last) if *line > last => f.write_str(" the rule you add")?,
                Some(_) => f.write_str(" in force")?,
                None if of.file.is_empty() => write!(f, " line {line}")?,
                None => write!(f, " {}:{line}", of.file)?,
            }
        }
        Ok(())
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths = Vec::new();
        for evidence in self.evidence.iter().filter(|evidence| evidence.line > 0) {
            for (index, column) in evidence.columns.iter().enumerate() {
                if index == widths.len() {
                    widths.push(0);
                }
                widths[index] = widths[index].max(width(column));
            }
        }
        widths
    }
}

impl RulesError {
    /// Mistakes in a file, put into the order of its lines.
    #[must_use]
    pub fn new(file: impl Into<String>, mut diagnostics: Vec<Diagnostic>) -> Self {
        diagnostics.sort_by_key(Diagnostic::line);
        Self {
            file: file.into(),
            diagnostics,
            was_to_change: true,
            in_force: None,
        }
    }

    /// Cites them as mistakes of the ruleset in force with a rule that is added behind this line of it.
    #[must_use]
    pub const fn of_an_addition(mut self, behind: usize) -> Self {
        self.in_force = Some(behind);
        self
    }

    /// Cites them as mistakes of the ruleset in force, or of an edit of it that adds no rule.
    #[must_use]
    pub const fn of_the_ruleset_in_force(self) -> Self {
        self.of_an_addition(usize::MAX)
    }

    /// Tells them to somebody who asked for no change.
    #[must_use]
    pub fn of_a_reader(mut self) -> Self {
        self.was_to_change = false;
        self
    }
}

impl From<Diagnostic> for RulesError {
    fn from(diagnostic: Diagnostic) -> Self {
        Self {
            file: String::new(),
            diagnostics: vec![diagnostic],
            was_to_change: true,
            in_force: None,
        }
    }
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.diagnostics.len().min(SHOWN);
        let ends_here = self.was_to_change && self.diagnostics.len() == 1;
        for (number, diagnostic) in self.diagnostics.iter().take(shown).enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            diagnostic.write(f, self)?;
            match &diagnostic.help {
                Some(help) if ends_here => {
                    write!(f, "\n help: {help}; nothing was changed")?;
                }
                Some(help) => write!(f, "\n help: {help}")?,
                None if ends_here => f.write_str("\n  nothing was changed")?,
                None => {}
            }
        }
        if self.diagnostics.len() > shown {
            write!(f, "\n… and {} more errors", self.diagnostics.len() - shown)?;
        }
        if self.diagnostics.len() > 1 {
            write!(f, "\n{} errors", self.diagnostics.len())?;
            if self.was_to_change {
                f.write_str("; nothing was changed")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clash() -> Diagnostic {
        Diagnostic::new("two rules claim the same entry points")
            .at(12, ["web".into(), "8000-8100/tcp".into()])
            .at(19, ["admin".into(), "8050-8200/tcp".into()])
            .note("both claim 8050-8100/tcp and neither is more specific")
            .help("give one an address or split a range")
    }

    #[test]
    fn one_mistake_shows_its_evidence_aligned_and_says_that_nothing_changed() {
        let error = RulesError::new("clash.toml", vec![clash()]);
        assert_eq!(
            error.to_string(),
            "error: two rules claim the same entry points\n\
             \x20 web    8000-8100/tcp  clash.toml:12\n\
             \x20 admin  8050-8200/tcp  clash.toml:19\n\
             \x20 both claim 8050-8100/tcp and neither is more specific\n\
             \x20help: give one an address or split a range; nothing was changed"
        );
    }

    #[test]
    fn several_mistakes_stand_in_the_order_of_their_lines_and_say_once_that_nothing_changed() {
        let early = Diagnostic::new("`443` names no protocol").at(3, ["port = \"443\"".into()]);
        let text = RulesError::new("", vec![clash(), early]).to_string();
        assert!(text.starts_with("error: `443` names no protocol\n  port = \"443\"  line 3\n"));
        assert!(
            text.ends_with("split a range\n2 errors; nothing was changed"),
            "{text}"
        );
        assert_eq!(text.matches("nothing was changed").count(), 1);
    }

    #[test]
    fn a_reader_is_not_told_that_nothing_changed() {
        let one = RulesError::from(clash()).of_a_reader().to_string();
        assert!(
            one.ends_with("\n help: give one an address or split a range"),
            "{one}"
        );
        let two = RulesError::new("f", vec![clash(); 2])
            .of_a_reader()
            .to_string();
        assert!(two.ends_with("split a range\n2 errors"), "{two}");
    }

    #[test]
    fn of_very_many_mistakes_the_first_are_shown_and_all_are_counted() {
        let text = RulesError::new("f", vec![clash(); 1000]).to_string();
        assert_eq!(text.matches("error:").count(), SHOWN);
        assert!(text.ends_with("… and 980 more errors\n1000 errors; nothing was changed"));
    }
}
