//! Rules files.
//!
//! ```toml
//! [default]
//! inbound   = "pass"              # what no rule claims: only "pass" in this version
//! malformed = "drop"              # or "pass"
//!
//! [sets]
//! office = ["192.0.2.0/24", "2001:db8:1::/48"]    # or one; prefixes and addresses
//!
//! [[rule]]
//! name    = "https"               # left out: derived from the ports and the address
//! port    = ["443/tcp", "443/udp"]    # or one; PORT/PROTOCOL or FIRST-LAST/PROTOCOL
//! address = "203.0.113.10"        # or a list; left out: any
//! from    = ["@office", "198.51.100.7"]   # who may, or one; left out: anyone
//! deny    = "192.0.2.66"          # who may not, whatever `from` says
//! to      = "local"               # or "drop"; left out: "local"
//! ```

mod defaults;
mod lines;
mod rule;
mod sets;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use toml_parser::{Expected, ParseError};

use self::{defaults::DEFAULT_KEYS, lines::Lines, rule::RULE_KEYS};
use super::{
    document::{self, Entry, Kind, Section},
    error::{Diagnostic, RulesError},
    nearest::nearest,
    rule::Rule,
    ruleset::{Defaults, Parts, Ruleset},
    source::Set,
};

/// The tables of a rules file.
const TABLES: [&str; 3] = ["default", "rule", "sets"];

/// Reads the text of a rules file; `file` is its name in errors.
///
/// # Errors
///
/// Names every mistake in it with its line.
pub fn parse(file: &str, text: &str) -> Result<Ruleset, RulesError> {
    let mut schema = Schema {
        lines: Lines::new(text),
        diagnostics: Vec::new(),
        defaults: Defaults::default(),
        default_keys: HashMap::new(),
        default_line: None,
        rules: Vec::new(),
        list_line: None,
        sets: Vec::new(),
        set_lines: HashMap::new(),
        sets_line: None,
        lacks_sets: false,
    };
    let errors = document::read(text, &mut |section| schema.section(section));
    let Schema {
        mut lines,
        mut diagnostics,
        defaults,
        rules,
        sets,
        lacks_sets,
        ..
    } = schema;
    // What is not TOML can be a set.
    let lacks_sets = lacks_sets || !errors.is_empty();
    let mut syntax: Vec<_> = errors
        .iter()
        .map(|error| not_toml(error, &mut lines))
        .collect();
    // What follows a first mistake in the same line is as a rule its echo.
    syntax.dedup_by_key(|diagnostic| diagnostic.line());
    diagnostics.append(&mut syntax);
    let parts = Parts {
        defaults,
        sets,
        lacks_sets,
        rules,
    };
    match Ruleset::assemble(parts, &mut diagnostics) {
        Some(ruleset) if diagnostics.is_empty() => Ok(ruleset),
        Some(_) | None => Err(RulesError::new(file, diagnostics)),
    }
}

fn not_toml(error: &ParseError, lines: &mut Lines<'_>) -> Diagnostic {
    let span = error.unexpected().or(error.context());
    let offset = span.map_or(0, |span| span.start());
    if error.description() == "string values must be quoted" {
        if span.is_some_and(|span| span.is_empty()) {
            return lines.show(Diagnostic::new("missing value"), offset);
        }
        let diagnostic = Diagnostic::new("text must stand in quotes");
        return lines
            .show(diagnostic, offset)
            .help("as in port = \"443/tcp\"");
    }
    let diagnostic = lines.show(Diagnostic::new(error.description()), offset);
    let expected: Vec<_> = error
        .expected()
        .unwrap_or_default()
        .iter()
        .map(|expected| match expected {
            Expected::Literal("\n") => "the end of the line".into(),
            Expected::Literal(literal) => format!("`{literal}`"),
            Expected::Description(description) => (*description).into(),
            _ => "something else".into(),
        })
        .collect();
    if expected.is_empty() {
        return diagnostic;
    }
    diagnostic.help(format!("expected {}", expected.join(" or ")))
}

/// What has been read of a file's sections.
struct Schema<'t> {
    lines: Lines<'t>,
    diagnostics: Vec<Diagnostic>,
    defaults: Defaults,
    /// The keys of `[default]` that were given, and where.
    default_keys: HashMap<&'static str, usize>,
    /// Where `[default]` was given as a whole.
    default_line: Option<usize>,
    rules: Vec<Rule>,
    /// Where `rule = [ … ]` was given.
    list_line: Option<usize>,
    sets: Vec<Set>,
    /// The names of sets that were given, and where.
    set_lines: HashMap<String, usize>,
    /// Where `[sets]` was given as a whole.
    sets_line: Option<usize>,
    /// Whether sets were given in a way that is not read.
    lacks_sets: bool,
}

impl<'t> Schema<'t> {
    fn error(&mut self, offset: usize, message: impl Into<String>, help: impl Into<String>) {
        let diagnostic = Diagnostic::new(message).help(help);
        self.diagnostics.push(self.lines.show(diagnostic, offset));
    }

