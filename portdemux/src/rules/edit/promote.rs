//! Shadows that become real.

use super::{layout, read};
use crate::rules::{
    error::{Diagnostic, RulesError},
    nearest::nearest,
    ruleset::Ruleset,
};

/// How many shadows are named to who named another.
const NAMED: usize = 10;

/// Makes shadows real in the text of a rules file: takes the line `shadow = true` out of the rules of
/// these names. `file` is the text's name in errors, `command` the one for the instance.
///
/// Whether the rules still hold together, [`crate::rules::file::parse`] says.
///
/// # Errors
///
/// Names every rule that does not exist or is no shadow, or every mistake in the text.
pub fn promote<S: AsRef<str>>(
    file: &str,
    command: &str,
    text: &str,
    names: &[S],
) -> Result<String, RulesError> {
    let (ruleset, layout) = read(file, text)?;
    let mut cuts = Vec::new();
    let mut diagnostics = Vec::new();
    for name in names.iter().map(AsRef::as_ref) {
        match find(&ruleset, command, name) {
            Ok(index) => cuts.extend(layout.blocks[index].shadow_line(text)),
            Err(diagnostic) => diagnostics.push(diagnostic),
        }
    }
    if !diagnostics.is_empty() {
        return Err(RulesError::new(file, diagnostics));
    }
    cuts.sort_unstable_by_key(|cut| cut.start);
    cuts.dedup();
    let cuts: Vec<_> = cuts.into_iter().map(|cut| (cut, String::new())).collect();
    Ok(layout::replace(text, &cuts))
}

/// The index of the shadow of this name.
fn find(ruleset: &Ruleset, command: &str, name: &str) -> Result<usize, Diagnostic> {
    let rules = ruleset.rules();
    let index = rules.iter().position(|rule| rule.name == name);
    if let Some(index) = index {
        let rule = &rules[index];
        if rule.shadow {
            return Ok(index);
        }
        return Err(Diagnostic::new(format!("`{name}` is no shadow"))
            .at(rule.line, [rule.name.clone(), rule.ports_text()])
            .help("it does already what it says"));
    }
    let shadows = rules.iter().filter(|rule| rule.shadow);
    let shadows: Vec<&str> = shadows.map(|rule| &*rule.name).collect();
    let help = match (nearest(name, &shadows), &shadows[..]) {
        (Some(near), _) => format!("did you mean {near}"),
        (None, []) => format!("there are no shadows; {command} add --shadow adds one"),
        (None, few) if few.len() <= NAMED => format!("the shadows are {}", few.join(", ")),
        (None, _) => format!("{command} rules lists them"),
    };
    let message = format!("no shadow is called `{}`", name.escape_debug());
    Err(Diagnostic::new(message).help(help))
}
