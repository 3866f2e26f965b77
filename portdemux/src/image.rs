//! From a ruleset to the image of it that packets are decided by.

use std::{collections::HashMap, net::IpAddr};

use portdemux_common::{
    hash::{self, Hashed},
    ruleset::{
        Action, DISPLACEMENTS, Entry, RuleId, RulesetImage, Span, V4Place, V6Place, place, span_key,
    },
    wire::Port,
};

use crate::rules::{Destination, Malformed, Ruleset, claims::Segment};

/// Compiles a ruleset; `ids` are the ids of its rules, in their order.
///
/// Generation, hash of the text and the set of used ids are left to whoever puts it in force.
///
/// # Panics
///
/// There are fewer ids than rules.
#[must_use]
pub fn compile(ruleset: &Ruleset, ids: &[RuleId]) -> Box<RulesetImage> {
    let mut image: Box<RulesetImage> = bytemuck::zeroed_box();
    image.header.malformed_drop = match ruleset.defaults().malformed {
        Malformed::Drop => 1,
        Malformed::Pass => 0,
    };
    let entries: Vec<Entry> = ruleset
        .rules()
        .iter()
        .zip(ids)
        .map(|(rule, &id)| {
            let action = match rule.to {
                Destination::Local => Action::Local,
                Destination::Drop => Action::Drop,
            };
            Entry::new(id, action)
        })
        .collect();

    let claims = ruleset.claims();
    for segment in claims.any() {
        for port in segment.first..=segment.last {
            image.ports[Port::new(port).index(segment.transport)] = entries[segment.rule as usize];
        }
    }
    let (v4, v6) = place_spans(&mut image, claims.by_address(), &entries);
    place_v4(&mut image, &v4);
    place_v6(&mut image, &v6);
    image
}

/// An address and where its spans lie: index of the first, and how many.
type Placed<const N: usize> = ([u8; N], u32, u32);

/// Writes down the spans of every address; addresses that claim the same share them.
fn place_spans<'a>(
    image: &mut RulesetImage,
    addresses: impl Iterator<Item = (IpAddr, &'a [Segment])>,
    entries: &[Entry],
) -> (Vec<Placed<4>>, Vec<Placed<16>>) {
    let mut shared: HashMap<&[Segment], u32> = HashMap::new();
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for (address, segments) in addresses {
        let count = length(segments.len());
        let next = image.header.spans;
        let first = *shared.entry(segments).or_insert(next);
        if first == next {
            for (span, segment) in image.spans[next as usize..].iter_mut().zip(segments) {
                *span = Span {
                    first: span_key(segment.transport, Port::new(segment.first)),
                    last: span_key(segment.transport, Port::new(segment.last)),
                    entry: entries[segment.rule as usize],
                };
            }
            image.header.spans += count;
        }
        match address {
            IpAddr::V4(address) => v4.push((address.octets(), first, count)),
            IpAddr::V6(address) => v6.push((address.octets(), first, count)),
        }
    }
    (v4, v6)
}

fn place_v4(image: &mut RulesetImage, addresses: &[Placed<4>]) {
    let Some(table) = Table::build(addresses, hash::v4, &mut image.v4_displacements) else {
        return;
    };
    image.header.v4_seed = table.seed;
    image.header.v4_mask = table.mask;
    image.header.v4_bucket_mask = table.bucket_mask;
    for (&(address, first, count), place) in addresses.iter().zip(table.places) {
        image.v4[place] = V4Place {
            address,
            first,
            count,
        };
    }
}

fn place_v6(image: &mut RulesetImage, addresses: &[Placed<16>]) {
    let Some(table) = Table::build(addresses, hash::v6, &mut image.v6_displacements) else {
        return;
    };
    image.header.v6_seed = table.seed;
    image.header.v6_mask = table.mask;
    image.header.v6_bucket_mask = table.bucket_mask;
    for (&(address, first, count), place) in addresses.iter().zip(table.places) {
        image.v6[place] = V6Place {
            address,
            first,
            count,
        };
    }
}

/// A hash table in which no two addresses meet, so that a lookup looks at one place.
///
/// Hash and displace (Pagh 1999): addresses fall into buckets of about two, and each bucket, the
/// fullest first, gets a displacement under which all of its addresses land on free places. The
/// table is half full at most, so that a displacement is soon found; where two addresses of a bucket
/// hash to the same place under every displacement, another seed is taken.
struct Table {
    seed: u64,
    mask: u32,
    bucket_mask: u32,
    /// Where each address stands, in the order they came.
    places: Vec<usize>,
}

impl Table {
    /// Places addresses and writes down the displacements; nothing for no addresses.
    fn build<const N: usize>(
        addresses: &[Placed<N>],
        hash: impl Fn([u8; N], u64) -> Hashed,
        displacements: &mut [u32; DISPLACEMENTS],
    ) -> Option<Self> {
        if addresses.is_empty() {
            return None;
        }
        // At least two places: a mask of 0 says that there is no table.
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
                let places = hashed
                    .iter()
                    .map(|&hashed| place(displacements, hashed, bucket_mask, mask))
                    .collect();
                Some(Self {
                    seed,
                    mask,
                    bucket_mask,
                    places,
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
        buckets[(hashed.bucket & bucket_mask) as usize].push(hashed.place);
    }
    let mut order: Vec<usize> = (0..buckets.len())
        .filter(|&at| !buckets[at].is_empty())
        .collect();
    order.sort_by_key(|&at| std::cmp::Reverse(buckets[at].len()));
    let mut taken = vec![false; mask as usize + 1];
    for at in order {
        let bucket = &mut buckets[at];
        let unique = {
            bucket.sort_unstable_by_key(|place| place & mask);
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
                .all(|place| !taken[(place.wrapping_add(displacement) & mask) as usize])
        })?;
        for place in bucket {
            taken[(place.wrapping_add(displacement) & mask) as usize] = true;
        }
        displacements[at] = displacement;
    }
    Some(())
}

fn length(length: usize) -> u32 {
    u32::try_from(length).expect("invariant: a ruleset keeps the limits of its image")
}