    fn section(&mut self, section: &Section<'t>) {
        let Some(header) = &section.header else {
            for entry in &section.entries {
                self.top_level(entry);
            }
            return;
        };
        let name: Vec<_> = header.path.iter().map(|key| &*key.text).collect();
        match (&name[..], header.is_list) {
            (["rule"], true) => {
                if let Some(list) = self.list_line {
                    let message = "rules are given both as `rule = […]` and as `[[rule]]`";
                    self.error(
                        header.offset,
                        message,
                        format!("turn the list of line {list} into `[[rule]]` tables"),
                    );
                }
                if !section.broken {
                    self.rule(header.offset, &section.entries);
                }
            }
            (["default"], false) => {
                self.whole_default(header.offset);
                self.default(&section.entries);
            }
            (["sets"], false) if section.broken => self.sets(header.offset, &[]),
            (["sets"], false) => self.sets(header.offset, &section.entries),
            (["sets"], true) => {
                self.lacks_sets = true;
                self.error(header.offset, "`sets` is one table", "write [sets]");
            }
            (["rule"], false) => {
                self.error(
                    header.offset,
                    "`rule` is a list of tables",
                    "write [[rule]]",
                );
            }
            (["default"], true) => {
                self.error(header.offset, "`default` is one table", "write [default]");
            }
            _ if section.broken => {}
            (["sets", ..], _) => {
                self.lacks_sets = true;
                let help = "write it in [sets], as in office = [\"192.0.2.0/24\"]";
                self.error(
                    header.offset,
                    "a set is a list of prefixes, not a table",
                    help,
                );
            }
            (["rule", key, ..], _) => self.unknown_key(header.offset, key, "a rule", &RULE_KEYS),
            (["default", key, ..], _) => {
                self.unknown_key(header.offset, key, "[default]", &DEFAULT_KEYS);
            }
            _ => self.unknown_table(header.offset, &name.join(".")),
        }
    }

    /// Reads an entry that stands before the first header.
    fn top_level(&mut self, entry: &Entry<'t>) {
        let Entry { key, rest, value } = entry;
        match (&*key.text, &rest[..], &value.kind) {
            ("default", [], Kind::Table(entries)) => {
                self.whole_default(key.offset);
                self.default(entries);
            }
            ("default", [setting], _) => {
                if let Some(first) = self.default_line {
                    let help = format!("write it where line {first} begins `default`");
                    self.error(key.offset, "`default` is given in two ways", help);
                }
                self.default_setting(setting, value);
            }
            ("default", [setting, ..], _) => {
                self.unknown_key(key.offset, &setting.text, "[default]", &DEFAULT_KEYS);
            }
            ("default", [], _) => self.error(
                key.offset,
                format!("`default` is {}, not a table", value.kind.name()),
                "write [default]",
            ),
            ("sets", [], Kind::Table(entries)) => self.sets(key.offset, entries),
            ("sets", [name], _) => {
                if let Some(first) = self.sets_line {
                    let help = format!("write it where line {first} begins `sets`");
                    self.error(key.offset, "`sets` is given in two ways", help);
                }
                self.set(name, value);
            }
            ("sets", ..) => {
                self.lacks_sets = true;
                self.error(key.offset, "`sets` is a table of sets", "write [sets]");
            }
            ("rule", [], Kind::List(values)) => {
                if self.list_line.is_some() {
                    self.error(key.offset, "`rule` is given twice", "join the lists");
                }
                self.list_line = Some(self.lines.line(key.offset));
                for value in values {
                    if let Kind::Table(entries) = &value.kind {
                        self.rule(value.offset, entries);
                    } else {
                        let message = format!("a rule is a table, not {}", value.kind.name());
                        self.error(value.offset, message, "write [[rule]]");
                    }
                }
            }
            ("rule", ..) => self.error(key.offset, "`rule` is a list of tables", "write [[rule]]"),
            (name, ..) if RULE_KEYS.contains(&name) => {
                let message = format!("`{name}` stands outside of any rule");
                self.error(key.offset, message, "write [[rule]] above it");
            }
            (name, ..) if DEFAULT_KEYS.contains(&name) => {
                let message = format!("`{name}` stands outside of [default]");
                self.error(key.offset, message, "write [default] above it");
            }
            (name, ..) => self.unknown_table(key.offset, name),
        }
    }

    fn unknown_table(&mut self, offset: usize, name: &str) {
        let help = match nearest(name, &TABLES) {
            Some("default") => "did you mean [default]",
            Some("sets") => {
                self.lacks_sets = true;
                "did you mean [sets]"
            }
            Some(_) => "did you mean [[rule]]",
            None => "a rules file has one [default], one [sets] and any number of [[rule]]",
        };
        self.error(
            offset,
            format!("unknown table `{}`", name.escape_debug()),
            help,
        );
    }

    fn unknown_key(&mut self, offset: usize, key: &str, place: &str, known: &[&str]) {
        let help = match nearest(key, known) {
            Some(known) => format!("did you mean `{known}`"),
            None => format!("{place} has the keys {}", known.join(", ")),
        };
        self.error(
            offset,
            format!("unknown key `{}` in {place}", key.escape_debug()),
            help,
        );
    }
}
