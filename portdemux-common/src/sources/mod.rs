//! Who may use a port: which lists of source prefixes an address is in.
//!
//! All lists of all rules cut the address space of a family into ranges, and every range has a *class*:
//! the set of lists that hold all of its addresses. One search finds the class, however many lists
//! there are, and one bit of the class answers for a list. The ranges are searched in a [`tree`], the
//! classes are rows of bits; both lie in a map of words of their own, in the part of it that the
//! ruleset names.
//!
//! Whoever is on a list for a time only is in a class that ends: it says when, and which class comes
//! then. So that an address is let go at the right moment, nothing in the map needs to change.

pub mod tree;

use core::hint::cold_path;

use bytemuck::{Pod, Zeroable};
use tree::Division;

use crate::{parse::Version, policy::Policy};

/// How many distinct lists of sources the rules can have.
pub const MAX_LISTS: usize = 1024;
/// How many prefixes the lists can hold together.
pub const MAX_PREFIXES: usize = 1 << 22;
/// How many words the tables can take together, those of two rulesets: 4 GiB.
pub const MAX_WORDS: usize = 1 << 29;
/// How many classes there can be.
pub const MAX_CLASSES: usize = 1 << 24;
/// How many times that differ an address can be on lists until.
pub const MAX_DEADLINES: usize = 16;
/// Words before a ruleset's tables that only the control plane reads.
pub const CONTROL_WORDS: u32 = 8;

/// Deadlines are in units of 2 to this power nanoseconds of `CLOCK_MONOTONIC`: about a millisecond, so
/// that 40 bits last 36 years.
pub const DEADLINE_SHIFT: u32 = 20;

/// A class: its number in bits 0 to 23, and whether it [`ENDS`]; or with [`DIRECT`] its lists themselves.
/// Addresses in no list have class 0.
pub type SourceClass = u32;

/// The bit of a class that has no row: a bit of it stands for each of [`DIRECT_LISTS`].
pub const DIRECT: SourceClass = 1 << 24;

/// How many lists have a bit in classes that have no row.
pub const DIRECT_LISTS: usize = 24;

/// The bit of a class that ends.
pub const ENDS: SourceClass = 1 << 25;

/// The number alone, by which rows are found.
#[inline(always)]
#[must_use]
pub const fn number(class: SourceClass) -> u32 {
    class & 0xff_ffff
}

/// What the tables of sources lie in.
pub trait SourceTable {
    /// The word at a place; none beyond the end.
    fn word(&self, offset: u32) -> Option<u64>;

    /// `CLOCK_MONOTONIC` in nanoseconds. Asked for only about an address that is on a list for a time.
    fn now(&self) -> u64;
}

/// Where the tables of a ruleset are. All zeros: no rule has a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Sources {
    /// The tree of IPv4.
    pub v4: Division,
    /// The tree of IPv6.
    pub v6: Division,
    /// Where the part of the map begins that is this ruleset's; places in it count from there.
    pub begin: u32,
    /// How many words the part has.
    pub words: u32,
    /// Where the rows of the classes begin.
    pub classes: u32,
    /// How many words a row has: the class's [`end`], and a bit for each list.
    pub row: u32,
}

const _: () = assert!(size_of::<Division>() == 16 && size_of::<Sources>() == 48);

/// What a rule's lists say about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Admitted,
    /// It is on the list of those who may not.
    Denied,
    /// It is not on the list of those who may.
    NotAllowed,
}

/// How a class ends: when, in units of [`DEADLINE_SHIFT`], and the class that comes after it. All zeros:
/// never.
#[must_use]
pub const fn end(deadline: u64, next: SourceClass) -> u64 {
    deadline << 24 | number(next) as u64
}

/// When a class ends, by the first word of its row; 0 for never.
#[inline(always)]
#[must_use]
pub const fn deadline(end: u64) -> u64 {
    end >> 24
}

/// The number of the class that comes after one that ends.
#[inline(always)]
#[must_use]
pub const fn next(end: u64) -> SourceClass {
    #[expect(clippy::cast_possible_truncation, reason = "the lower 24 bits")]
    number(end as u32)
}

