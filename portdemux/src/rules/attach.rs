//! Where a rules file says that it is attached.

use super::word::Word;

/// Where a rules file says that it is attached. `attach` obeys it; a change of rules does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attach {
    /// The names of the interfaces, in the order of the file.
    pub interfaces: Vec<String>,
    /// Where the program runs on them.
    pub mode: AttachMode,
}

/// Where the program runs on an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver if it can, else in the network stack.
    #[default]
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the network stack.
    Generic,
}

impl Attach {
    /// The keys and what they say, as text.
    pub(super) fn words(&self) -> [(&'static str, String); 2] {
        let interfaces = if self.interfaces.is_empty() {
            "none".into()
        } else {
            self.interfaces.join(" ")
        };
        [
            ("interface", interfaces),
            ("mode", self.mode.name().to_owned()),
        ]
    }
}

impl Word for AttachMode {
    const ALL: &'static [Self] = &[Self::Auto, Self::Native, Self::Generic];

    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}
