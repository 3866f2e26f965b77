//! What `status` says of the destinations that rules name.

use std::fmt::Write as _;

use anyhow::Result;
use portdemux_common::entry::Action;
use serde::Serialize;

use crate::{
    change::InForce,
    cli::Context,
    figures::grouped,
    maps::{
        Maps,
        destinations::{self, Reachability},
        redirect_drops::Lost,
        targets,
    },
};

/// An interface that rules name.
#[derive(Serialize)]
pub(super) struct ReachedInterface {
    to: String,
    state: &'static str,
    up: Option<bool>,
    takes_frames: Option<bool>,
}

/// A kind of destination, and whether the kernel has what it needs.
#[derive(Serialize)]
pub(super) struct Requirement {
    kind: &'static str,
    needs: &'static str,
    available: bool,
    used: bool,
}

/// Kinds of destinations that need something of the kernel.
const KINDS: [(&str, Action); 4] = [
    ("socket", Action::Socket),
    ("interface", Action::Interface),
    ("cpu", Action::Cpu),
    ("xsk", Action::Xsk),
];

/// The interfaces that the ruleset in force names.
pub(super) fn destinations(maps: &Maps) -> Result<Vec<ReachedInterface>> {
    let reached = destinations::reached(maps)?.into_iter();
    Ok(reached
        .map(|reached| ReachedInterface {
            to: reached.destination.to_string(),
            state: reached.state.name(),
            up: reached.is_up,
            takes_frames: reached.takes_frames,
        })
        .collect())
}

/// The actions of the rules in force, if they are known.
pub(super) fn used(in_force: Option<&InForce>) -> Vec<Action> {
    let rules = in_force.map(|in_force| in_force.ruleset.rules().iter());
    rules
        .into_iter()
        .flatten()
        .map(|rule| rule.to.action())
        .collect()
}

/// What each kind needs of the kernel, and whether it is there; `used` are the actions of the rules.
pub(super) fn kinds(used: &[Action]) -> Vec<Requirement> {
    KINDS
        .into_iter()
        .map(|(kind, action)| Requirement {
            kind,
            needs: targets::feature(action),
            available: targets::probe(action).is_ok(),
            used: used.contains(&action),
        })
        .collect()
}

/// A line about the kinds that rules use, if they use any.
pub(super) fn text(destinations: &[ReachedInterface], used: &[Action]) -> String {
    let mut text = String::new();
    let ready = |destination: &&ReachedInterface| {
        destination.state == Reachability::Ready.name() && destination.takes_frames != Some(false)
    };
    let ready: Vec<&str> = destinations
        .iter()
        .filter(ready)
        .map(|ready| &*ready.to)
        .collect();
    if !ready.is_empty() {
        let _ = writeln!(text, "ready: {}", ready.join(", "));
    }
    for (kind, action) in KINDS {
        if used.contains(&action) {
            let has = if targets::probe(action).is_ok() {
                "which the kernel has"
            } else {
                "which this process cannot have of the kernel"
            };
            let _ = writeln!(
                text,
                "{kind} rules need {}, {has}",
                targets::feature(action)
            );
        }
    }
    text
}

/// A line for each loss of a target, and one if they are not counted.
pub(super) fn redirect_drops(lost: &[Lost], counted: Option<bool>) -> String {
    let mut text = String::new();
    for lost in lost {
        let (to, packets, why) = (&lost.to, grouped(lost.packets), lost.loss.name());
        let what = if lost.packets == 1 {
            "packet"
        } else {
            "packets"
        };
        let _ = writeln!(text, "{to} did not take {packets} {what} ({why})");
    }
    if counted == Some(false) {
        text.push_str("what targets do not take is not counted: the next change tries again\n");
    }
    text
}

impl ReachedInterface {
    /// Says what is not as it should be.
    pub(super) fn warn(&self, context: &Context) {
        let to = &self.to;
        if self.state == Reachability::Missing.name() {
            context.output.warn(
                format!("{to} is missing: its packets fall back as its rules say"),
                Some("ip -br link lists the interfaces there are"),
            );
        } else if self.state == Reachability::Returned.name() {
            let command = context.command();
            context.output.warn(
                format!("{to} was removed and made again: its packets fall back still"),
                Some(&format!(
                    "{command} apply, or any other change, gives them to it again"
                )),
            );
        } else if self.up == Some(false) {
            let name = to.strip_prefix("interface:").unwrap_or(to);
            context.output.warn(
                format!("{to} is down: its packets are lost (interface_down)"),
                Some(&format!("ip link set {name} up")),
            );
        } else if self.takes_frames == Some(false) {
            context.output.warn(
                format!(
                    "{to} takes no frames as things are: its packets are lost (interface_takes_none)"
                ),
                Some("a veth takes them if its other end has GRO or an XDP program"),
            );
        }
    }
}
