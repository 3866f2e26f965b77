//! Claimed addresses, each at a slot of its own.

use portdemux_common::{
    capacity::DISPLACEMENTS,
    entry::Entry,
    hash::{self, Hashed},
    parse::Version,
    ruleset::{Claims, RulesetImage, V4Slot, V6Slot, near, slot},
};

use super::length;

/// An address and where its spans lie: index of the first, and how many.
pub(super) type ClaimedAddress<const N: usize> = ([u8; N], u32, u32);

pub(super) fn place_v4(image: &mut RulesetImage, addresses: &[ClaimedAddress<4>]) {
    let Some(table) = AddressTable::build(addresses, hash::v4, &mut image.v4_displacements) else {
        return;
    };
    image.header.v4_seed = table.seed;
    image.header.v4_mask = table.mask;
    image.header.v4_bucket_mask = table.bucket_mask;
    for (&(address, first, count), slot) in addresses.iter().zip(table.slots) {
        image.v4[slot] = V4Slot {
            address,
            reserved: 0,
            claims: claims(image, first, count),
        };
    }
}

pub(super) fn place_v6(image: &mut RulesetImage, addresses: &[ClaimedAddress<16>]) {
    let Some(table) = AddressTable::build(addresses, hash::v6, &mut image.v6_displacements) else {
        return;
    };
    image.header.v6_seed = table.seed;
    image.header.v6_mask = table.mask;
    image.header.v6_bucket_mask = table.bucket_mask;
    for (&(address, first, count), slot) in addresses.iter().zip(table.slots) {
        image.v6[slot] = V6Slot {
            address,
            claims: claims(image, first, count),
            reserved: [0; 6],
        };
    }
}

/// Writes the displacements down a second time, where programs find them.
pub(super) fn bring_near(image: &mut RulesetImage) {
    for (version, displacements) in [
        (Version::V4, &image.v4_displacements),
        (Version::V6, &image.v6_displacements),
    ] {
        let first = near(version, 0);
        let slots = &mut image.head.ports[first..first + DISPLACEMENTS];
        for (entry, &displacement) in slots.iter_mut().zip(displacements) {
            *entry = Entry::from_bits(displacement);
        }
    }
}

/// The claims of an address whose spans stand in an image.
pub(crate) fn claims(image: &RulesetImage, first: u32, count: u32) -> Claims {
    let span = image.spans.get(first as usize).filter(|_| count > 0);
    Claims {
        first,
        count,
        span: span.copied().unwrap_or_default(),
    }
}

/// A hash table in which no two addresses meet, so that a lookup looks at one slot.
///
/// Hash and displace (Pagh 1999): addresses fall into buckets of about two, and each bucket, the
/// fullest first, gets a displacement under which all of its addresses land on free slots. The
/// table is half full at most, so that a displacement is soon found; where two addresses of a bucket
/// hash to the same slot under every displacement, another seed is taken.
struct AddressTable {
    seed: u64,
    mask: u32,
    bucket_mask: u32,
    /// Where each address stands, in the order they came.
    slots: Vec<usize>,
}

impl AddressTable {
    /// Places addresses and writes down the displacements; nothing for no addresses.
    fn build<const N: usize>(
        addresses: &[ClaimedAddress<N>],
        hash: impl Fn([u8; N], u64) -> Hashed,
        displacements: &mut [u32; DISPLACEMENTS],
    ) -> Option<Self> {
        if addresses.is_empty() {
            return None;
        }
        // At least two slots: a mask of 0 says that there is no table.
        let size = (2 * addresses.len()).next_power_of_two();
        let buckets = (size / 4).max(1);
        let (mask, bucket_mask) = (length(size) - 1, length(buckets) - 1);
        (0..)
            .map(|round: u64| round.wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .find_map(|seed| {
                let hashed: Vec<Hashed> = addresses
                    .iter()
                    .map(|&(address, ..)| hash(address, seed))
                    .collect();
                displacements[..buckets].fill(0);
                displace(&hashed, mask, bucket_mask, displacements)?;
                let slots = hashed
                    .iter()
                    .map(|&hashed| {
                        let bucket = (hashed.bucket & bucket_mask) as usize;
                        slot(hashed, displacements[bucket], mask)
                    })
                    .collect();
                Some(Self {
                    seed,
                    mask,
                    bucket_mask,
                    slots,
                })
            })
    }
}

/// Finds the displacements, or none if the seed is no good.
fn displace(
    hashed: &[Hashed],
    mask: u32,
    bucket_mask: u32,
    displacements: &mut [u32; DISPLACEMENTS],
) -> Option<()> {
    let mut buckets: Vec<Vec<u32>> = vec![Vec::new(); bucket_mask as usize + 1];
    for hashed in hashed {
        buckets[(hashed.bucket & bucket_mask) as usize].push(hashed.slot);
    }
    let mut order: Vec<usize> = (0..buckets.len())
        .filter(|&at| !buckets[at].is_empty())
        .collect();
    order.sort_by_key(|&at| std::cmp::Reverse(buckets[at].len()));
    let mut taken = vec![false; mask as usize + 1];
    for at in order {
        let bucket = &mut buckets[at];
        let unique = {
            bucket.sort_unstable_by_key(|slot| slot & mask);
            bucket
                .windows(2)
                .all(|pair| pair[0] & mask != pair[1] & mask)
        };
        if !unique {
            return None;
        }
        let displacement = (0..=mask).find(|&displacement| {
            bucket
                .iter()
                .all(|slot| !taken[(slot.wrapping_add(displacement) & mask) as usize])
        })?;
        for slot in bucket {
            taken[(slot.wrapping_add(displacement) & mask) as usize] = true;
        }
        displacements[at] = displacement;
    }
    Some(())
}
