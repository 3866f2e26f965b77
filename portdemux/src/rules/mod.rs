//! The rules a user writes: what they say, whether they can hold together, what a change means.
//!
//! [`file::parse`] turns the text of a rules file into a [`Ruleset`] or into a [`RulesError`] that
//! names every mistake with its line. A [`Ruleset`] is valid by construction: names are unique,
//! limits are kept and no two rules claim the same entry points with equal right. Its
//! [`claims::Claims`] say which rule gets each port; [`plan::Plan`] says how two rulesets differ;
//! [`edit`] changes a file's text and leaves its comments and layout alone.

pub mod attach;
pub mod claims;
pub mod conflict;
pub mod defaults;
pub mod destination;
mod document;
pub mod duration;
pub mod edit;
pub mod error;
pub mod file;
pub mod flows;
mod intervals;
mod join;
mod limits;
pub mod lists;
mod name;
pub(crate) mod nearest;
pub mod plan;
pub mod port;
pub mod rate;
pub mod rule;
pub mod ruleset;
pub mod source;
pub mod terms;
#[cfg(test)]
mod tests;
pub mod until;
pub mod word;

pub use attach::{Attach, AttachMode};
pub use defaults::{Defaults, Inbound, Malformed};
pub use destination::{Delivery, Destination};
pub use error::{Diagnostic, RulesError};
pub use flows::Flows;
pub use port::PortRange;
pub use rate::Rate;
pub use rule::{Layer, MAX_NAME, Rule};
pub use ruleset::Ruleset;
pub use source::{Set, Source};
pub use terms::{Connections, Per, Role, Terms};
pub use word::Word;
