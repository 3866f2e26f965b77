//! The rows of classes: which lists hold the addresses of a class, and until when.

use std::collections::HashMap;

use portdemux_common::sources::{
    self, DIRECT, DIRECT_LISTS, ENDS, MAX_CLASSES, MAX_DEADLINES, SourceClass, number,
};

use super::store::NoRoom;

/// How lists are numbered: first those that are one set or one rule's own prefixes, then those that
/// several of them make up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbering {
    /// How many lists are not made up of others.
    pub(crate) atoms: usize,
    /// What the others are made up of.
    pub(crate) unions: Vec<Vec<u16>>,
}

/// In which atoms an address is, for good and for a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Membership {
    /// For good: a bit for each atom.
    pub(crate) lasting: Vec<u64>,
    /// For a time: until when, in units of [`sources::DEADLINE_SHIFT`], and the atom.
    pub(crate) timed: Vec<(u64, u16)>,
}

/// Rows that have numbers.
pub(crate) trait Rows {
    /// How lists are numbered.
    fn numbering(&self) -> &Numbering;

    /// The class with this row, a new one if there is none.
    fn class_of(&mut self, row: &[u64]) -> Result<SourceClass, NoRoom>;

    /// The class of addresses of which this is known. Of an atom, the latest time counts.
    fn class(&mut self, membership: &Membership) -> Result<SourceClass, NoRoom> {
        let Membership { lasting, timed } = membership;
        let row = self.numbering().row(0, lasting);
        if timed.is_empty() {
            return match self.numbering().direct(&row) {
                Some(class) => Ok(class),
                None => self.class_of(&row),
            };
        }
        let mut class = self.class_of(&row)?;
        // From the last end to the first: each class names the one that comes after it.
        let mut timed = timed.clone();
        timed.sort_unstable_by(|one, other| other.cmp(one));
        let mut bits = lasting.clone();
        let mut stages = 0;
        for until in timed.chunk_by(|one, other| one.0 == other.0) {
            let before = bits.clone();
            for &(_, atom) in until {
                set(&mut bits, atom);
            }
            if bits != before {
                stages += 1;
                let end = sources::end(until[0].0, class);
                let row = self.numbering().row(end, &bits);
                class = self.class_of(&row)?;
            }
        }
        if stages > MAX_DEADLINES {
            return Err(NoRoom::Deadlines);
        }
        Ok(class)
    }
}

impl Numbering {
    /// How many words a row has.
    pub(crate) fn words(&self) -> usize {
        1 + (self.atoms + self.unions.len()).div_ceil(64)
    }

    /// A row: how its class ends, and the lists.
    fn row(&self, end: u64, atoms: &[u64]) -> Vec<u64> {
        let mut row = vec![0; self.words()];
        let (first, bits) = row.split_first_mut().expect("invariant: a row has an end");
        *first = end;
        bits[..atoms.len()].copy_from_slice(atoms);
        for (list, atoms) in (self.atoms..).zip(&self.unions) {
            if atoms.iter().any(|&atom| is_set(bits, atom)) {
                bits[list / 64] |= 1 << (list % 64);
            }
        }
        row
    }

    /// The class without a row that says what a row says which does not end; none if there are too many lists.
    fn direct(&self, row: &[u64]) -> Option<SourceClass> {
        let lists = self.atoms + self.unions.len();
        let bits = SourceClass::try_from(*row.get(1)?).ok()?;
        (lists <= DIRECT_LISTS).then_some(if bits == 0 { 0 } else { bits | DIRECT })
    }

    /// The row of a class that has none.
    fn row_of_direct(&self, class: SourceClass) -> Vec<u64> {
        let mut row = vec![0; self.words()];
        row[1] = number(class).into();
        row
    }

    /// No membership at all.
    pub(crate) fn none(&self) -> Membership {
        Membership {
            lasting: vec![0; self.atoms.div_ceil(64)],
            timed: Vec::new(),
        }
    }

