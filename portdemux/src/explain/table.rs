//! Explained frames as people read them: a line for each, and what they come to.

use std::fmt::Write as _;

use portdemux_common::{
    conntrack::Direction,
    reason::{Reason, Verdict},
};

use super::{Basis, Explained, explained::EGRESS};
use crate::figures::{counted, cut, grouped, padded, width};

/// The widest that the column of rules' names is made; longer names stand out.
const RULE_WIDTH: usize = 16;

/// A table of frames, written line by line.
#[derive(Debug)]
pub(super) struct FrameTable {
    rule_width: usize,
    /// How many columns of the terminal a line can take.
    columns: usize,
}

/// How many frames came to what.
#[derive(Clone, Debug)]
pub struct Tally {
    counts: [[u64; Reason::ALL.len()]; Verdict::ALL.len()],
    /// Those that go out.
    egress: u64,
}

impl FrameTable {
    pub(super) fn new(basis: &Basis<'_>, columns: usize) -> Self {
        Self {
            columns,
            rule_width: basis.widest_name().clamp("RULE".len(), RULE_WIDTH),
        }
    }

    pub(super) fn head(&self, text: &mut String) {
        let width = self.rule_width;
        let _ = writeln!(
            text,
            "{:>6}  VERDICT  {:<11}  {:width$}  PACKET",
            "FRAME", "REASON", "RULE"
        );
    }

    /// The packet stands last: how long its addresses are is nobody's choice. Where there is no room for
    /// it, it has a line of its own. What the kernel's program logged about it stands below.
    pub(super) fn row(&self, frame: &Explained<'_>, log: Option<&[String]>, text: &mut String) {
        let outcome = format!(
            "{:>6}  {:<7}  {:<11}  {}",
            frame.number,
            frame.decision.verdict.name(),
            frame.reason(),
            padded(frame.rule.unwrap_or("–"), self.rule_width),
        );
        let row = format!("{outcome}  {frame}");
        if width(&row) <= self.columns {
            self.line(&row, text);
        } else {
            self.line(outcome.trim_end(), text);
            self.line(&format!("        {frame}"), text);
        }
        for line in log.unwrap_or_default() {
            self.line(&format!("        kernel: {line}"), text);
        }
    }

    fn line(&self, line: &str, text: &mut String) {
        text.push_str(&cut(line, self.columns));
        text.push('\n');
    }
}

impl Tally {
    pub(super) const fn new() -> Self {
        Self {
            counts: [[0; Reason::ALL.len()]; Verdict::ALL.len()],
            egress: 0,
        }
    }

    pub(super) const fn count(&mut self, frame: &Explained<'_>) {
        match frame.direction {
            Direction::Sent => self.egress += 1,
            Direction::Received => {
                self.counts[frame.decision.verdict as usize][frame.decision.reason as usize] += 1;
            }
        }
    }

    /// How many frames there were.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.egress + self.counts.iter().flatten().sum::<u64>()
    }

    /// How many frames that came in came to a verdict for a reason, the most first, nothing left out but what is
    /// zero.
    #[must_use]
    pub fn outcomes(&self) -> Vec<(Verdict, Reason, u64)> {
        let mut outcomes: Vec<_> = Verdict::ALL
            .into_iter()
            .flat_map(|verdict| Reason::ALL.iter().map(move |&reason| (verdict, reason)))
            .map(|(verdict, reason)| {
                let count = self.counts[verdict as usize][reason as usize];
                (verdict, reason, count)
            })
            .filter(|&(_, _, count)| count > 0)
            .collect();
        outcomes.sort_by_key(|&(_, _, count)| std::cmp::Reverse(count));
        outcomes
    }

    /// The table's end.
    pub(super) fn write(&self, text: &mut String) {
        let _ = writeln!(text, "\n{}", counted(self.frames(), "frame"));
        for (verdict, reason, count) in self.outcomes() {
            let _ = writeln!(
                text,
                "{:>12}  {}  {}",
                grouped(count),
                verdict.name(),
                reason.name()
            );
        }
        if self.egress > 0 {
            let _ = writeln!(text, "{:>12}  pass  {EGRESS}", grouped(self.egress));
        }
    }
}
