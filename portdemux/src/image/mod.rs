//! From a ruleset to the image of it that packets are decided by.

mod addresses;
#[cfg(test)]
mod lookups;
pub(crate) mod sources;
pub(crate) mod targets;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::HashMap,
    mem::offset_of,
    net::IpAddr,
    ops::{Deref, Range},
};

use anyhow::Result;
use ipnet::IpNet;
use portdemux_common::{
    capacity::{ADDRESS_SLOTS, CPU_SLOTS, DISPLACEMENTS, MAX_SPANS, PORT_SLOTS, RULE_SLOTS},
    entry::{Action, Entry},
    ids::RuleId,
    policy::{self, Fragments, Icmp, Policy},
    ruleset::{Head, Header, LINE, Part, RulesetImage, Span, TableIndex, V4Slot, V6Slot},
    target::Target,
    wire::{Port, Transport},
};

pub(crate) use self::addresses::claims;
use self::addresses::{ClaimedAddress, place_v4, place_v6};
pub use self::{
    sources::{Words, outline::Outline},
    targets::Destinations,
};
use crate::{
    clock::Clock,
    error::Help as _,
    rules::{
        Flows, Inbound, Malformed, Ruleset,
        claims::{Claims, Piece, Segment, overlay},
        until::Until,
    },
};

/// An image, and the tables of sources that belong to it.
#[derive(Clone)]
pub struct Compiled {
    /// The image.
    pub image: Box<RulesetImage>,
    /// The words of the tables, from [`portdemux_common::sources::Sources::begin`] on.
    pub sources: Vec<u64>,
    /// The destinations that have slots in the maps of targets.
    pub destinations: Destinations,
}

impl Compiled {
    /// The tables of sources at a time: `now` is `CLOCK_MONOTONIC` in nanoseconds.
    #[must_use]
    pub fn table(&self, now: u64) -> Words<'_> {
        Words {
            words: &self.sources,
            begin: self.image.header.sources.begin,
            now,
        }
    }

    /// The prefixes in one of its lists of sources now, in as few as say it.
    #[must_use]
    pub fn prefixes(&self, list: u16) -> Vec<IpNet> {
        let members = self.members(list, &Clock::now()).into_iter();
        let prefixes: Vec<IpNet> = members.map(|(prefix, _)| prefix).collect();
        IpNet::aggregate(&prefixes)
    }

    /// What its lists of sources are made of; nothing if an older build compiled it.
    #[must_use]
    pub fn outline(&self) -> Option<Outline> {
        Outline::read(&self.sources)
    }

    /// The prefixes in one of its lists of sources, in as few as say it, IPv4 first, and until when they are in it.
    #[must_use]
    pub fn members(&self, list: u16, clock: &Clock) -> Vec<(IpNet, Option<Until>)> {
        sources::members(&self.image.header.sources, &self.sources, list, clock)
    }
}

impl Deref for Compiled {
    type Target = RulesetImage;

    fn deref(&self) -> &RulesetImage {
        &self.image
    }
}

