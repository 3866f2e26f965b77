//! How many instructions the verifiers took, by program and kernel.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result};

use super::machine::Outcome;
use crate::repository;

const FILE: &str = "docs/performance.md";
/// Between these lines the table stands.
const BEGIN: &str = "<!-- written by `cargo xtask vm --record` -->";
const END: &str = "<!-- end -->";

/// What is attached or asked; the rest of the objects is for the benchmark.
const ATTACHED: [&str; 11] = [
    "portdemux",
    "portdemux_plain",
    "portdemux_flow",
    "portdemux_flowp",
    "portdemux_sent",
    "portdemux_look",
    "portdemux_hear",
    "shadow_program",
    "shadow_flows",
    "portdemux_parse",
    "lost_redirect",
];

/// A table in Markdown: a row for each program, a column for each kernel.
pub(super) fn table(rows: &[(String, Outcome)]) -> String {
    let rows: Vec<_> = rows
        .iter()
        .filter(|(_, outcome)| !outcome.verified.is_empty())
        .collect();
    let mut lines = vec![format!(
        "| program | {} |",
        rows.iter()
            .map(|(version, _)| version.as_str())
            .collect::<Vec<_>>()
            .join(" | ")
    )];
    lines.push(format!("|---|{}", "--:|".repeat(rows.len())));
    for program in ATTACHED {
        let cells: Vec<String> = rows
            .iter()
            .map(|(_, outcome)| {
                let verified: BTreeMap<_, _> = outcome.verified.iter().cloned().collect();
                verified
                    .get(program)
                    .map_or_else(|| "–".to_owned(), |count| grouped(*count))
            })
            .collect();
        lines.push(format!("| `{program}` | {} |", cells.join(" | ")));
    }
    lines.join("\n")
}

/// The programs that take more than they may, in words.
pub(super) fn above(rows: &[(String, Outcome)], ceiling: u64) -> Vec<String> {
    rows.iter()
        .flat_map(|(version, outcome)| outcome.verified.iter().map(move |row| (version, row)))
        .filter(|(_, (_, count))| *count > ceiling)
        .map(|(version, (program, count))| {
            format!("Linux {version}: {program} takes {count} instructions, {ceiling} at most")
        })
        .collect()
}

/// Puts the table into the documentation.
///
/// # Errors
///
/// If the place for it is not there.
pub(super) fn write(table: &str) -> Result<()> {
    let file = repository::root().join(FILE);
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let parts = text
        .split_once(BEGIN)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.with_context(|| format!("{FILE} has no place for the table"))?;
    fs::write(&file, format!("{before}{BEGIN}\n\n{table}\n\n{END}{after}"))
        .with_context(|| format!("write {}", file.display()))
}

/// A number with commas, as in the rest of the documentation.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
