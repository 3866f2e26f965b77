//! What is decided about a packet.

use portdemux_common::reason::Verdict;

/// What becomes of a packet, why, and the name of the rule whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What happens to it.
    pub verdict: Verdict,
    /// Why.
    pub reason: &'static str,
    /// The rule.
    pub rule: Option<String>,
}
