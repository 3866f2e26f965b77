//! The table `[flows]`.

use super::Schema;
use crate::rules::{
    document::{Scalar, Value, ValueKind},
    duration::{duration_text, parse_duration},
    flows::{TIMEOUT_KEYS, TIMEOUTS, check_size},
};

/// Its keys.
pub(super) const FLOW_KEYS: [&str; 10] = [
    "track",
    "size",
    "half_open",
    "handshake",
    "tcp",
    "closing",
    "one_way",
    "udp",
    "sctp",
    "echo",
];

impl<'t> Schema<'t> {
    /// Reads one of its entries, which stands in this line.
    pub(super) fn flow_setting(&mut self, key: &str, value: &Value<'t>, line: usize) {
        match key {
            "track" => {
                self.flows.track = self.truth(key, value);
                self.flows.line = line;
            }
            "size" => {
                if let Some(size) = self.size(key, value) {
                    self.flows.size = size;
                }
            }
            "half_open" => {
                if let Some(size) = self.size(key, value) {
                    self.flows.half_open = size;
                }
            }
            _ => self.timeout(key, value),
        }
    }

    fn size(&mut self, key: &str, value: &Value<'t>) -> Option<u32> {
        let help = "write how many flows are remembered, 1024 to 16777216";
        let number = self.number(key, value, help)?;
        let size = check_size(number);
        if size.is_none() {
            self.error(value.offset, format!("`{key}` cannot be {number}"), help);
        }
        size
    }

    fn timeout(&mut self, key: &str, value: &Value<'t>) {
        if let ValueKind::Other(Scalar::Integer(Some(number))) = value.kind {
            let message = format!("`{key}` is a number, not a duration");
            let help = format!("write \"{number}s\" for seconds, in quotes");
            return self.error(value.offset, message, help);
        }
        let help = "write a number and its unit in quotes, as in \"30s\", \"5m\" or \"24h\"";
        let Some(text) = self.text(key, value, help) else {
            return;
        };
        let timeout = match parse_duration(&text) {
            Ok(timeout) if TIMEOUTS.contains(&timeout) => timeout,
            Ok(timeout) => {
                let what = if timeout < *TIMEOUTS.start() {
                    "shorter"
                } else {
                    "longer"
                };
                let message = format!("`{key}` is {what} than a flow can be remembered");
                let (least, most) = (*TIMEOUTS.start(), *TIMEOUTS.end());
                let help = format!(
                    "write a duration from {} to {}",
                    duration_text(least),
                    duration_text(most)
                );
                return self.error(value.offset, message, help);
            }
            Err(error) => return self.error(value.offset, error.to_string(), error.help()),
        };
        let index = TIMEOUT_KEYS.iter().position(|&known| known == key);
        if let Some(index) = index {
            self.flows.timeouts[index] = timeout;
        }
    }
}
