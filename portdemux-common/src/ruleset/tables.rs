//! What a decision asks of a ruleset, wherever its tables lie.

use core::hint::cold_path;

use super::{Claim, Claims, Header, RulesetImage, Span, V4Slot, V6Slot, slot, span_key};
use crate::{
    capacity::MAX_SPANS,
    entry::Entry,
    hash,
    ids::RuleId,
    limits::RateKind,
    parse::{Address, Ports, Version},
    policy::{Policy, Rate},
    target::Target,
};

/// Steps in which a binary search over [`MAX_SPANS`] spans ends.
const SEARCH_STEPS: usize = MAX_SPANS.ilog2() as usize + 1;

/// The slots that a search can come to.
const SEARCH_MASK: usize = MAX_SPANS - 1;

/// A compiled ruleset, wherever its tables lie.
pub trait RulesetTables {
    /// Sizes, seeds and defaults.
    fn header(&self) -> &Header;

    /// An element of [`RulesetImage::v4_displacements`] or [`RulesetImage::v6_displacements`], wherever it stands.
    fn displacement(&self, version: Version, bucket: usize) -> Option<u32>;

    /// An element of [`RulesetImage::v4`].
    fn v4(&self, slot: usize) -> Option<&V4Slot>;

    /// An element of [`RulesetImage::v6`].
    fn v6(&self, slot: usize) -> Option<&V6Slot>;

    /// An element of [`RulesetImage::spans`].
    fn span(&self, at: usize) -> Option<&Span>;

    /// What the rules that name this IPv4 address say about a port, by its [`span_key`].
    #[inline(always)]
    fn at_v4(&self, address: [u8; 4], key: u32) -> Claim {
        find_v4(self, address, key)
    }

    /// What the rules that name this IPv6 address say about a port, by its [`span_key`].
    #[inline(always)]
    fn at_v6(&self, address: [u8; 16], key: u32) -> Claim {
        find_v6(self, address, key)
    }

    /// Finds the span of `count` spans from `first` on that holds a port, by its [`span_key`].
    #[inline(always)]
    fn search(&self, first: u32, count: u32, key: u32) -> Claim {
        search(self, first, count, key)
    }

    /// What the rules that name this address say about a packet's ports.
    #[inline(always)]
    fn at_address(&self, address: Address, ports: Ports) -> Claim {
        let key = span_key(ports.transport, ports.destination);
        match address {
            Address::V4(address) => self.at_v4(address, key),
            Address::V6(address) => self.at_v6(address, key),
        }
    }

    /// What the rules that name no address say about a port, by [`crate::wire::Port::index`].
    fn port(&self, index: usize) -> Option<Entry>;

    /// An element of [`RulesetImage::source_ports`].
    fn source_port(&self, index: usize) -> Option<Entry>;

    /// An element of [`RulesetImage::shadow_ports`].
    fn shadow_port(&self, index: usize) -> Option<Entry>;

    /// An element of [`RulesetImage::policies`], without its rates: they are asked for where there are some.
    fn terms(&self, rule: RuleId) -> Option<Policy>;

    /// A rate of an element of [`RulesetImage::policies`].
    fn rate(&self, rule: RuleId, kind: RateKind) -> Option<Rate>;

    /// An element of [`RulesetImage::targets`].
    fn target(&self, rule: RuleId) -> Option<&Target>;

    /// An element of [`RulesetImage::cpus`].
    fn cpu(&self, at: usize) -> Option<u16>;

    /// What the rules that name no address say about a packet's ports.
    #[inline(always)]
    fn at_any_address(&self, ports: Ports) -> Entry {
        match self.port(ports.destination.index(ports.transport)) {
            Some(entry) => entry,
            None => Entry::UNCLAIMED,
        }
    }
}

/// Looks a port up among the claims of an IPv4 address.
#[inline(always)]
pub fn find_v4<R: RulesetTables + ?Sized>(tables: &R, address: [u8; 4], key: u32) -> Claim {
    let header = tables.header();
    if header.v4_mask == 0 {
        return Claim::NONE;
    }
    let hashed = hash::v4(address, header.v4_seed);
    let bucket = (hashed.bucket & header.v4_bucket_mask) as usize;
    let Some(displacement) = tables.displacement(Version::V4, bucket) else {
        return Claim::NONE;
    };
    match tables.v4(slot(hashed, displacement, header.v4_mask)) {
        Some(slot) if slot.address == address => claimed(tables, &slot.claims, key),
        _ => Claim::NONE,
    }
}