    /// What the rows from that of a class on say; `row` reads the words of one.
    pub(crate) fn membership(
        &self,
        class: SourceClass,
        row: impl Fn(SourceClass) -> Vec<u64>,
    ) -> Membership {
        let mut membership = self.none();
        let mut seen = self.none().lasting;
        let mut stages = Vec::new();
        let mut next = class;
        loop {
            let row = if next & DIRECT == 0 {
                row(next)
            } else {
                self.row_of_direct(next)
            };
            stages.push((sources::deadline(row[0]), row[1..].to_vec()));
            if sources::deadline(row[0]) == 0 || stages.len() > MAX_DEADLINES {
                break;
            }
            next = sources::next(row[0]);
        }
        // From the last stage on: an atom is in all stages before the one it ends with.
        for (deadline, bits) in stages.into_iter().rev() {
            for atom in (0..).take(self.atoms) {
                if !is_set(&bits, atom) || is_set(&seen, atom) {
                    continue;
                }
                set(&mut seen, atom);
                if deadline == 0 {
                    set(&mut membership.lasting, atom);
                } else {
                    membership.timed.push((deadline, atom));
                }
            }
        }
        membership
    }
}

impl Membership {
    /// Until when it is in an atom, if it is.
    #[expect(clippy::option_option, reason = "who is in for good has no end")]
    pub(crate) fn of(&self, atom: u16) -> Option<Option<u64>> {
        if is_set(&self.lasting, atom) {
            return Some(None);
        }
        let mut timed = self.timed.iter();
        let found = timed.find(|&&(_, other)| other == atom)?;
        Some(Some(found.0))
    }

    /// Makes an address a member of an atom, until a time or for good, and of none else of it.
    pub(crate) fn enter(&mut self, atom: u16, deadline: Option<u64>) {
        self.leave(atom);
        match deadline {
            Some(deadline) => self.timed.push((deadline, atom)),
            None => set(&mut self.lasting, atom),
        }
    }

    /// Takes it out of an atom.
    pub(crate) fn leave(&mut self, atom: u16) {
        self.lasting[usize::from(atom) / 64] &= !(1 << (atom % 64));
        self.timed.retain(|&(_, other)| other != atom);
    }
}

/// The class of a number that has this row.
pub(crate) fn class(number: u32, row: &[u64]) -> SourceClass {
    match row.first() {
        Some(&end) if end != 0 => number | ENDS,
        _ => number,
    }
}

pub(crate) fn is_set(bits: &[u64], list: u16) -> bool {
    bits.get(usize::from(list) / 64)
        .is_some_and(|word| word >> (list % 64) & 1 != 0)
}

fn set(bits: &mut [u64], list: u16) {
    bits[usize::from(list) / 64] |= 1 << (list % 64);
}

/// Rows as they come up.
#[derive(Debug)]
pub(crate) struct NewRows {
    numbering: Numbering,
    /// All rows, one behind the other.
    pub(crate) words: Vec<u64>,
    known: HashMap<Vec<u64>, SourceClass>,
}

impl NewRows {
    /// The row of class 0, whose addresses are in none of the lists.
    pub(crate) fn new(numbering: Numbering) -> Self {
        let none = vec![0; numbering.words()];
        Self {
            numbering,
            words: none.clone(),
            known: HashMap::from([(none, 0)]),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.known.len()
    }
}

impl Rows for NewRows {
    fn numbering(&self) -> &Numbering {
        &self.numbering
    }

    fn class_of(&mut self, row: &[u64]) -> Result<SourceClass, NoRoom> {
        if let Some(&class) = self.known.get(row) {
            return Ok(class);
        }
        if self.known.len() >= MAX_CLASSES {
            return Err(NoRoom::Full);
        }
        let number = SourceClass::try_from(self.known.len()).map_err(|_| NoRoom::Full)?;
        let class = class(number, row);
        self.words.extend_from_slice(row);
        self.known.insert(row.to_vec(), class);
        Ok(class)
    }
}
