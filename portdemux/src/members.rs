//! Changes of who is in a set, while the ruleset stays.

use std::time::{Duration, Instant};

use anyhow::Result;
use ipnet::IpNet;
use portdemux_common::ids::{Generation, RuleId};

use crate::{
    change::{
        self, InForce, Request, WrittenRules,
        transaction::{self, Feature},
    },
    clock::Clock,
    dataplane,
    error::{Help as _, Unavailable},
    image::{
        self, Compiled,
        sources::{Numbering, live::Become, store::NoRoom},
    },
    instance::{InstancePaths, Writer},
    maps::Maps,
    records::Records,
    rules::{
        Ruleset, edit,
        file::Reading,
        nearest::nearest,
        source::{Becomes, MemberChange, Set, Source},
        until::Until,
    },
    unconfirmed,
};

/// With more changes than this they are written into the text, and the tables are built anew.
const MOST_CHANGES: usize = 10_000;

/// What a change did.
#[derive(Debug)]
pub struct Changed {
    /// What became of each prefix.
    pub members: Vec<ChangedMember>,
    /// How many members the set has.
    pub count: usize,
    /// Whether any rule names the set.
    pub is_used: bool,
    /// The generation in force after it, if the tables were built anew.
    pub rebuilt: Option<Generation>,
    /// How long it took.
    pub took: Duration,
}

/// What became of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangedMember {
    /// The prefix.
    pub prefix: IpNet,
    /// What it was.
    pub was: Becomes,
    /// What it is.
    pub is: Becomes,
}

/// Finds a set of a ruleset by its name.
///
/// # Errors
///
/// There is none; says which there are.
pub fn find<'r>(ruleset: &'r Ruleset, name: &str) -> Result<&'r Set> {
    find_or(ruleset, name, "")
}

/// Finds a set by its name; the help of the error ends with `end`.
fn find_or<'r>(ruleset: &'r Ruleset, name: &str, end: &str) -> Result<&'r Set> {
    let mut sets = ruleset.sets().iter();
    if let Some(set) = sets.find(|set| set.name == name) {
        return Ok(set);
    }
    let names: Vec<&str> = ruleset.sets().iter().map(|set| &*set.name).collect();
    Err(anyhow::anyhow!(
        "no set is called `{}`",
        name.escape_debug()
    ))
    .help(|| match nearest(name, &names) {
        Some(nearest) => format!("did you mean {nearest}{end}"),
        None if names.is_empty() => format!(
            "the rules in force have no sets: define it in a rules file, [sets], and apply it{end}"
        ),
        None => format!("the rules in force have {}{end}", names.join(", ")),
    })
}

/// Has the last word about what packets would be decided by.
pub type MemberCheck<'c> = &'c dyn Fn(&Compiled) -> Result<()>;

