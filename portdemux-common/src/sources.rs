//! Who may use a port: which lists of source prefixes an address is in.
//!
//! All lists of all rules are compiled into one table for each family. The table cuts the address
//! space into ranges, and every range has a *class*: the set of lists that hold all of its addresses.
//! One search finds the class, however many lists there are, and one bit of the class answers for a
//! list.

use bytemuck::{Pod, Zeroable};

use crate::{parse::Version, policy::Policy};

/// How many distinct lists of sources the rules can have.
pub const MAX_LISTS: usize = 1024;
/// How many prefixes of each family the lists can hold together.
pub const MAX_PREFIXES: usize = 1 << 16;
/// Places for ranges of each family: every prefix begins one and another begins behind it.
pub const RANGE_PLACES: usize = 2 * MAX_PREFIXES + 64;
/// Into how many parts of equal width the ranges are divided, so that a search looks at few of them.
pub const PARTS: usize = 1 << 16;
/// Places for parts: one beyond the last, its end, and more that are not used.
pub const PART_PLACES: usize = PARTS + 16;
/// Words for the bits of classes.
pub const CLASS_WORDS: usize = 1 << 17;

/// Steps in which a binary search over all ranges ends.
const SEARCH_STEPS: usize = RANGE_PLACES.ilog2() as usize + 1;

/// The places that a search can come to: a power of two less one, no less than [`RANGE_PLACES`].
const SEARCH_MASK: usize = RANGE_PLACES.next_power_of_two() - 1;

/// Number of a class; addresses in no list have class 0.
pub type Class = u16;

/// How the ranges of a family are divided: by the upper 64 bits of an address, an IPv4 address being
/// a number of 32 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Division {
    /// Where the first part begins.
    pub base: u64,
    /// A part is 2 to this power wide; below 64.
    pub shift: u32,
    /// How many ranges there are; 0 if no list holds a prefix of the family.
    pub ranges: u32,
}

/// How much of [`Sources`] has a meaning. All zeros: no rule has a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Sizes {
    /// The division of IPv4.
    pub v4: Division,
    /// The division of IPv6.
    pub v6: Division,
    /// How many words the bits of a class take.
    pub words: u32,
    /// How many classes there are.
    pub classes: u32,
}

/// The lists of a ruleset.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Sources {
    /// The lists that each class is in, a bit for each list, [`Sizes::words`] words for a class.
    pub classes: [u64; CLASS_WORDS],
    /// The last range that begins at or before each part of IPv4, and the last range of all.
    pub v4_parts: [u32; PART_PLACES],
    /// The same for IPv6.
    pub v6_parts: [u32; PART_PLACES],
    /// Where each IPv4 range begins, in host byte order, ascending, the first at 0.
    pub v4_starts: [u32; RANGE_PLACES],
    /// Where each IPv6 range begins: upper and lower 64 bits in host byte order.
    pub v6_starts: [[u64; 2]; RANGE_PLACES],
    /// The classes of the IPv4 ranges.
    pub v4_classes: [Class; RANGE_PLACES],
    /// The classes of the IPv6 ranges.
    pub v6_classes: [Class; RANGE_PLACES],
}

const _: () = {
    assert!(size_of::<Sizes>() == 40);
    assert!(size_of::<Sources>().is_multiple_of(64) && align_of::<Sources>() == 8);
};

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

impl Sources {
    /// What the lists of a policy say about an address of the upper 64 bits `high`, an IPv4 address being
    /// all of them, and the lower 64 bits `low`.
    #[inline(always)]
    #[must_use]
    pub fn admit(
        &self,
        sizes: &Sizes,
        version: Version,
        [high, low]: [u64; 2],
        policy: &Policy,
    ) -> Admission {
        let class = match version {
            Version::V4 => self.class_of_v4(&sizes.v4, high),
            Version::V6 => self.class_of_v6(&sizes.v6, [high, low]),
        };
        if policy.deny != 0 && self.is_in(sizes, class, policy.deny - 1) {
            Admission::Denied
        } else if policy.from != 0 && !self.is_in(sizes, class, policy.from - 1) {
            Admission::NotAllowed
        } else {
            Admission::Admitted
        }
    }

    #[inline(always)]
    fn class_of_v4(&self, division: &Division, address: u64) -> Class {
        let Some((first, last)) = bounds(division, &self.v4_parts, address) else {
            return 0;
        };
        let begins_before = |place: usize| {
            self.v4_starts
                .get(place)
                .is_some_and(|&start| u64::from(start) <= address)
        };
        class_at(&self.v4_classes, search(first, last, begins_before))
    }

    #[inline(always)]
    fn class_of_v6(&self, division: &Division, [high, low]: [u64; 2]) -> Class {
        let Some((first, last)) = bounds(division, &self.v6_parts, high) else {
            return 0;
        };
        let begins_before = |place: usize| {
            self.v6_starts
                .get(place)
                .is_some_and(|&[start_high, start_low]| {
                    start_high < high || start_high == high && start_low <= low
                })
        };
        class_at(&self.v6_classes, search(first, last, begins_before))
    }

    /// Whether a class is in a list.
    #[inline(always)]
    #[must_use]
    pub fn is_in(&self, sizes: &Sizes, class: Class, list: u16) -> bool {
        let word = u32::from(class) * sizes.words + u32::from(list / 64);
        match self.classes.get(word as usize) {
            Some(bits) => bits >> (list % 64) & 1 != 0,
            None => false,
        }
    }
}

/// The ranges among which the one that holds `key` is.
#[inline(always)]
fn bounds(division: &Division, parts: &[u32; PART_PLACES], key: u64) -> Option<(u32, u32)> {
    if division.ranges == 0 {
        return None;
    }
    if key < division.base {
        return Some((0, 0));
    }
    let part = (key - division.base) >> (division.shift & 63);
    // Beyond the last part lies what the last range holds.
    let part = usize::try_from(part).unwrap_or(PARTS).min(PARTS);
    Some((*parts.get(part)?, *parts.get(part + 1)?))
}

/// The last place from `first` to `last` whose range begins before or at the address; the first does.
#[inline(always)]
fn search(first: u32, last: u32, begins_before: impl Fn(usize) -> bool) -> usize {
    let mut base = first as usize & SEARCH_MASK;
    let mut left = (last - first) as usize + 1;
    for _ in 0..SEARCH_STEPS {
        if left <= 1 {
            break;
        }
        let half = left / 2;
        // Masked, so that the verifier takes all ways to here for one: the bounds of the place are the
        // same whichever half it is in.
        let at = (base + half) & SEARCH_MASK;
        if begins_before(at) {
            base = at;
        }
        left -= half;
    }
    base
}

#[inline(always)]
fn class_at(classes: &[Class; RANGE_PLACES], place: usize) -> Class {
    match classes.get(place) {
        Some(&class) => class,
        None => 0,
    }
}
