//! The tables of sources that belong to an image.

mod decode;
mod edit;
mod encode;
pub(crate) mod live;
pub(super) mod outline;
mod ranges;
mod rows;
pub(crate) mod store;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, net::Ipv4Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use portdemux_common::sources::{
    CONTROL_WORDS, DIRECT, ENDS, SourceClass, SourceTable, Sources, is_in_direct, tree::TreePointer,
};

pub(crate) use self::rows::Numbering;
use self::{
    encode::{KeyRange, Keys},
    outline::Outline,
    ranges::{HeldPrefix, Range},
    rows::NewRows,
    store::{NoRoom, Store},
};
use crate::{
    clock::Clock,
    rules::{
        Ruleset,
        lists::{Atom, Lists},
        until::Until,
    },
};

/// What stands in the first words of a table, for the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum ControlWord {
    /// The first word that is not taken.
    Next = 0,
    /// How many classes there are.
    Classes = 1,
    /// How many classes there is room for.
    ClassSlots = 2,
    /// How many changes were made since the table was built.
    Changes = 3,
    /// Where it says what lists are made of; 0 if it does not.
    Outline = 4,
}

/// Rows for classes that come up while the table is in use.
const SPARE_CLASSES: usize = 256;

/// The lists that rules have, as the kernel searches them: where the tables are, and their words.
///
/// # Errors
///
/// They take more room than there is.
pub(super) fn compile(ruleset: &Ruleset) -> Result<(Sources, Vec<u64>), NoRoom> {
    let lists = ruleset.lists();
    if lists.atoms().is_empty() {
        return Ok((Sources::default(), Vec::new()));
    }
    let mut rows = NewRows::new(Numbering::of(lists));
    let clock = Clock::now();
    let nobody_leaves = HashMap::new();
    let held = |is_v4: bool| {
        let nobody_leaves = &nobody_leaves;
        (0..).zip(lists.atoms()).flat_map(move |(atom, list)| {
            let (prefixes, until) = match list {
                Atom::Set(offset) => {
                    let set = &ruleset.sets()[*offset];
                    (&set.prefixes, &set.until)
                }
                Atom::Own(prefixes) => (prefixes, nobody_leaves),
            };
            let of_family = prefixes
                .iter()
                .filter(move |prefix| prefix.addr().is_ipv4() == is_v4);
            of_family.filter_map(move |&prefix| {
                // Most sets hold everyone for good.
                let until = (!until.is_empty()).then(|| until.get(&prefix)).flatten();
                let deadline = match until {
                    // Whose time is over is not a member any more.
                    Some(until) => clock.deadline(until.unix)?,
                    None => 0,
                };
                Some(HeldPrefix {
                    prefix,
                    atom,
                    deadline,
                })
            })
        })
    };
    let v4 = ranges::ranges(&mut rows, held(true), Keys::V4)?;
    let v6 = ranges::ranges(&mut rows, held(false), Keys::V6)?;

    let mut words = vec![0; CONTROL_WORDS as usize];
    let row = rows.words.len() / rows.count();
    let offsets = rows.count() + rows.count() / 4 + SPARE_CLASSES;
    let classes = words.take(offsets * row)?;
    words.write(classes, &rows.words);
    Outline::of(ruleset).write(&mut words)?;
    let mut tree = |keys, ranges: &[Range]| {
        let pieces = ranges::pieces(&mut words, keys, ranges)?;
        encode::root(&mut words, keys, &pieces)
    };
    let sources = Sources {
        v4: tree(Keys::V4, &v4)?,
        v6: tree(Keys::V6, &v6)?,
        begin: 0,
        words: words.next(),
        classes,
        row: u32::try_from(row).map_err(|_| NoRoom::Full)?,
    };
    for (control, value) in [
        (ControlWord::Next, words.len()),
        (ControlWord::Classes, rows.count()),
        (ControlWord::ClassSlots, offsets),
    ] {
        words[control as usize] = value as u64;
    }
    Ok((sources, words))
}

impl Numbering {
    /// How the lists of a ruleset are numbered.
    pub(crate) fn of(lists: &Lists) -> Self {
        Self {
            atoms: lists.atoms().len(),
            unions: lists.unions().to_vec(),
        }
    }
}

/// The words of a ruleset's tables, at a time.
#[derive(Clone, Copy, Debug)]
pub struct Words<'w> {
    /// The words from [`Sources::begin`] on.
    pub words: &'w [u64],
    /// [`Sources::begin`].
    pub begin: u32,
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub now: u64,
}

