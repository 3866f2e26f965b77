//! The keys of a rule that say what else it asks of packets, and values that are one word, one number
//! or one truth.

use super::Schema;
use crate::rules::{
    destination::{Mac, check_queue},
    document::{Scalar, Value, ValueKind},
    rate::{Rate, check_burst},
    rule::Rule,
    word::{Word, choice, instead_of},
};

impl<'t> Schema<'t> {
    /// Reads one of these keys.
    pub(super) fn term(&mut self, key: &str, value: &Value<'t>, rule: &mut Rule) {
        let terms = &mut rule.terms;
        match key {
            "fallback" => rule.delivery.fallback = self.word(key, value),
            "mac" => rule.delivery.mac = self.mac(key, value),
            "queue" => rule.delivery.queue = self.queue(key, value),
            "connections" => set(&mut terms.connections, self.word(key, value)),
            "role" => set(&mut rule.role, self.word(key, value)),
            "rate" => terms.rate = self.rate(key, value),
            "burst" => terms.burst = self.burst(key, value),
            "per" => terms.per = self.word(key, value),
            "new_rate" => terms.new_rate = self.rate(key, value),
            "new_burst" => terms.new_burst = self.burst(key, value),
            _ => set(&mut rule.shadow, self.truth(key, value)),
        }
    }

    fn mac(&mut self, key: &str, value: &Value<'t>) -> Option<Mac> {
        let help = "write it in quotes, as in \"02:00:5e:10:00:01\"";
        let text = self.text(key, value, help)?;
        match text.parse::<Mac>() {
            Ok(mac) => Some(mac),
            Err(error) => {
                self.error(value.offset, error.to_string(), error.help());
                None
            }
        }
    }

    fn queue(&mut self, key: &str, value: &Value<'t>) -> Option<u16> {
        let frames = self.number(key, value, "write a number of frames, as in 2048")?;
        match check_queue(frames) {
            Ok(queue) => Some(queue),
            Err(error) => {
                self.error(value.offset, error.to_string(), error.help(str::to_owned));
                None
            }
        }
    }

    fn rate(&mut self, key: &str, value: &Value<'t>) -> Option<Rate> {
        let help = "write packets per second, minute or hour in quotes, as in \"1000/s\"";
        let text = self.text(key, value, help)?;
        match text.parse::<Rate>() {
            Ok(rate) => Some(rate),
            Err(error) => {
                self.error(value.offset, error.to_string(), error.help());
                None
            }
        }
    }

    fn burst(&mut self, key: &str, value: &Value<'t>) -> Option<u64> {
        let burst = self.number(key, value, "write a number of packets, as in 50")?;
        match check_burst(burst) {
            Ok(()) => Some(burst),
            Err(error) => {
                self.error(value.offset, error.to_string(), error.help());
                None
            }
        }
    }

    /// Reads one of a few words.
    pub(super) fn word<W: Word>(&mut self, key: &str, value: &Value<'t>) -> Option<W> {
        let quoted = |word: &str| format!("\"{word}\"");
        let text = self.text(key, value, &format!("write {}", choice::<W>(quoted)))?;
        let word = W::of(&text);
        if word.is_none() {
            let message = format!("`{key}` cannot be `{}`", text.escape_debug());
            self.error(value.offset, message, instead_of::<W>(&text, quoted));
        }
        word
    }

    /// Reads a text.
    pub(super) fn text(&mut self, key: &str, value: &Value<'t>, help: &str) -> Option<String> {
        if let ValueKind::Text(text) = &value.kind {
            return Some(text.clone().into_owned());
        }
        let message = format!("`{key}` is {}, not text", value.kind.name());
        self.error(value.offset, message, help);
        None
    }

    /// Reads a whole number.
    pub(super) fn number(&mut self, key: &str, value: &Value<'t>, help: &str) -> Option<u64> {
        let message = match &value.kind {
            ValueKind::Other(Scalar::Integer(Some(number))) => return Some(*number),
            ValueKind::Other(Scalar::Integer(None) | Scalar::Float) => {
                let raw = self.lines.slice(value.offset, value.end);
                format!("`{key}` cannot be {raw}")
            }
            kind @ (ValueKind::Text(_)
            | ValueKind::List(_)
            | ValueKind::Table(_)
            | ValueKind::Other(_)) => {
                format!("`{key}` is {}, not a number", kind.name())
            }
        };
        self.error(value.offset, message, help);
        None
    }

    /// Reads `true` or `false`.
    pub(super) fn truth(&mut self, key: &str, value: &Value<'t>) -> Option<bool> {
        if let ValueKind::Other(Scalar::Boolean(is_true)) = value.kind {
            return Some(is_true);
        }
        let message = format!("`{key}` is {}, not true or false", value.kind.name());
        self.error(value.offset, message, "write true or false, without quotes");
        None
    }
}

/// Sets what was read.
fn set<T>(target: &mut T, read: Option<T>) {
    if let Some(read) = read {
        *target = read;
    }
}
