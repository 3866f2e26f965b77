//! Edits of a rules file's text that leave its comments and layout alone.

mod layout;
mod list;
mod members;
mod outline;
mod promote;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use self::layout::FileLayout;
pub use self::{
    members::{members, set, without_ended},
    outline::outline,
    promote::promote,
};
use super::{
    destination::{Delivery, Destination},
    error::{Diagnostic, RulesError},
    file,
    port::PortRange,
    ruleset::Ruleset,
    source::Source,
    terms::{Connections, Role, Terms},
    word::Word as _,
};

/// A rule to be written into a file; what is not set is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewRule {
    /// What to call it; a rule without a name is called by its claim.
    pub name: Option<String>,
    /// The ports it claims.
    pub ports: Vec<PortRange>,
    /// The addresses it claims them at; none for any.
    pub addresses: Vec<IpAddr>,
    /// Who may use them; none for anyone.
    pub from: Vec<Source>,
    /// Who may not.
    pub deny: Vec<Source>,
    /// Where the packets go.
    pub to: Option<Destination>,
    /// What is said about the way there.
    pub delivery: Delivery,
    /// Whose ports they are.
    pub role: Role,
    /// What else it asks of packets.
    pub terms: Terms,
    /// Whether it only counts what it would do.
    pub shadow: bool,
}

/// Writes a rule at the end of a rules file.
///
/// The text is not read, so that this costs the same for a rule as for 65,536; whether the rules
/// still hold together, [`file::parse`] says.
#[must_use]
pub fn append(text: &str, rule: &NewRule) -> String {
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut keys: Vec<(&str, String)> = Vec::new();
    keys.extend(rule.name.iter().map(|name| ("name", quoted(name))));
    keys.push(("port", one_or_list(&rule.ports)));
    if !rule.addresses.is_empty() {
        keys.push(("address", one_or_list(&rule.addresses)));
    }
    for (key, sources) in [("from", &rule.from), ("deny", &rule.deny)] {
        if !sources.is_empty() {
            keys.push((key, one_or_list(sources)));
        }
    }
    keys.extend(rule.to.iter().map(|to| ("to", quoted(&to.to_string()))));
    keys.extend(term_keys(rule));
    let width = keys
        .iter()
        .map(|(key, _)| key.len())
        .max()
        .unwrap_or_default();
    let mut lines = vec!["[[rule]]".to_owned()];
    lines.extend(
        keys.iter()
            .map(|(key, value)| format!("{key:width$} = {value}")),
    );

    let mut edited = String::with_capacity(text.len() + 256);
    edited.push_str(text);
    if !(text.is_empty() || text.ends_with('\n')) {
        edited.push_str(newline);
    }
    if !(text.trim().is_empty() || text.ends_with("\n\n") || text.ends_with("\n\r\n")) {
        edited.push_str(newline);
    }
    for line in lines {
        edited.push_str(&line);
        edited.push_str(newline);
    }
    edited
}

/// The keys that say something other than what leaving them out says, or that were asked for.
fn term_keys(rule: &NewRule) -> Vec<(&'static str, String)> {
    let NewRule {
        delivery,
        role,
        terms,
        shadow,
        ..
    } = rule;
    let established = terms.connections == Connections::Established;
    let text = |text: String| quoted(&text);
    let keys = [
        (
            "fallback",
            delivery.fallback.map(|fallback| quoted(fallback.name())),
        ),
        ("mac", delivery.mac.map(|mac| text(mac.to_string()))),
        ("queue", delivery.queue.map(|queue| queue.to_string())),
        (
            "role",
            (*role != Role::Destination).then(|| quoted(role.name())),
        ),
        (
            "connections",
            established.then(|| quoted(terms.connections.name())),
        ),
        ("rate", terms.rate.map(|rate| text(rate.to_string()))),
        ("burst", terms.burst.map(|burst| burst.to_string())),
        (
            "new_rate",
            terms.new_rate.map(|rate| text(rate.to_string())),
        ),
        ("new_burst", terms.new_burst.map(|burst| burst.to_string())),
        ("per", terms.per.map(|per| quoted(per.name()))),
        ("shadow", shadow.then(|| "true".into())),
    ];
    keys.into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
}

