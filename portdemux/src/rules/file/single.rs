//! Tables of which there is one and whose keys are known: `[attach]`, `[default]` and `[flows]`.

use std::collections::HashMap;

use super::{Schema, attach::ATTACH_KEYS, defaults::DEFAULT_KEYS, flows::FLOW_KEYS};
use crate::rules::document::{Header, Key, Pair, Section, Value, ValueKind};

/// One of these tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// `[attach]`
    Attach,
    /// `[default]`
    Default,
    /// `[flows]`
    Flows,
}

/// What of such a table was given.
#[derive(Debug, Default)]
pub(super) struct Single {
    /// The keys, and where.
    keys: HashMap<&'static str, usize>,
    /// Where it was given as a whole.
    line: Option<usize>,
}

impl Which {
    const ALL: [Self; 3] = [Self::Attach, Self::Default, Self::Flows];

    /// Which of them a name begins with, and what follows.
    pub(super) fn of<'n>(name: &'n [&'n str]) -> Option<(Self, &'n [&'n str])> {
        let (first, rest) = name.split_first()?;
        let which = Self::ALL.into_iter().find(|which| which.name() == *first)?;
        Some((which, rest))
    }

    /// Which of them has a key.
    pub(super) fn of_key(key: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|which| which.keys().contains(&key))
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Attach => "attach",
            Self::Default => "default",
            Self::Flows => "flows",
        }
    }

    const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Attach => &ATTACH_KEYS,
            Self::Default => &DEFAULT_KEYS,
            Self::Flows => &FLOW_KEYS,
        }
    }
}

impl<'t> Schema<'t> {
    /// Reads a section of one of them; `rest` is what follows its name in the header.
    pub(super) fn single_section(
        &mut self,
        which: Which,
        rest: &[&str],
        header: &Header<'t>,
        section: &Section<'t>,
    ) {
        let name = which.name();
        match (rest.first(), header.is_list) {
            (None, false) => {
                self.whole(which, header.offset);
                self.entries(which, &section.entries);
            }
            (None, true) => {
                let message = format!("`{name}` is one table");
                self.error(header.offset, message, format!("write [{name}]"));
            }
            (Some(_), _) if section.broken => {}
            (Some(key), _) if which.keys().contains(key) => {
                let message = format!("`{key}` in [{name}] is no table");
                self.error(
                    header.offset,
                    message,
                    format!("write {key} = … under [{name}]"),
                );
            }
            (Some(key), _) => self.unknown_setting(which, header.offset, key),
        }
    }

    /// Reads an entry before the first header that is about one of them.
    pub(super) fn single_entry(&mut self, which: Which, entry: &Pair<'t>) {
        let Pair { key, rest, value } = entry;
        let name = which.name();
        match (&rest[..], &value.kind) {
            ([], ValueKind::Table(entries)) => {
                self.whole(which, key.offset);
                self.entries(which, entries);
            }
            ([], kind) => {
                let message = format!("`{name}` is {}, not a table", kind.name());
                self.error(key.offset, message, format!("write [{name}]"));
            }
            ([setting], _) => {
                if let Some(first) = self.singles[which as usize].line {
                    let message = format!("`{name}` is given in two ways");
                    let help = format!("write it where line {first} begins `{name}`");
                    self.error(key.offset, message, help);
                }
                self.setting(which, setting, value);
            }
            ([setting, ..], _) => self.unknown_setting(which, key.offset, &setting.text),
        }
    }

    /// Notes that one is given as a whole.
    fn whole(&mut self, which: Which, offset: usize) {
        let name = which.name();
        let line = self.lines.line(offset);
        let single = &mut self.singles[which as usize];
        let has_keys = !single.keys.is_empty();
        match single.line.replace(line) {
            Some(first) => {
                let help = format!("join it with the one in line {first}");
                self.error(offset, format!("`{name}` is given twice"), help);
            }
            None if has_keys => {
                let message = format!("`{name}` is given in two ways");
                self.error(offset, message, "write all of it here");
            }
            None => {}
        }
    }

    fn entries(&mut self, which: Which, entries: &[Pair<'t>]) {
        for Pair { key, rest, value } in entries {
            match rest.first() {
                None => self.setting(which, key, value),
                Some(part) => {
                    let known = which.keys().contains(&&*key.text);
                    let unknown = if known { part } else { key };
                    self.unknown_setting(which, key.offset, &unknown.text);
                }
            }
        }
    }

    fn setting(&mut self, which: Which, key: &Key<'t>, value: &Value<'t>) {
        let known = which.keys().iter().find(|&&name| name == key.text);
        let Some(&name) = known else {
            return self.unknown_setting(which, key.offset, &key.text);
        };
        let line = self.lines.line(key.offset);
        if let Some(first) = self.singles[which as usize].keys.insert(name, line) {
            let message = format!("`{name}` is given twice");
            self.error(key.offset, message, format!("remove this or line {first}"));
        }
        match which {
            Which::Attach => self.attach_setting(name, value),
            Which::Default => self.default_setting(name, value),
            Which::Flows => self.flow_setting(name, value, line),
        }
    }

    fn unknown_setting(&mut self, which: Which, offset: usize, key: &str) {
        let place = format!("[{}]", which.name());
        self.unknown_key(offset, key, &place, which.keys());
    }
}
