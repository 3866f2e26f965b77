//! Rules files.
//!
//! ```toml
//! [attach]                        # where `portdemux attach --rules FILE` puts the program
//! interface = ["eth0", "wg0"]     # or one
//! mode      = "auto"              # or "native", "generic"
//!
//! [default]
//! inbound   = "pass"              # what no rule claims; or "drop", "reject"
//! malformed = "drop"              # or "pass"
//! fragments = "pass"              # or "drop", "track"
//! icmp      = "pass"              # or "drop", "errors-only"
//!
//! [flows]
//! track     = true                # left out: if something in the file needs it
//! size      = 65536               # how many are remembered
//! half_open = 65536
//! tcp       = "24h"               # how long; and handshake, closing, one_way, udp, sctp, echo
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
//! to      = "local"               # or "drop", "reject"; left out: "local"
//!                                 # or "socket:127.0.0.1:8080", "interface:veth0", "cpu:2-5", "xsk:NAME"
//! fallback = "drop"               # if that is missing; or "local", "reject"
//! mac     = "02:00:5e:10:00:01"   # of frames that go out of an interface; left out: the one they have
//! queue   = 2048                  # how many frames wait for a CPU
//! connections = "all"             # or "established": replies only
//! role    = "destination"         # or "source": the ports are those of peers
//! rate    = "1000/s"              # how many packets, with burst = N; left out: any number
//! new_rate = "10/m"               # how many of them may begin a flow, with new_burst = N
//! per     = "rule"                # for whom the rates hold; or "source": for each by itself
//! shadow  = false                 # or true: counts only what it would do
//! ```

mod attach;
mod defaults;
mod flows;
mod lines;
mod members;
mod rule;
mod sets;
mod single;
mod terms;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use toml_parser::{Expected, ParseError};

pub use self::members::Reading;
use self::{
    lines::Lines,
    rule::RULE_KEYS,
    single::{Single, Which},
};
use super::{
    attach::Attach,
    defaults::Defaults,
    document::{self, Pair, Section, ValueKind},
    error::{Diagnostic, RulesError},
    flows::Flows,
    nearest::nearest,
    rule::Rule,
    ruleset::{Parts, Ruleset},
    source::Set,
};

/// The tables of a rules file.
const TABLES: [&str; 5] = ["attach", "default", "flows", "rule", "sets"];

/// Reads the text of a rules file; `file` is its name in errors.
///
/// # Errors
///
/// Names every mistake in it with its line.
pub fn parse(file: &str, text: &str) -> Result<Ruleset, RulesError> {
    read(file, text, Reading::Known)
}

/// Reads a text as [`parse`] does; of one that somebody wrote, the members of sets are looked at, too.
///
/// # Errors
///
/// Names every mistake in it with its line.
pub fn read(file: &str, text: &str, reading: Reading) -> Result<Ruleset, RulesError> {
    let mut schema = Schema {
        reading,
        lines: Lines::new(text),
        diagnostics: Vec::new(),
        attach: Attach::default(),
        defaults: Defaults::default(),
        flows: Flows::default(),
        singles: Default::default(),
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
        attach,
        defaults,
        flows,
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
    // What a full disk leaves of a file, or a command that failed of a pipe. It is not to open a host.
    if matches!(reading, Reading::Written { .. }) && text.trim().is_empty() {
        let diagnostic = Diagnostic::new(format!("there is nothing in {file}"));
        let help = "to let everything pass, write: [default] and below it inbound = \"pass\"";
        diagnostics.push(diagnostic.help(help));
    }
    let parts = Parts {
        attach,
        defaults,
        flows,
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
    reading: Reading,
    lines: Lines<'t>,
    diagnostics: Vec<Diagnostic>,
    attach: Attach,
    defaults: Defaults,
    flows: Flows,
    /// What was given of the tables of which there is one, by [`Which`].
    singles: [Single; 3],
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
        if let Some((which, rest)) = Which::of(&name) {
            self.single_section(which, rest, header, section);
            return;
        }
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
            _ => self.unknown_table(header.offset, &name.join(".")),
        }
    }

    /// Reads an entry that stands before the first header.
    fn top_level(&mut self, entry: &Pair<'t>) {
        let Pair { key, rest, value } = entry;
        if let Some((which, _)) = Which::of(&[&*key.text]) {
            return self.single_entry(which, entry);
        }
        match (&*key.text, &rest[..], &value.kind) {
            ("sets", [], ValueKind::Table(entries)) => self.sets(key.offset, entries),
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
            ("rule", [], ValueKind::List(values)) => {
                if self.list_line.is_some() {
                    self.error(key.offset, "`rule` is given twice", "join the lists");
                }
                self.list_line = Some(self.lines.line(key.offset));
                for value in values {
                    if let ValueKind::Table(entries) = &value.kind {
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
            (name, ..) => match Which::of_key(name) {
                Some(which) => {
                    let table = which.name();
                    let message = format!("`{name}` stands outside of [{table}]");
                    self.error(key.offset, message, format!("write [{table}] above it"));
                }
                None => self.unknown_table(key.offset, name),
            },
        }
    }

    fn unknown_table(&mut self, offset: usize, name: &str) {
        let help = match nearest(name, &TABLES) {
            Some("attach") => "did you mean [attach]",
            Some("default") => "did you mean [default]",
            Some("flows") => "did you mean [flows]",
            Some("sets") => {
                self.lacks_sets = true;
                "did you mean [sets]"
            }
            Some(_) => "did you mean [[rule]]",
            None => {
                "a rules file has one [attach], one [default], one [flows], one [sets] and any number of \
                 [[rule]]"
            }
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