/// Changes who is in a set, all of it or nothing; `check_new` is asked before anything is written.
///
/// Until the record of the changes is written, nothing has changed; then each address becomes what it is
/// to be by one store. If this process ends between the two, the next change makes up for it. Where that cannot be,
/// or what is in force had to be rebuilt, the text takes the changes up and follows as a whole.
///
/// # Errors
///
/// A prefix cannot become that, or something cannot be written.
pub fn change(
    writer: &Writer,
    in_force: &InForce,
    name: &str,
    wishes: &[(IpNet, Becomes)],
    check_new: Option<MemberCheck<'_>>,
) -> Result<Changed> {
    let begun = Instant::now();
    let clock = Clock::now();
    unconfirmed::refuse_while_one_waits(writer)?;
    let set = find_or(&in_force.ruleset, name, "; nothing was changed")?;
    let slot = in_force
        .ruleset
        .sets()
        .iter()
        .position(|set| set.name == name);
    let atom = slot.and_then(|slot| in_force.ruleset.lists().atom_of(slot));
    // Else the text is not the one that the kernel's tables were built from, change by change.
    let is_on_record = in_force.lost.is_none() && in_force.changes_lost.is_none();
    // The kernel's tables know of an address faster than a walk over a million members does.
    let is_complete = is_on_record && writer.maps.source_changes() == in_force.changes.len() as u64;
    let is_non_member = |prefix: &IpNet| {
        let atom = atom.filter(|_| is_complete && prefix.prefix_len() == prefix.max_prefix_len());
        atom.and_then(|atom| writer.maps.is_listed(atom, prefix.addr(), clock.monotonic))
            == Some(false)
    };
    let members = check(&writer.paths, set, wishes, clock.unix, is_non_member)?;
    let steps: Vec<MemberChange> = members
        .iter()
        .filter(|member| member.was != member.is)
        .map(|member| MemberChange {
            set: name.into(),
            prefix: member.prefix,
            becomes: member.is,
        })
        .collect();
    let come = |becomes: Becomes| usize::from(becomes != Becomes::NonMember);
    let mut count = if set.until.is_empty() {
        set.prefixes.len()
    } else {
        set.members(clock.unix).count()
    };
    for member in &members {
        count = count + come(member.is) - come(member.was);
    }
    let mut changed = Changed {
        members,
        count,
        is_used: atom.is_some(),
        rebuilt: None,
        took: Duration::ZERO,
    };
    if !steps.is_empty() {
        if let Some(check) = check_new {
            check(&preview(&in_force.ruleset, &steps, clock.unix)?)?;
        }
        let all: Vec<&MemberChange> = in_force.changes.iter().chain(&steps).collect();
        let is_simple = is_on_record
            && all.len() <= MOST_CHANGES
            && !is_nested(set, &changed.members, clock.unix);
        if is_simple {
            let mut recorded = Recorded {
                writer,
                in_force,
                steps: &steps,
                all: &all,
                clock: &clock,
                rebuilt: None,
            };
            transaction::run(&mut [&mut recorded], &mut Unavailable::Refused)?;
            changed.rebuilt = recorded.rebuilt;
        } else {
            changed.rebuilt = Some(rebuild(writer, &steps)?);
        }
    }
    changed.took = begun.elapsed();
    Ok(changed)
}

/// Changes that are on record before the kernel's tables have them. From then on they hold with the next change, which
/// makes up for what the tables lack: there is nothing to roll back.
struct Recorded<'a> {
    writer: &'a Writer,
    in_force: &'a InForce,
    steps: &'a [MemberChange],
    /// These and those before them.
    all: &'a [&'a MemberChange],
    clock: &'a Clock,
    /// The generation in force, if the tables were built anew.
    rebuilt: Option<Generation>,
}

impl Feature for Recorded<'_> {
    fn prepare(&mut self, _unavailable: &mut Unavailable<'_>) -> Result<()> {
        let records = Records::new(self.writer.paths.records());
        records.append_changes(self.in_force.generation, self.steps, self.writer.lock())
    }

    fn commit(&mut self) -> Result<()> {
        let ruleset = &self.in_force.ruleset;
        if apply(&self.writer.maps, ruleset, self.all, self.clock).is_err() {
            let rebuilt = rebuild(self.writer, &[]);
            self.rebuilt = Some(rebuilt.help(|| {
                "the change is on record: it holds from the next change of the rules or of a set on"
                    .into()
            })?);
        }
        Ok(())
    }
}

/// What packets would be decided by after some changes.
fn preview(ruleset: &Ruleset, steps: &[MemberChange], now: u64) -> Result<Compiled> {
    let mut ruleset = ruleset.clone();
    ruleset.change_members(steps, now);
    let ids: Vec<RuleId> = (0..).take(ruleset.rules().len()).collect();
    image::compile(&ruleset, &ids)
}

/// Makes those changes in the kernel's tables that they do not have yet.
fn apply(maps: &Maps, ruleset: &Ruleset, all: &[&MemberChange], clock: &Clock) -> Result<()> {
    let done = usize::try_from(maps.source_changes()).unwrap_or(usize::MAX);
    let missing = all.get(done..).ok_or(NoRoom::Unwieldy)?;
    let steps: Vec<(u16, IpNet, Become)> = missing
        .iter()
        .filter_map(|change| {
            let mut sets = ruleset.sets().iter();
            let slot = sets.position(|set| set.name == change.set)?;
            let becomes = match change.becomes {
                Becomes::NonMember => Become::NonMember,
                Becomes::Member(None) => Become::Member(None),
                Becomes::Member(Some(until)) => match clock.deadline(until.unix) {
                    Some(deadline) => Become::Member(Some(deadline)),
                    None => Become::NonMember,
                },
            };
            Some((ruleset.lists().atom_of(slot)?, change.prefix, becomes))
        })
        .collect();
    maps.change_sources(
        &Numbering::of(ruleset.lists()),
        &steps,
        all.len() as u64,
        &dataplane::renew,
    )
}

