//! What this version reads in rules and does not obey.

use super::{
    defaults::Inbound,
    error::Diagnostic,
    rule::{Destination, Rule},
    ruleset::Ruleset,
    word::Word,
};

/// What a rule can say that is not obeyed, and whether one says it.
type OfRule = (&'static str, fn(&Rule) -> bool);

const OF_RULES: [OfRule; 1] = [("to = \"reject\"", |rule| rule.to == Destination::Reject)];

/// The first thing in a ruleset that the datapath of this version does not obey. A ruleset that says
/// such a thing must not be put in force: half of it would hold.
#[must_use]
pub fn not_yet(ruleset: &Ruleset) -> Option<Diagnostic> {
    let defaults = ruleset.defaults();
    if defaults.inbound == Inbound::Reject {
        return Some(refusal(&format!(
            "inbound = \"{}\"",
            defaults.inbound.name()
        )));
    }
    OF_RULES.into_iter().find_map(|(key, says)| {
        let rule = ruleset.rules().iter().find(|rule| says(rule))?;
        Some(refusal(key).at(rule.line, [rule.name.clone(), rule.ports_text()]))
    })
}

fn refusal(key: &str) -> Diagnostic {
    Diagnostic::new(format!("this version reads `{key}` and does not obey it"))
        .help("leave it out, or wait for a version that does")
}