/// Compiles a ruleset; `ids` are the ids of its rules, in their order.
///
/// Generation, hash of the text, the set of used ids, where the tables of sources lie and the slots of
/// destinations are left to whoever puts it in force.
///
/// # Errors
///
/// The lists of sources take more room than there is.
///
/// # Panics
///
/// There are fewer ids than rules.
pub fn compile(ruleset: &Ruleset, ids: &[RuleId]) -> Result<Compiled> {
    let mut image: Box<RulesetImage> = bytemuck::zeroed_box();
    image.header.defaults = defaults(ruleset);
    if let Some(flows) = ruleset.flows() {
        image.header.flows = flows.size;
        image.header.half_open = flows.half_open;
    }
    let policies: Vec<Policy> = (0..ids.len()).map(|slot| ruleset.policy(slot)).collect();
    let entries: Vec<Entry> = ruleset
        .rules()
        .iter()
        .zip(ids)
        .zip(&policies)
        .map(|((rule, &id), policy)| {
            let entry = Entry::new(id, rule.to.action());
            if *policy == Policy::default() {
                entry
            } else {
                entry.conditional()
            }
        })
        .collect();

    place_ports(&mut image.ports, ruleset.claims(), &entries);
    place_ports(&mut image.source_ports, ruleset.source_claims(), &entries);
    place_ports(&mut image.shadow_ports, ruleset.shadow_claims(), &entries);
    image.header.source_claims = u32::from(!ruleset.source_claims().is_empty());
    image.header.shadow_claims = u32::from(!ruleset.shadow_claims().is_empty());
    let (v4, v6) = place_spans(&mut image, ruleset.by_address(), &entries);
    place_v4(&mut image, &v4);
    place_v6(&mut image, &v6);
    let claims_addresses = !v4.is_empty() || !v6.is_empty();
    let header = &mut image.header;
    let defaults = &header.defaults;
    let tracks = defaults.flows != 0 || defaults.fragments == Fragments::Track as u32;
    header.further_claims = match header.source_claims | header.shadow_claims {
        0 if claims_addresses && !tracks => Header::ADDRESSES_ALONE,
        others => u32::from(claims_addresses) | others,
    };
    open(&mut image, ruleset);
    if claims_addresses {
        addresses::bring_near(&mut image);
    }
    for (&policy, &id) in policies.iter().zip(ids) {
        if policy != Policy::default() {
            image.policies[id as usize] = policy;
            image.header.policies = image.header.policies.max(id + 1);
        }
    }
    let destinations = targets::assign(&mut image, ruleset.rules(), ids);
    let (header, sources) = sources::compile(ruleset).help(|| {
        "join prefixes to shorter ones, or let rules share a set; nothing was changed".into()
    })?;
    image.header.sources = header;
    Ok(Compiled {
        image,
        sources,
        destinations,
    })
}

fn defaults(ruleset: &Ruleset) -> policy::Defaults {
    let defaults = ruleset.defaults();
    let tracks = ruleset.flows().is_some();
    let asks_more = tracks || defaults.fragments != Fragments::Pass || defaults.icmp != Icmp::Pass;
    policy::Defaults {
        inbound: match defaults.inbound {
            Inbound::Pass => Action::Local,
            Inbound::Drop => Action::Drop,
            Inbound::Reject => Action::Reject,
        } as u32,
        malformed_pass: match defaults.malformed {
            Malformed::Drop => 0,
            Malformed::Pass => 1,
        },
        fragments: defaults.fragments as u32,
        icmp: defaults.icmp as u32,
        flows: u32::from(tracks),
        portless_open: u32::from(asks_more),
        reserved: 0,
        timeouts: ruleset.flows().map(Flows::ticks).unwrap_or_default(),
    }
}

/// Writes down the claims of ports at any address.
fn place_ports(table: &mut [Entry; PORT_SLOTS], claims: &Claims, entries: &[Entry]) {
    for segment in claims.any() {
        for port in segment.first..=segment.last {
            table[Port::new(port).index(segment.transport)] = entries[segment.rule as usize];
        }
    }
}

/// Marks the ports about whose packets more than their number decides; those that are claimed at an
/// address are marked already.
fn open(image: &mut RulesetImage, ruleset: &Ruleset) {
    let tracks_flows = ruleset.flows().is_some();
    let asks_peers = |transport| {
        let mut segments = ruleset.source_claims().any().iter();
        segments.any(|segment| segment.transport == transport)
    };
    for transport in Transport::ALL {
        let if_unclaimed = tracks_flows || asks_peers(transport);
        for port in 0..=u16::MAX {
            let entry = &mut image.ports[Port::new(port).index(transport)];
            let is_open = if entry.is_claimed() {
                tracks_flows || entry.is_conditional() || !entry.action().is_final()
            } else {
                if_unclaimed
            };
            if is_open {
                *entry = entry.open();
            }
        }
    }
    for segment in ruleset.shadow_claims().any() {
        for port in segment.first..=segment.last {
            let entry = &mut image.ports[Port::new(port).index(segment.transport)];
            *entry = entry.open();
        }
    }
}

/// Where the tables of an image with this header lie in a map, one behind the other, from whatever line on.
#[must_use]
pub fn index(header: &Header) -> TableIndex {
    let mut index = TableIndex::default();
    let [_, tables @ ..] = parts(header);
    for (first, table) in index.parts.iter_mut().zip(&tables) {
        *first = index.words;
        index.words += length(table.len().next_multiple_of(LINE));
    }
    index
}

