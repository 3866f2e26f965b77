//! The table `[sets]`.

use std::{
    collections::{HashMap, HashSet},
    slice,
};

use ipnet::IpNet;

use super::Schema;
use crate::rules::{
    document::{Key, Pair, Value, ValueKind},
    source::{Set, check_set_name, parse_prefix},
    until::{Until, UntilError},
};

const MEMBER_HELP: &str = "as in { prefix = \"192.0.2.7\", until = \"2030-01-31T12:00:00Z\" }";

impl<'t> Schema<'t> {
    /// Reads `[sets]`, which begins at `offset`.
    pub(super) fn sets(&mut self, offset: usize, entries: &[Pair<'t>]) {
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
        for Pair { key, rest, value } in entries {
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
            ValueKind::List(values) => &values[..],
            ValueKind::Text(_) | ValueKind::Table(_) | ValueKind::Other(_) => {
                slice::from_ref(value)
            }
        };
        let mut set = Set {
            name: key.text.clone().into_owned(),
            prefixes: Vec::with_capacity(values.len()),
            until: HashMap::new(),
            line,
        };
        let mut offsets = Vec::with_capacity(values.len());
        for value in values {
            match &value.kind {
                ValueKind::Text(text) => set.prefixes.extend(self.prefix(value.offset, text)),
                ValueKind::Table(entries) => self.member(value.offset, entries, &mut set),
                ValueKind::List(_) | ValueKind::Other(_) => {
                    let message = format!("a set takes text, not {}", value.kind.name());
                    let help = "as in office = [\"192.0.2.0/24\", \"2001:db8:1::/48\"]";
                    self.error(value.offset, message, help);
                }
            }
            offsets.resize(set.prefixes.len(), value.offset);
        }
        if !self.twice(key.offset, &set) {
            self.overlaps(&set, &offsets);
        }
        self.sets.push(set);
    }

    fn prefix(&mut self, offset: usize, text: &str) -> Option<IpNet> {
        match parse_prefix(text) {
            Ok(prefix) => Some(prefix),
            Err(error) => {
                self.error(offset, error.to_string(), error.help());
                None
            }
        }
    }

    /// Reads a member that is not in the set for good.
    fn member(&mut self, offset: usize, entries: &[Pair<'t>], set: &mut Set) {
        let (mut prefix, mut until) = (None, None);
        for Pair { key, rest, value } in entries {
            let known = ["prefix", "until"];
            if !known.contains(&&*key.text) || !rest.is_empty() {
                self.unknown_key(key.offset, &key.text, "a member of a set", &known);
                return;
            }
            let ValueKind::Text(text) = &value.kind else {
                let message = format!("`{}` takes text, not {}", key.text, value.kind.name());
                return self.error(value.offset, message, MEMBER_HELP);
            };
            if key.text == "prefix" {
                prefix = self.prefix(value.offset, text);
                if prefix.is_none() {
                    return;
                }
            } else {
                match text.parse::<Until>() {
                    Ok(time) if self.reading.earliest().is_some_and(|now| time.unix <= now) => {
                        let error = UntilError::Past(text.clone().into_owned());
                        let help = format!("{}, or leave the member out", error.help());
                        return self.error(value.offset, error.to_string(), help);
                    }
                    Ok(time) => until = Some(time),
                    Err(error) => {
                        return self.error(value.offset, error.to_string(), error.help());
                    }
                }
            }
        }
        let (Some(prefix), Some(until)) = (prefix, until) else {
            let message = "a member of a set needs `prefix` and `until`";
            return self.error(offset, message, MEMBER_HELP);
        };
        set.prefixes.push(prefix);
        set.until.insert(prefix, until);
    }

    /// Says which member is in a set for a time and for good, or until two times.
    fn twice(&mut self, offset: usize, set: &Set) -> bool {
        if set.until.is_empty() {
            return false;
        }
        let mut known = HashSet::new();
        let timed = |prefix: &&IpNet| set.until.contains_key(*prefix);
        let mut timed = set.prefixes.iter().filter(timed);
        let twice = timed.find(|prefix| !known.insert(**prefix));
        if let Some(twice) = twice {
            let message = format!("{twice} is in the set `{}` twice", set.name);
            self.error(offset, message, "write it once");
        }
        twice.is_some()
    }
}
