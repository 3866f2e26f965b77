//! From a ruleset to the image of it that packets are decided by.

mod sources;

use std::{collections::HashMap, mem::offset_of, net::IpAddr, ops::Range};

use ipnet::IpNet;
use portdemux_common::{
    hash::{self, Hashed},
    policy::Policy,
    ruleset::{
        ADDRESS_PLACES, Action, DISPLACEMENTS, Entry, Header, MAX_SPANS, PORT_PLACES, RULE_PLACES,
        RuleId, RulesetImage, Span, V4Place, V6Place, place, span_key,
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
    image.header.defaults.malformed_pass = match ruleset.defaults().malformed {
        Malformed::Drop => 0,
        Malformed::Pass => 1,
    };
    let entries: Vec<Entry> = ruleset
        .rules()
        .iter()
        .zip(ids)
        .enumerate()
        .map(|(place, (rule, &id))| {
            let action = match rule.to {
                Destination::Local => Action::Local,
                Destination::Drop => Action::Drop,
            };
            let entry = Entry::new(id, action);
            if ruleset.lists().policy(place) == Policy::default() {
                entry
            } else {
                entry.conditional()
            }
        })
        .collect();

    let claims = ruleset.claims();
    for segment in claims.any() {
        for port in segment.first..=segment.last {
            let entry = entries[segment.rule as usize];
            image.ports[Port::new(port).index(segment.transport)] = if entry.is_conditional() {
                entry.open()
            } else {
                entry
            };
        }
    }
    let (v4, v6) = place_spans(&mut image, claims.by_address(), &entries);
    place_v4(&mut image, &v4);
    place_v6(&mut image, &v6);
    for (place, &id) in ids.iter().enumerate() {
        let policy = ruleset.lists().policy(place);
        if policy != Policy::default() {
            image.policies[id as usize] = policy;
            image.header.policies = image.header.policies.max(id + 1);
        }
    }
    sources::place(&mut image, ruleset.lists());
    image
}

/// The parts of an image that a decision under this header can read, as ranges of 64-bit words; what
/// lies between them has no meaning.
///
/// An image has nine megabytes, most rulesets need one of them.
#[must_use]
pub fn parts(header: &Header) -> Vec<Range<usize>> {
    fn part(start: usize, size: usize, count: usize, most: usize) -> (usize, usize) {
        (start, size * count.min(most))
    }
    let places = |mask: u32| mask as usize + 1;
    let buckets = |start, mask| part(start, size_of::<u32>(), places(mask), DISPLACEMENTS);
    let claims = [
        (0, offset_of!(RulesetImage, v4_displacements)),
        buckets(
            offset_of!(RulesetImage, v4_displacements),
            header.v4_bucket_mask,
        ),
        buckets(
            offset_of!(RulesetImage, v6_displacements),
            header.v6_bucket_mask,
        ),
        part(
            offset_of!(RulesetImage, v4),
            size_of::<V4Place>(),
            places(header.v4_mask),
            ADDRESS_PLACES,
        ),
        part(
            offset_of!(RulesetImage, v6),
            size_of::<V6Place>(),
            places(header.v6_mask),
            ADDRESS_PLACES,
        ),
        part(
            offset_of!(RulesetImage, spans),
            size_of::<Span>(),
            header.spans as usize,
            MAX_SPANS,
        ),
        part(
            offset_of!(RulesetImage, source_ports),
            size_of::<Entry>(),
            header.source_claims as usize * PORT_PLACES,
            PORT_PLACES,
        ),
        part(
            offset_of!(RulesetImage, shadow_ports),
            size_of::<Entry>(),
            header.shadow_claims as usize * PORT_PLACES,
            PORT_PLACES,
        ),
        part(
            offset_of!(RulesetImage, policies),
            size_of::<Policy>(),
            header.policies as usize,
            RULE_PLACES,
        ),
    ];
    let sources = sources::parts(&header.sources)
        .map(|(start, length)| (offset_of!(RulesetImage, sources) + start, length));
    claims
        .into_iter()
        .chain(sources)
        .map(|(start, length)| {
            let words = size_of::<u64>();
            start / words..(start + length).div_ceil(words)
        })
        .collect()
}

/// The prefixes that an image has in one of its lists of sources, in as few as say it, IPv4 first.
#[must_use]
pub fn prefixes(image: &RulesetImage, list: u16) -> Vec<IpNet> {
    sources::prefixes(image, list)
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
            for segment in segments {
                for port in segment.first..=segment.last {
                    let entry = &mut image.ports[Port::new(port).index(segment.transport)];
                    *entry = entry.open();
                }
            }
            for (span, segment) in image.spans[next as usize..].iter_mut().zip(segments) {
                *span = Span {
                    first: span_key(segment.transport, Port::new(segment.first)),
                    last: span_key(segment.transport, Port::new(segment.last)),
                    entry: entries[segment.rule as usize],
                    shadow: Entry::UNCLAIMED,
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use portdemux_common::{
        parse::{Address, Ports},
        wire::Transport,
    };
    use proptest::prelude::*;

    use super::*;
    use crate::rules::{Defaults, PortRange, Rule};

    fn addresses() -> Vec<IpAddr> {
        let v4 = (1..=6).map(|last| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)));
        let v6 = (1..=6).map(|last| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)));
        v4.chain(v6).collect()
    }

    fn ranges() -> impl Strategy<Value = PortRange> {
        let port = prop_oneof![Just(0u16), Just(u16::MAX), 440..450u16, any::<u16>()];
        (0..3usize, port.clone(), port).prop_map(|(transport, one, other)| PortRange {
            transport: Transport::ALL[transport],
            first: one.min(other),
            last: one.max(other),
        })
    }

    fn rules() -> impl Strategy<Value = Vec<Rule>> {
        let addresses = prop::collection::vec(prop::sample::select(addresses()), 0..3);
        let rule = (
            prop::collection::vec(ranges(), 1..3),
            addresses,
            any::<bool>(),
        );
        prop::collection::vec(rule, 0..12).prop_map(|rules| {
            let mut kept: Vec<Rule> = Vec::new();
            for (place, (ports, addresses, drops)) in rules.into_iter().enumerate() {
                let to = if drops {
                    Destination::Drop
                } else {
                    Destination::Local
                };
                let rule = Rule {
                    name: format!("r{place}"),
                    ports,
                    addresses,
                    to,
                    ..Rule::default()
                };
                // A rule that clashes with those before it is left out.
                let mut with = kept.clone();
                with.push(rule);
                if Ruleset::new(Defaults::default(), with.clone()).is_ok() {
                    kept = with;
                }
            }
            kept
        })
    }

    fn packed(address: IpAddr) -> Address {
        match address {
            IpAddr::V4(address) => Address::V4(address.octets()),
            IpAddr::V6(address) => Address::V6(address.octets()),
        }
    }

    /// What the image says about an entry point: the id of the rule, and whether it drops.
    fn look(image: &RulesetImage, address: IpAddr, transport: Transport, port: u16) -> Option<u32> {
        let ports = Ports {
            transport,
            source: Port::new(1),
            destination: Port::new(port),
        };
        let entry = image.lookup(Some(packed(address)), ports);
        entry.is_claimed().then(|| entry.rule())
    }

    proptest! {
        #[test]
        fn an_image_gives_every_port_to_the_rule_that_the_claims_give_it_to(
            rules in rules(),
            ports in prop::collection::vec(prop_oneof![438..452u16, any::<u16>()], 8),
            base in 0..100_000u32,
        ) {
            let ruleset = Ruleset::new(Defaults::default(), rules).unwrap();
            let ids: Vec<u32> = (base..).step_by(3).take(ruleset.rules().len()).collect();
            let image = compile(&ruleset, &ids);
            let elsewhere = [IpAddr::V4(Ipv4Addr::BROADCAST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            let edges = ruleset.rules().iter().flat_map(|rule| &rule.ports).flat_map(|range| {
                [range.first.saturating_sub(1), range.first, range.last, range.last.saturating_add(1)]
            });
            let ports: Vec<u16> = edges.chain(ports).collect();
            for address in addresses().into_iter().chain(elsewhere) {
                for transport in Transport::ALL {
                    for &port in &ports {
                        let claimed = ruleset.claims().rule_at(address, transport, port);
                        let expected = claimed.map(|rule| ids[rule as usize]);
                        prop_assert_eq!(look(&image, address, transport, port), expected);
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_parts_of_an_image_written_over_another_decide_as_on_their_own(
            old in rules(),
            new in rules(),
            ports in prop::collection::vec(prop_oneof![438..452u16, any::<u16>()], 8),
        ) {
            let compile = |rules| {
                let ruleset = Ruleset::new(Defaults::default(), rules).unwrap();
                let ids: Vec<u32> = (0..).take(ruleset.rules().len()).collect();
                compile(&ruleset, &ids)
            };
            let (mut over, new) = (compile(old), compile(new));
            let words: &[u64] = bytemuck::cast_slice(std::slice::from_ref(&*new));
            let over_words: &mut [u64] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut *over));
            for part in parts(&new.header) {
                over_words[part.clone()].copy_from_slice(&words[part]);
            }
            prop_assert_eq!(over.header, new.header);
            let elsewhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
            for address in addresses().into_iter().chain(elsewhere) {
                for transport in Transport::ALL {
                    for &port in &ports {
                        prop_assert_eq!(
                            look(&over, address, transport, port),
                            look(&new, address, transport, port)
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_most_addresses_that_can_be_claimed_are_all_found_and_no_others() {
        let v4 = |number: u32| IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number * 3));
        let v6 = |number: u32| IpAddr::V6(Ipv6Addr::from(u128::from(number) << 64 | 1));
        let all = |address: fn(u32) -> IpAddr| (0..1 << 16).map(address);
        let addresses = all(v4).chain(all(v6)).collect();
        let port = PortRange {
            transport: Transport::Tcp,
            first: 443,
            last: 443,
        };
        let rule = Rule {
            name: "all".into(),
            ports: vec![port],
            addresses,
            ..Rule::default()
        };
        let ruleset = Ruleset::new(Defaults::default(), vec![rule]).unwrap();
        let image = compile(&ruleset, &[7]);
        assert_eq!(
            image.header.spans, 1,
            "addresses that claim the same share their spans"
        );
        for number in 0..1 << 16 {
            for address in [v4(number), v6(number)] {
                assert_eq!(look(&image, address, Transport::Tcp, 443), Some(7));
                assert_eq!(look(&image, address, Transport::Tcp, 444), None);
                assert_eq!(look(&image, address, Transport::Udp, 443), None);
            }
            let neighbour = IpAddr::V4(Ipv4Addr::from(0x0a00_0001 + number * 3));
            assert_eq!(look(&image, neighbour, Transport::Tcp, 443), None);
        }
    }

    #[test]
    fn an_entry_keeps_the_highest_id_and_its_action() {
        for action in [Action::Local, Action::Drop] {
            let entry = Entry::new((1 << 17) - 1, action);
            assert!(entry.is_claimed());
            assert_eq!(entry.rule(), (1 << 17) - 1);
            assert_eq!(entry.action(), action);
        }
        assert!(!Entry::UNCLAIMED.is_claimed());
    }
}