impl SourceTable for Words<'_> {
    fn word(&self, offset: u32) -> Option<u64> {
        let offset = offset.checked_sub(self.begin)?;
        self.words.get(offset as usize).copied()
    }

    fn now(&self) -> u64 {
        self.now
    }
}

/// The words of a table that are only read.
struct FrozenWords<'w>(&'w [u64]);

impl Store for FrozenWords<'_> {
    fn next(&self) -> u32 {
        u32::MAX
    }

    fn take_to(&mut self, _next: u32) -> Result<(), NoRoom> {
        Err(NoRoom::Full)
    }

    fn read(&self, offset: u32) -> u64 {
        self.0.get(offset as usize).copied().unwrap_or_default()
    }

    fn write(&mut self, _offset: u32, _words: &[u64]) {}

    fn publish(&mut self, _offset: u32, _word: u64) {}
}

/// The prefixes that a table has in a list, in as few as say it, IPv4 first, and until when they are in it; those whose
/// time is over are not.
pub(super) fn members(
    sources: &Sources,
    words: &[u64],
    list: u16,
    clock: &Clock,
) -> Vec<(IpNet, Option<Until>)> {
    let store = FrozenWords(words);
    // What is made up of others ends as a list by itself does: once, with the last of them.
    let numbering = Numbering {
        atoms: (sources.row as usize).saturating_sub(1) * 64,
        unions: Vec::new(),
    };
    let row = |class: SourceClass| {
        let offset = sources.row_of(class);
        let words = offset..offset + sources.row;
        words.map(|offset| store.read(offset)).collect()
    };
    let mut known: HashMap<SourceClass, Option<Option<u64>>> = HashMap::new();
    let mut member = |class: SourceClass| {
        *known
            .entry(class)
            .or_insert_with(|| match class & (DIRECT | ENDS) {
                DIRECT => is_in_direct(class, list).then_some(None),
                _ => numbering.membership(class, row).of(list),
            })
    };
    let mut is_in = |class: SourceClass| match member(class)? {
        None => Some(None),
        // It never comes out earlier than it is.
        Some(deadline) => clock.time_of(deadline).map(Some),
    };
    let v4 = decode::root(&store, Keys::V4, &sources.v4)
        .into_iter()
        .map(|piece| (u128::from(piece.start), piece.target.0));
    let v4 = spans(v4, &mut is_in, u128::from(u32::MAX));
    let v4 = v4.into_iter().flat_map(|(first, last, until)| {
        let address = |number| Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX));
        let prefixes = Ipv4Subnets::new(address(first), address(last), 0);
        prefixes.map(move |prefix| (IpNet::V4(prefix), until))
    });
    let v6 = decode::root(&store, Keys::V6, &sources.v6)
        .into_iter()
        .flat_map(|piece| addresses(&store, piece));
    let v6 = spans(v6, &mut is_in, u128::MAX);
    let v6 = v6.into_iter().flat_map(|(first, last, until)| {
        let prefixes = Ipv6Subnets::new(first.into(), last.into(), 0);
        prefixes.map(move |prefix| (IpNet::V6(prefix), until))
    });
    v4.chain(v6).collect()
}

/// The ranges of addresses that a piece of the upper halves stands for.
fn addresses(store: &impl Store, KeyRange { start, target }: KeyRange) -> Vec<Range> {
    let high = u128::from(start) << 64;
    if target.is_class() {
        return vec![(high, target.0)];
    }
    decode::pieces(store, Keys::V6, target, (0, u64::MAX))
        .into_iter()
        .map(|piece| {
            let KeyRange {
                start,
                target: TreePointer(class),
            } = piece;
            (high | u128::from(start), class)
        })
        .collect()
}

/// The spans of neighbouring ranges that are in a list in the same way, first and last address, the last range ending
/// with the last address of all.
fn spans<T: Copy + PartialEq>(
    ranges: impl Iterator<Item = Range>,
    mut is_in: impl FnMut(SourceClass) -> Option<T>,
    end: u128,
) -> Vec<(u128, u128, T)> {
    let mut spans = Vec::new();
    let mut open: Option<(u128, T)> = None;
    for (start, class) in ranges {
        let here = is_in(class);
        if let Some((first, how)) = open
            && here != Some(how)
        {
            spans.push((first, start - 1, how));
            open = None;
        }
        if open.is_none() {
            open = here.map(|how| (start, how));
        }
    }
    spans.extend(open.map(|(first, how)| (first, end, how)));
    spans
}