/// Whether a class that has no row is in a list.
#[inline(always)]
#[must_use]
pub const fn is_in_direct(class: SourceClass, list: u16) -> bool {
    // Beyond the bits for lists stands the mark of these classes, which is for none.
    number(class) >> (list % 32) & 1 != 0
}

impl Sources {
    /// What the lists of a policy say about an address: `source` are its upper and lower 64 bits, of IPv4
    /// the address and 0.
    #[inline(always)]
    #[must_use]
    pub fn admit<T: SourceTable>(
        &self,
        table: &T,
        version: Version,
        source: [u64; 2],
        policy: &Policy,
    ) -> Admission {
        // What lies beyond the map is nowhere: nobody is let in by it.
        match self.judge(table, version, source, policy) {
            Some(admission) => admission,
            None => Admission::NotAllowed,
        }
    }

    #[inline(always)]
    fn judge<T: SourceTable>(
        &self,
        table: &T,
        version: Version,
        source: [u64; 2],
        policy: &Policy,
    ) -> Option<Admission> {
        let class = self.class_at(table, self.class(table, version, source)?)?;
        // The row of strangers need not be read.
        if class == 0 {
            return Some(if policy.from == 0 {
                Admission::Admitted
            } else {
                Admission::NotAllowed
            });
        }
        Some(
            if policy.deny != 0 && self.is_in(table, class, policy.deny - 1)? {
                Admission::Denied
            } else if policy.from != 0 && !self.is_in(table, class, policy.from - 1)? {
                Admission::NotAllowed
            } else {
                Admission::Admitted
            },
        )
    }

    /// The class of an address, whether it has ended or not.
    #[inline(always)]
    #[must_use]
    pub fn class<T: SourceTable>(
        &self,
        table: &T,
        version: Version,
        [high, low]: [u64; 2],
    ) -> Option<SourceClass> {
        let reader = self.reader(table);
        match version {
            Version::V4 if self.v4.first != 0 => tree::class_of_v4(reader, &self.v4, high),
            Version::V6 if self.v6.first != 0 => tree::class_of_v6(reader, &self.v6, [high, low]),
            Version::V4 | Version::V6 => Some(0),
        }
    }

    /// What has become of a class by now.
    #[inline(always)]
    fn class_at<T: SourceTable>(&self, table: &T, mut class: SourceClass) -> Option<SourceClass> {
        if class & ENDS == 0 {
            return Some(class);
        }
        cold_path();
        let mut end = self.end_of(table, class)?;
        let now = table.now() >> DEADLINE_SHIFT;
        for _ in 0..MAX_DEADLINES {
            if deadline(end) == 0 || now < deadline(end) {
                break;
            }
            class = next(end);
            end = self.end_of(table, class)?;
        }
        Some(class)
    }

    /// How a class ends: see [`end`].
    #[inline(always)]
    #[must_use]
    pub fn end_of<T: SourceTable>(&self, table: &T, class: SourceClass) -> Option<u64> {
        self.reader(table).word(self.row_of(class))
    }

    /// Whether a class is in a list; it is not asked whether it has ended.
    #[inline(always)]
    #[must_use]
    pub fn is_in<T: SourceTable>(&self, table: &T, class: SourceClass, list: u16) -> Option<bool> {
        if class & DIRECT != 0 {
            return Some(is_in_direct(class, list));
        }
        let offset = self.row_of(class).wrapping_add(1 + u32::from(list / 64));
        Some(self.reader(table).word(offset)? >> (list % 64) & 1 != 0)
    }

    /// Where the row of a class begins.
    #[inline(always)]
    #[must_use]
    pub const fn row_of(&self, class: SourceClass) -> u32 {
        self.classes
            .wrapping_add(number(class).wrapping_mul(self.row))
    }

    #[inline(always)]
    const fn reader<'t, T: SourceTable>(&self, table: &'t T) -> Reader<'t, T> {
        Reader {
            table,
            begin: self.begin,
        }
    }
}

/// The part of a table that is a ruleset's.
struct Reader<'t, T> {
    table: &'t T,
    begin: u32,
}

impl<T> Clone for Reader<'_, T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Reader<'_, T> {}

impl<T: SourceTable> Reader<'_, T> {
    #[inline(always)]
    fn word(&self, offset: u32) -> Option<u64> {
        self.table.word(self.begin.wrapping_add(offset))
    }
}
