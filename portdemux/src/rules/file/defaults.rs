//! The table `[default]`.

use super::Schema;
use crate::rules::{
    document::{Entry, Key, Kind, Value},
    ruleset::Malformed,
};

/// Its keys.
pub(super) const DEFAULT_KEYS: [&str; 2] = ["inbound", "malformed"];

impl<'t> Schema<'t> {
    /// Notes that `[default]` is given as a whole.
    pub(super) fn whole_default(&mut self, offset: usize) {
        let line = self.lines.line(offset);
        match self.default_line {
            Some(first) => self.error(
                offset,
                "`default` is given twice",
                format!("join it with the one in line {first}"),
            ),
            None if !self.default_keys.is_empty() => {
                self.error(
                    offset,
                    "`default` is given in two ways",
                    "write all of it here",
                );
            }
            None => {}
        }
        self.default_line = Some(line);
    }

    /// Reads its entries.
    pub(super) fn default(&mut self, entries: &[Entry<'t>]) {
        for entry in entries {
            if entry.rest.is_empty() {
                self.default_setting(&entry.key, &entry.value);
            } else {
                let known = DEFAULT_KEYS.contains(&&*entry.key.text);
                let key = if known { &entry.rest[0] } else { &entry.key };
                self.unknown_key(entry.key.offset, &key.text, "[default]", &DEFAULT_KEYS);
            }
        }
    }

    /// Reads one of its entries.
    pub(super) fn default_setting(&mut self, key: &Key<'t>, value: &Value<'t>) {
        let Some(&name) = DEFAULT_KEYS.iter().find(|&&name| name == key.text) else {
            return self.unknown_key(key.offset, &key.text, "[default]", &DEFAULT_KEYS);
        };
        let line = self.lines.line(key.offset);
        if let Some(first) = self.default_keys.insert(name, line) {
            let message = format!("`{name}` is given twice");
            self.error(key.offset, message, format!("remove this or line {first}"));
        }
        match (name, &value.kind) {
            ("inbound", Kind::Text(text)) if text == "pass" => {}
            ("inbound", Kind::Text(text)) if text == "drop" || text == "reject" => self.error(
                value.offset,
                format!(
                    "this version keeps no flow state, so under `inbound = \"{text}\"` it could \
                     not let replies through"
                ),
                "write inbound = \"pass\", and to = \"drop\" in rules for what is not wanted",
            ),
            ("malformed", Kind::Text(text)) if text == "pass" => {
                self.defaults.malformed = Malformed::Pass;
            }
            ("malformed", Kind::Text(text)) if text == "drop" => {
                self.defaults.malformed = Malformed::Drop;
            }
            (_, kind) => {
                let message = match kind {
                    Kind::Text(text) => {
                        format!("`{name}` cannot be `{}`", text.escape_debug())
                    }
                    Kind::List(_) | Kind::Table(_) | Kind::Other(_) => {
                        format!("`{name}` is {}, not text", kind.name())
                    }
                };
                let help = if name == "inbound" {
                    "write \"pass\""
                } else {
                    "write \"pass\" or \"drop\""
                };
                self.error(value.offset, message, help);
            }
        }
    }
}