/// Writes the changes into the text, and some that are not on record, and builds the tables anew.
fn rebuild(writer: &Writer, steps: &[MemberChange]) -> Result<Generation> {
    const NAME: &str = "the rules in force with this set";
    let WrittenRules { in_force, mut text } = change::written(writer)?;
    if !steps.is_empty() {
        text = edit::members(NAME, &text, steps, Clock::now().unix)?;
    }
    let request = Request {
        text,
        source: in_force.source,
        name: NAME,
        reading: Reading::Known,
        dry_run: false,
        confirm: None,
    };
    let old = || Some(in_force.ruleset);
    let change = change::change(writer, old, request, |_| Ok(()))?;
    Ok(change
        .generation
        .unwrap_or_else(|| writer.maps.generation()))
}

/// Whether prefixes that the set has hold parts of others that change: what is left of them, the tables
/// do not say. Who was a stranger overlaps nobody.
fn is_nested(set: &Set, members: &[ChangedMember], now: u64) -> bool {
    let mut known = members
        .iter()
        .filter(|member| member.was != member.is && member.was != Becomes::NonMember);
    known.any(|ChangedMember { prefix, .. }| {
        let overlaps = |other: &IpNet| other.contains(prefix) || prefix.contains(other);
        let overlapping = set.members(now).filter(|(other, _)| overlaps(other));
        overlapping.count() > 1
    })
}

/// What becomes of each prefix, if that can be.
fn check(
    paths: &InstancePaths,
    set: &Set,
    wishes: &[(IpNet, Becomes)],
    now: u64,
    is_non_member: impl Fn(&IpNet) -> bool,
) -> Result<Vec<ChangedMember>> {
    let name = &set.name;
    let shown = |prefix: &IpNet| Source::Prefix(*prefix).to_string();
    let mut members: Vec<ChangedMember> = Vec::with_capacity(wishes.len());
    for &(prefix, is) in wishes {
        let overlaps =
            |other: &IpNet| *other != prefix && (other.contains(&prefix) || prefix.contains(other));
        if let Some(other) = members.iter().find(|member| {
            member.prefix == prefix || is != Becomes::NonMember && overlaps(&member.prefix)
        }) {
            return Err(anyhow::anyhow!(
                "{} and {} overlap",
                shown(&other.prefix),
                shown(&prefix)
            ))
            .help(|| "name each address once; nothing was changed".into());
        }
        if is != Becomes::NonMember && is_non_member(&prefix) {
            members.push(ChangedMember {
                prefix,
                was: Becomes::NonMember,
                is,
            });
            continue;
        }
        let was: Option<Option<Until>> = set
            .members(now)
            .find(|(other, _)| **other == prefix)
            .map(|(_, until)| until);
        let other = || set.members(now).find(|(other, _)| overlaps(other));
        match (is, was) {
            (Becomes::NonMember, None) => {
                return Err(anyhow::anyhow!("{} is not in @{name}", shown(&prefix))).help(|| {
                    match other() {
                        Some((other, _)) if other.contains(&prefix) => format!(
                            "it is part of {}, which is; nothing was changed",
                            shown(other)
                        ),
                        Some((other, _)) => format!(
                            "only a part of it is: {}; nothing was changed",
                            shown(other)
                        ),
                        None => {
                            let command = paths.command();
                            format!("{command} set list {name} shows who is; nothing was changed")
                        }
                    }
                });
            }
            (Becomes::Member(_), None) => {
                if let Some((other, _)) = other() {
                    return Err(anyhow::anyhow!(
                        "{} overlaps {}, which is in @{name}",
                        shown(&prefix),
                        shown(other)
                    ))
                    .help(|| {
                        format!(
                            "{} set remove {name} {} first; nothing was changed",
                            paths.command(),
                            shown(other)
                        )
                    });
                }
            }
            (Becomes::NonMember | Becomes::Member(_), Some(_)) => {}
        }
        members.push(ChangedMember {
            prefix,
            was: was.map_or(Becomes::NonMember, Becomes::Member),
            is,
        });
    }
    Ok(members)
}
