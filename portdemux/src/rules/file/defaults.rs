//! The table `[default]`.

use super::Schema;
use crate::rules::document::Value;

/// Its keys.
pub(super) const DEFAULT_KEYS: [&str; 4] = ["inbound", "malformed", "fragments", "icmp"];

impl<'t> Schema<'t> {
    /// Reads one of its entries.
    pub(super) fn default_setting(&mut self, key: &str, value: &Value<'t>) {
        match key {
            "inbound" => {
                if let Some(inbound) = self.word(key, value) {
                    self.defaults.inbound = inbound;
                }
            }
            "malformed" => {
                if let Some(malformed) = self.word(key, value) {
                    self.defaults.malformed = malformed;
                }
            }
            "fragments" => {
                if let Some(fragments) = self.word(key, value) {
                    self.defaults.fragments = fragments;
                }
            }
            _ => {
                if let Some(icmp) = self.word(key, value) {
                    self.defaults.icmp = icmp;
                }
            }
        }
    }
}
