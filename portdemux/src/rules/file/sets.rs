//! The table `[sets]`.

use std::slice;

use super::Schema;
use crate::rules::{
    document::{Entry, Key, Kind, Value},
    source::{Set, check_set_name, parse_prefix},
};

impl<'t> Schema<'t> {
    /// Reads `[sets]`, which begins at `offset`.
    pub(super) fn sets(&mut self, offset: usize, entries: &[Entry<'t>]) {
        let line = self.lines.line(offset);
        match self.sets_line.replace(line) {
            Some(first) => {
                let help = format!("join it with the one in line {first}");
                self.error(offset, "`sets` is given twice", help);
            }
            None if !self.sets.is_empty() => {
                self.error(
                    offset,
                    "`sets` is given in two ways",
                    "write all of it here",
                );
            }
            None => {}
        }
        for Entry { key, rest, value } in entries {
            if let Some(part) = rest.first() {
                let message = "the name of a set holds a dot";
                self.error(part.offset, message, "put the name into quotes");
                self.lacks_sets = true;
            } else {
                self.set(key, value);
            }
        }
    }

    /// Reads one set.
    pub(super) fn set(&mut self, key: &Key<'t>, value: &Value<'t>) {
        let line = self.lines.line(key.offset);
        if let Err(error) = check_set_name(&key.text) {
            self.lacks_sets = true;
            return self.error(key.offset, error.to_string(), error.help());
        }
        if let Some(&first) = self.set_lines.get(&*key.text) {
            let message = format!("two sets are called `{}`", key.text);
            return self.error(key.offset, message, format!("join it with line {first}"));
        }
        self.set_lines.insert(key.text.clone().into_owned(), line);
        let values = match &value.kind {
            Kind::List(values) => &values[..],
            Kind::Text(_) | Kind::Table(_) | Kind::Other(_) => slice::from_ref(value),
        };
        let mut prefixes = Vec::with_capacity(values.len());
        for value in values {
            let Kind::Text(text) = &value.kind else {
                let message = format!("a set takes text, not {}", value.kind.name());
                let help = "as in office = [\"192.0.2.0/24\", \"2001:db8:1::/48\"]";
                self.error(value.offset, message, help);
                continue;
            };
            match parse_prefix(text) {
                Ok(prefix) => prefixes.push(prefix),
                Err(error) => self.error(value.offset, error.to_string(), error.help()),
            }
        }
        self.sets.push(Set {
            name: key.text.clone().into_owned(),
            prefixes,
            line,
        });
    }
}
