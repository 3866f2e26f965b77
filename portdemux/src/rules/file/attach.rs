//! The table `[attach]`.

use super::Schema;
use crate::rules::{
    destination::{DestinationError, check_interface},
    document::Value,
};

/// Its keys.
pub(super) const ATTACH_KEYS: [&str; 2] = ["interface", "mode"];

impl<'t> Schema<'t> {
    /// Reads one of its entries.
    pub(super) fn attach_setting(&mut self, key: &'static str, value: &Value<'t>) {
        if key == "mode" {
            if let Some(mode) = self.word(key, value) {
                self.attach.mode = mode;
            }
            return;
        }
        self.each_text(
            key,
            value,
            &mut |schema, name, offset| match check_interface(name) {
                Ok(()) if schema.attach.interfaces.iter().any(|known| known == name) => {
                    schema.error(offset, format!("`{name}` is named twice"), "remove one");
                }
                Ok(()) => schema.attach.interfaces.push(name.to_owned()),
                Err(DestinationError::NoName(_)) => {
                    let help = "as in interface = [\"eth0\", \"wg0\"]";
                    schema.error(offset, "an interface without a name", help);
                }
                Err(error) => {
                    schema.error(offset, error.to_string(), error.help(str::to_owned));
                }
            },
        );
    }
}
