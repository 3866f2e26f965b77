//! The tables `[[rule]]`.

use std::slice;

use super::Schema;
use crate::rules::{
    destination::{Destination, DestinationError},
    document::{Pair, Value, ValueKind},
    nearest::nearest,
    port::PortError,
    rule::{Rule, check_name, parse_address},
    source::Source,
};

/// Their keys.
pub(super) const RULE_KEYS: [&str; 17] = [
    "name",
    "port",
    "address",
    "from",
    "deny",
    "to",
    "fallback",
    "mac",
    "queue",
    "connections",
    "role",
    "rate",
    "burst",
    "per",
    "new_rate",
    "new_burst",
    "shadow",
];

impl<'t> Schema<'t> {
    /// Reads the entries of one, which begins at `offset`.
    pub(super) fn rule(&mut self, offset: usize, entries: &[Pair<'t>]) {
        let before = self.diagnostics.len();
        let line = self.lines.line(offset);
        let mut rule = Rule {
            line,
            ..Rule::default()
        };
        let mut given: [Option<usize>; RULE_KEYS.len()] = [None; RULE_KEYS.len()];
        let mut means_port = false;
        for Pair { key, rest, value } in entries {
            let Some(index) = RULE_KEYS.iter().position(|&name| name == key.text) else {
                self.unknown_key(key.offset, &key.text, "a rule", &RULE_KEYS);
                means_port |= nearest(&key.text, &RULE_KEYS) == Some("port");
                continue;
            };
            if let Some(key) = rest.first() {
                self.unknown_key(key.offset, &key.text, "a rule", &RULE_KEYS);
                continue;
            }
            if let Some(first) = given[index].replace(key.offset) {
                let first = self.lines.line(first);
                let message = format!("`{}` is given twice in one rule", key.text);
                self.error(key.offset, message, format!("remove this or line {first}"));
                continue;
            }
            match RULE_KEYS[index] {
                "name" => self.name(value, &mut rule),
                "port" => self.ports(value, &mut rule),
                "address" => self.addresses(value, &mut rule),
                "from" => self.sources("from", value, &mut rule.from),
                "deny" => self.sources("deny", value, &mut rule.deny),
                "to" => self.to(value, &mut rule),
                key => self.term(key, value, &mut rule),
            }
        }
        let [_, port, ..] = given;
        if port.is_none() && !means_port {
            let help = "say which ports it claims, as in port = \"443/tcp\"";
            self.error(offset, "a rule without `port`", help);
        }
        if self.diagnostics.len() == before {
            self.rules.push(rule);
        }
    }

    fn name(&mut self, value: &Value<'t>, rule: &mut Rule) {
        let ValueKind::Text(name) = &value.kind else {
            let message = format!("`name` is {}, not text", value.kind.name());
            return self.error(value.offset, message, "put it into quotes");
        };
        match check_name(name) {
            Ok(()) => rule.name = name.clone().into_owned(),
            Err(error) => self.error(value.offset, error.to_string(), error.help()),
        }
    }

    fn to(&mut self, value: &Value<'t>, rule: &mut Rule) {
        let show = |to: &str| format!("to = \"{to}\"");
        let help = "write where packets go in quotes, as in \"local\" or \"interface:veth0\"";
        let Some(text) = self.text("to", value, help) else {
            return;
        };
        match text.parse::<Destination>() {
            Ok(to) => rule.to = to,
            Err(error) => {
                let error: DestinationError = error;
                self.error(value.offset, error.to_string(), error.help(show));
            }
        }
    }

    fn ports(&mut self, value: &Value<'t>, rule: &mut Rule) {
        self.each_text(
            "port",
            value,
            &mut |schema, text, offset| match text.parse() {
                Ok(ports) => rule.ports.push(ports),
                Err(error) => {
                    let error: PortError = error;
                    schema.error(offset, error.to_string(), error.help());
                }
            },
        );
    }

    fn addresses(&mut self, value: &Value<'t>, rule: &mut Rule) {
        self.each_text(
            "address",
            value,
            &mut |schema, text, offset| match parse_address(text) {
                Ok(address) => rule.addresses.push(address),
                Err(error) => schema.error(offset, error.to_string(), error.help()),
            },
        );
    }

    fn sources(&mut self, key: &str, value: &Value<'t>, sources: &mut Vec<Source>) {
        self.each_text(
            key,
            value,
            &mut |schema, text, offset| match text.parse::<Source>() {
                Ok(source) => sources.push(source),
                Err(error) => schema.error(offset, error.to_string(), error.help()),
            },
        );
    }

    /// Reads a key that takes one text or a list of texts.
    pub(super) fn each_text(
        &mut self,
        key: &str,
        value: &Value<'t>,
        read: &mut dyn FnMut(&mut Self, &str, usize),
    ) {
        let values = match &value.kind {
            ValueKind::List(values) => &values[..],
            ValueKind::Text(_) | ValueKind::Table(_) | ValueKind::Other(_) => {
                slice::from_ref(value)
            }
        };
        if values.is_empty() {
            let help = match key {
                "address" => "leave `address` out to claim the ports at any address",
                "from" => "leave `from` out for anyone, or write to = \"drop\" to let none in",
                "deny" => "leave `deny` out to deny none",
                "interface" => "leave `interface` out to name interfaces on the command line",
                _ => "say which ports it claims, as in port = \"443/tcp\"",
            };
            self.error(value.offset, format!("`{key}` is an empty list"), help);
        }
        for value in values {
            let ValueKind::Text(text) = &value.kind else {
                let message = format!("`{key}` takes text, not {}", value.kind.name());
                let help = match (key, &value.kind) {
                    ("port", ValueKind::Other(_)) => {
                        let raw = self.lines.slice(value.offset, value.end);
                        format!("{}, in quotes", PortError::NoProtocol(raw.into()).help())
                    }
                    ("port", _) => "as in port = [\"443/tcp\", \"443/udp\"]".into(),
                    ("from" | "deny", _) => {
                        format!("as in {key} = [\"@office\", \"198.51.100.0/24\"]")
                    }
                    ("interface", _) => "as in interface = [\"eth0\", \"wg0\"]".into(),
                    _ => "as in address = [\"203.0.113.10\", \"2001:db8::10\"]".into(),
                };
                self.error(value.offset, message, help);
                continue;
            };
            read(self, text, value.offset);
        }
    }
}