fn one_or_list<T: ToString>(items: &[T]) -> String {
    let texts: Vec<_> = items.iter().map(|item| quoted(&item.to_string())).collect();
    match &texts[..] {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Removes what each selector names from the text of a rules file; in errors `file` is its name, and `command`
/// the one for the instance.
///
/// A selector is a port as it is written in the file, or the name of a rule. A port is taken from the
/// rule that claims it; a rule that claims nothing else goes whole, with the comment directly above
/// it.
///
/// # Errors
///
/// Names every selector that matches nothing or more than one thing, or every mistake in the text.
pub fn remove<S: AsRef<str>>(
    file: &str,
    command: &str,
    text: &str,
    selectors: &[S],
) -> Result<String, RulesError> {
    let (ruleset, layout) = read(file, text)?;
    let mut diagnostics = Vec::new();
    // The indices of the ports to remove, by the index of their rule.
    let mut removed: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for selector in selectors {
        match select(command, selector.as_ref(), &ruleset, &layout) {
            Ok((rule, ports)) => removed.entry(rule).or_default().extend(ports),
            Err(diagnostic) => diagnostics.push(diagnostic),
        }
    }
    if !diagnostics.is_empty() {
        return Err(RulesError::new(file, diagnostics));
    }
    let mut cuts = Vec::new();
    for (rule, ports) in removed {
        let block = &layout.blocks[rule];
        if ports.len() == block.ports.len() {
            cuts.push((block.extent(text), String::new()));
        } else {
            let list = list::without(text, block, &ports);
            cuts.push((block.value.clone(), list));
        }
    }
    Ok(layout::replace(text, &cuts))
}

/// Reads a text and where its rules stand in it.
fn read(file: &str, text: &str) -> Result<(Ruleset, FileLayout), RulesError> {
    let ruleset = file::parse(file, text)?;
    let layout = FileLayout::of(text);
    if layout.blocks.len() != ruleset.rules().len() {
        let mistake = Diagnostic::new("rules that are written as `rule = […]` cannot be edited")
            .help("write each as [[rule]], or edit the file and apply it");
        return Err(RulesError::new(file, vec![mistake]));
    }
    Ok((ruleset, layout))
}

/// Finds the rule that a selector is about, and which of its ports.
fn select(
    command: &str,
    selector: &str,
    ruleset: &Ruleset,
    layout: &FileLayout,
) -> Result<(usize, Vec<usize>), Diagnostic> {
    let ports = selector.parse::<PortRange>();
    if let Ok(ports) = ports {
        let indices = |block: &layout::Block| -> Vec<usize> {
            let same = block
                .ports
                .iter()
                .enumerate()
                .filter(|(_, port)| port.range == ports);
            same.map(|(index, _)| index).collect()
        };
        let blocks = layout.blocks.iter().map(indices).enumerate();
        let mut claiming: Vec<_> = blocks.filter(|(_, indices)| !indices.is_empty()).collect();
        if claiming.len() > 1 {
            let rules = claiming.iter().map(|&(index, _)| &ruleset.rules()[index]);
            let diagnostic = Diagnostic::new(format!("several rules claim {ports}"));
            return Err(rules
                .fold(diagnostic, |diagnostic, rule| {
                    diagnostic.at(rule.line, [rule.name.clone(), rule.addresses_text()])
                })
                .help("say which by its name"));
        }
        if let Some(found) = claiming.pop() {
            return Ok(found);
        }
    }
    if let Some(rule) = ruleset
        .rules()
        .iter()
        .position(|rule| rule.name == selector)
    {
        return Ok((rule, (0..layout.blocks[rule].ports.len()).collect()));
    }
    let Ok(ports) = ports else {
        let diagnostic =
            Diagnostic::new(format!("no rule is called `{}`", selector.escape_debug()));
        return Err(diagnostic.help(format!(
            "{command} rules lists them; ports are written as in 443/tcp"
        )));
    };
    let around = ruleset.rules().iter().find_map(|rule| {
        let range = rule.ports.iter().find(|range| range.contains(ports))?;
        Some((rule, range))
    });
    Err(match around {
        Some((rule, range)) => Diagnostic::new(format!("{ports} is only a part of a range"))
            .at(rule.line, [rule.name.clone(), range.to_string()])
            .help(format!(
                "remove {range}, split it in the file, or claim {ports} with another rule"
            )),
        None => Diagnostic::new(format!("no rule claims {ports}"))
            .help(format!("{command} rules lists what is claimed")),
    })
}
