//! From the prefixes of lists to ranges of addresses that are in the same lists.

use ipnet::IpNet;
use portdemux_common::sources::{SourceClass, tree::TreePointer};

use super::{
    encode::{self, KeyRange, Keys},
    rows::{Membership, Rows},
    store::{NoRoom, Store},
};

/// A prefix that a list holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeldPrefix {
    pub(crate) prefix: IpNet,
    pub(crate) atom: u16,
    /// Until when, in units of [`portdemux_common::sources::DEADLINE_SHIFT`]; 0 for good.
    pub(crate) deadline: u64,
}

/// Neighbouring addresses of a class; they end where the next begin. An IPv4 address is a number of 32
/// bits.
pub(crate) type Range = (u128, SourceClass);

/// An address from which on a list holds one prefix more, or one less.
struct Edge {
    address: u128,
    deadline: u64,
    atom: u16,
    begins: bool,
}

/// The first and the last address of a prefix.
pub(crate) fn bounds(prefix: &IpNet) -> (u128, u128) {
    match prefix {
        IpNet::V4(net) => (
            net.network().to_bits().into(),
            net.broadcast().to_bits().into(),
        ),
        IpNet::V6(net) => (net.network().to_bits(), net.broadcast().to_bits()),
    }
}

/// Cuts the addresses of a family into ranges, the first of which begins at 0. `held` are prefixes of
/// the family.
pub(crate) fn ranges(
    rows: &mut impl Rows,
    held: impl Iterator<Item = HeldPrefix>,
    keys: Keys,
) -> Result<Vec<Range>, NoRoom> {
    let mut edges = Vec::with_capacity(held.size_hint().0 * 2);
    let last = match keys {
        Keys::V4 => u128::from(u32::MAX),
        Keys::V6 => u128::MAX,
    };
    for HeldPrefix {
        prefix,
        atom,
        deadline,
    } in held
    {
        let (first, end) = bounds(&prefix);
        let edge = |address, begins| Edge {
            address,
            deadline,
            atom,
            begins,
        };
        edges.push(edge(first, true));
        // Behind the last address of all nothing begins.
        if end < last {
            edges.push(edge(end + 1, false));
        }
    }
    edges.sort_unstable_by_key(|edge| edge.address);
    let mut depths = vec![0_u32; rows.numbering().atoms];
    let mut membership = rows.numbering().none();
    let mut ranges: Vec<Range> = vec![(0, 0)];
    // Mostly an address is in what the one two edges before was in.
    let mut known: [(Membership, SourceClass); 2] =
        [(membership.clone(), 0), (membership.clone(), 0)];
    for here in edges.chunk_by(|one, other| one.address == other.address) {
        for edge in here {
            step(&mut membership, &mut depths, edge);
        }
        let class = if let Some((_, class)) = known.iter().find(|(known, _)| *known == membership) {
            *class
        } else {
            let class = rows.class(&membership)?;
            known.rotate_left(1);
            known[1] = (membership.clone(), class);
            class
        };
        let start = here[0].address;
        match ranges.last_mut() {
            Some(last) if last.0 == start => last.1 = class,
            Some(last) if last.1 == class => {}
            _ => ranges.push((start, class)),
        }
    }
    Ok(ranges)
}

fn step(membership: &mut Membership, depths: &mut [u32], edge: &Edge) {
    let atom = usize::from(edge.atom);
    if edge.deadline != 0 {
        let entry = (edge.deadline, edge.atom);
        if edge.begins {
            membership.timed.push(entry);
        } else if let Some(offset) = membership.timed.iter().position(|&known| known == entry) {
            membership.timed.swap_remove(offset);
        }
        return;
    }
    let depth = &mut depths[atom];
    *depth = if edge.begins {
        *depth + 1
    } else {
        depth.saturating_sub(1)
    };
    let bit = 1 << (atom % 64);
    if *depth > 0 {
        membership.lasting[atom / 64] |= bit;
    } else {
        membership.lasting[atom / 64] &= !bit;
    }
}

/// The keys of ranges, and where they lead to: what tells addresses of IPv6 with the same upper half
/// apart is written first.
pub(crate) fn pieces(
    store: &mut impl Store,
    keys: Keys,
    ranges: &[Range],
) -> Result<Vec<KeyRange>, NoRoom> {
    let mut pieces = Vec::with_capacity(ranges.len());
    let mut offset = 0;
    while let Some(&(start, class)) = ranges.get(offset) {
        let (high, low) = match keys {
            Keys::V4 => (low_word(start), 0),
            Keys::V6 => (low_word(start >> 64), low_word(start)),
        };
        offset += 1;
        if keys == Keys::V4 || low == 0 && !is_cut(ranges, offset, high) {
            let target = TreePointer::class(class);
            pieces.push(KeyRange {
                start: high,
                target,
            });
            continue;
        }
        let mut lower = Vec::new();
        if low != 0 {
            // Its lowest addresses are in the range before; the first range begins at 0.
            let before = TreePointer::class(ranges[offset - 2].1);
            lower.push(KeyRange {
                start: 0,
                target: before,
            });
        }
        let mut last = class;
        lower.push(KeyRange {
            start: low,
            target: TreePointer::class(class),
        });
        while is_cut(ranges, offset, high) {
            let (start, class) = ranges[offset];
            lower.push(KeyRange {
                start: low_word(start),
                target: TreePointer::class(class),
            });
            last = class;
            offset += 1;
        }
        let target = encode::target(store, Keys::V6, &lower, (0, u64::MAX), 0)?;
        pieces.push(KeyRange {
            start: high,
            target,
        });
        // What begins within the next upper half has a piece of its own from the first of its addresses on.
        let next = ranges.get(offset).map(|&(start, _)| low_word(start >> 64));
        if let Some(behind) = high.checked_add(1)
            && next != Some(behind)
        {
            pieces.push(KeyRange {
                start: behind,
                target: TreePointer::class(last),
            });
        }
    }
    KeyRange::join(&mut pieces);
    Ok(pieces)
}

/// Whether the range at a place begins within the addresses with this upper half.
fn is_cut(ranges: &[Range], offset: usize, high: u64) -> bool {
    let next = ranges.get(offset);
    next.is_some_and(|&(start, _)| low_word(start >> 64) == high && low_word(start) != 0)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower half is what is wanted"
)]
pub(crate) const fn low_word(address: u128) -> u64 {
    address as u64
}
