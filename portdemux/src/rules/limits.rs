//! What the destinations of all rules must keep together.

use std::collections::{HashMap, HashSet};

use portdemux_common::capacity::{CPU_SLOTS, MAX_DESTINATIONS};

use super::{destination::Destination, error::Diagnostic, rule::Rule};

/// What is over the limits, or contradicts itself.
pub(super) fn check(rules: &[Rule]) -> Option<Diagnostic> {
    let mut indices: HashSet<&Destination> = HashSet::new();
    let mut lists: HashSet<&Destination> = HashSet::new();
    let mut queues: HashMap<u16, (u16, &Rule)> = HashMap::new();
    for rule in rules {
        if rule.to.has_slot() {
            indices.insert(&rule.to);
        }
        let Some(cpus) = rule.to.cpus() else {
            continue;
        };
        let queue = rule.delivery.target(&rule.to).queue;
        lists.insert(&rule.to);
        for cpu in cpus.numbers() {
            let &mut (other, first) = queues.entry(cpu).or_insert((queue, rule));
            if other != queue {
                let evidence = |rule: &Rule, queue: u16| {
                    [
                        rule.name.clone(),
                        rule.to.to_string(),
                        format!("queue {queue}"),
                    ]
                };
                let diagnostic = Diagnostic::new(format!("CPU {cpu} has two queues"));
                return Some(
                    diagnostic
                        .at(first.line, evidence(first, other))
                        .at(rule.line, evidence(rule, queue))
                        .help("let rules that share a CPU say the same about its queue"),
                );
            }
        }
    }
    if indices.len() > MAX_DESTINATIONS {
        let diagnostic = Diagnostic::new(format!("{} destinations are too many", indices.len()));
        return Some(diagnostic.help(format!(
            "rules can name at most {MAX_DESTINATIONS} different sockets, interfaces and AF_XDP programs"
        )));
    }
    let count: usize = lists
        .iter()
        .filter_map(|to| to.cpus().map(|cpus| cpus.numbers().count()))
        .sum();
    (count > CPU_SLOTS).then(|| {
        let diagnostic = Diagnostic::new(format!("lists of {count} CPUs are too long"));
        diagnostic.help(format!(
            "all different lists together have at most {CPU_SLOTS}; let rules share a list"
        ))
    })
}