/// Looks a port up among the claims of an IPv6 address.
#[inline(always)]
pub fn find_v6<R: RulesetTables + ?Sized>(tables: &R, address: [u8; 16], key: u32) -> Claim {
    let header = tables.header();
    if header.v6_mask == 0 {
        return Claim::NONE;
    }
    let hashed = hash::v6(address, header.v6_seed);
    let bucket = (hashed.bucket & header.v6_bucket_mask) as usize;
    let Some(displacement) = tables.displacement(Version::V6, bucket) else {
        return Claim::NONE;
    };
    match tables.v6(slot(hashed, displacement, header.v6_mask)) {
        Some(slot) if u128::from_ne_bytes(slot.address) == u128::from_ne_bytes(address) => {
            claimed(tables, &slot.claims, key)
        }
        _ => Claim::NONE,
    }
}

/// What an address claims of a port.
#[inline(always)]
fn claimed<R: RulesetTables + ?Sized>(tables: &R, claims: &Claims, key: u32) -> Claim {
    if claims.count == 1 {
        return claims.span.claim(key);
    }
    cold_path();
    tables.search(claims.first, claims.count, key)
}

/// Finds the span of `count` spans from `first` on that holds a port.
#[inline(always)]
pub fn search<R: RulesetTables + ?Sized>(tables: &R, first: u32, count: u32, key: u32) -> Claim {
    let mut base = first as usize & SEARCH_MASK;
    let mut left = count as usize;
    // The last span that begins at or before the key lies in [base, base + left).
    for _ in 0..SEARCH_STEPS {
        if left <= 1 {
            break;
        }
        let half = left / 2;
        // Masked, so that the verifier takes all ways to here for one: the bounds of the slot are
        // the same whichever half it is in.
        let at = (base + half) & SEARCH_MASK;
        match tables.span(at) {
            Some(span) if span.first <= key => base = at,
            Some(_) => {}
            None => return Claim::NONE,
        }
        left -= half;
    }
    match tables.span(base) {
        Some(span) if left == 1 => span.claim(key),
        _ => Claim::NONE,
    }
}

impl RulesetTables for RulesetImage {
    fn header(&self) -> &Header {
        &self.head.header
    }

    fn displacement(&self, version: Version, bucket: usize) -> Option<u32> {
        let displacements = match version {
            Version::V4 => &self.v4_displacements,
            Version::V6 => &self.v6_displacements,
        };
        displacements.get(bucket).copied()
    }

    fn v4(&self, slot: usize) -> Option<&V4Slot> {
        self.v4.get(slot)
    }

    fn v6(&self, slot: usize) -> Option<&V6Slot> {
        self.v6.get(slot)
    }

    fn span(&self, at: usize) -> Option<&Span> {
        self.spans.get(at)
    }

    fn port(&self, index: usize) -> Option<Entry> {
        self.ports.get(index).copied()
    }

    fn source_port(&self, index: usize) -> Option<Entry> {
        self.source_ports.get(index).copied()
    }

    fn shadow_port(&self, index: usize) -> Option<Entry> {
        self.shadow_ports.get(index).copied()
    }

    fn terms(&self, rule: RuleId) -> Option<Policy> {
        self.policies.get(rule as usize).map(|policy| Policy {
            rate: Rate::default(),
            new_rate: Rate::default(),
            ..*policy
        })
    }

    fn rate(&self, rule: RuleId, kind: RateKind) -> Option<Rate> {
        self.policies.get(rule as usize).map(|policy| match kind {
            RateKind::Packets => policy.rate,
            RateKind::Flows => policy.new_rate,
        })
    }

    fn target(&self, rule: RuleId) -> Option<&Target> {
        self.targets.get(rule as usize)
    }

    fn cpu(&self, at: usize) -> Option<u16> {
        self.cpus.get(at).copied()
    }
}