/// The parts of an image that a decision under this header can read, as ranges of 64-bit words: the head, and each
/// [`Part`]. What lies between them has no meaning.
///
/// An image has nine megabytes, most rulesets need one of them.
#[must_use]
pub fn parts(header: &Header) -> [Range<usize>; 1 + Part::COUNT] {
    fn part(start: usize, size: usize, count: usize, most: usize) -> (usize, usize) {
        (start, size * count.min(most))
    }
    let buckets = |start, mask: u32, slots: usize| {
        let count = if slots == 0 { 0 } else { mask as usize + 1 };
        part(start, size_of::<u32>(), count, DISPLACEMENTS)
    };
    let claims = [
        (0, size_of::<Head>()),
        buckets(
            offset_of!(RulesetImage, v4_displacements),
            header.v4_bucket_mask,
            header.v4_slots(),
        ),
        buckets(
            offset_of!(RulesetImage, v6_displacements),
            header.v6_bucket_mask,
            header.v6_slots(),
        ),
        part(
            offset_of!(RulesetImage, v4),
            size_of::<V4Slot>(),
            header.v4_slots(),
            ADDRESS_SLOTS,
        ),
        part(
            offset_of!(RulesetImage, v6),
            size_of::<V6Slot>(),
            header.v6_slots(),
            ADDRESS_SLOTS,
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
            header.source_claims as usize * PORT_SLOTS,
            PORT_SLOTS,
        ),
        part(
            offset_of!(RulesetImage, shadow_ports),
            size_of::<Entry>(),
            header.shadow_claims as usize * PORT_SLOTS,
            PORT_SLOTS,
        ),
        part(
            offset_of!(RulesetImage, policies),
            size_of::<Policy>(),
            header.policies as usize,
            RULE_SLOTS,
        ),
        part(
            offset_of!(RulesetImage, targets),
            size_of::<Target>(),
            header.targets as usize,
            RULE_SLOTS,
        ),
        part(
            offset_of!(RulesetImage, cpus),
            size_of::<u16>(),
            header.cpus as usize,
            CPU_SLOTS,
        ),
    ];
    claims.map(|(start, length)| {
        let words = size_of::<u64>();
        start / words..(start + length).div_ceil(words)
    })
}

/// Writes down the spans of every address; addresses that claim the same share them. Their ports are
/// marked as open.
fn place_spans<'a>(
    image: &mut RulesetImage,
    addresses: impl Iterator<Item = (IpAddr, &'a [Segment], &'a [Segment])>,
    entries: &[Entry],
) -> (Vec<ClaimedAddress<4>>, Vec<ClaimedAddress<16>>) {
    let mut shared: HashMap<[&[Segment]; 2], (u32, u32)> = HashMap::new();
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    let entry = |rule: Option<u32>| rule.map_or(Entry::UNCLAIMED, |rule| entries[rule as usize]);
    for (address, rules, shadows) in addresses {
        let (first, count) = *shared.entry([rules, shadows]).or_insert_with(|| {
            let pieces = overlay(rules, shadows);
            let first = image.header.spans;
            for (span, piece) in image.spans[first as usize..].iter_mut().zip(&pieces) {
                let Piece {
                    first,
                    last,
                    rule,
                    shadow,
                } = *piece;
                *span = Span {
                    first,
                    last,
                    entry: entry(rule),
                    shadow: entry(shadow),
                };
            }
            for segment in rules.iter().chain(shadows) {
                for port in segment.first..=segment.last {
                    let entry = &mut image.ports[Port::new(port).index(segment.transport)];
                    *entry = entry.open();
                }
            }
            let count = length(pieces.len());
            image.header.spans += count;
            (first, count)
        });
        match address {
            IpAddr::V4(address) => v4.push((address.octets(), first, count)),
            IpAddr::V6(address) => v6.push((address.octets(), first, count)),
        }
    }
    (v4, v6)
}

fn length(length: usize) -> u32 {
    u32::try_from(length).expect("invariant: a ruleset keeps the limits of its image")
}
