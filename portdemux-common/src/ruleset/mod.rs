//! A compiled ruleset: the one value that a packet's decision reads.
//!
//! User space builds the image, the kernel reads it, and so does everything on the host that wants
//! to know what the kernel would do. Two images lie side by side in one map; [`crate::state`] says
//! which of them is in force. An image that is in force is never written.

mod entry;

use bytemuck::{Pod, Zeroable};

pub use self::entry::{Action, Entry};
use crate::{
    destination::{CPU_PLACES, Target},
    hash::{self, Hashed},
    parse::{Address, Ports, Version},
    policy::{Defaults, Policy},
    sources::Sources,
    state::Generation,
    wire::{Port, Transport},
};

/// How many rules a ruleset can have.
pub const MAX_RULES: usize = 1 << 16;
/// Places for rules: twice as many, so that all rules can be exchanged for others in one step while
/// both still have counters of their own.
pub const RULE_PLACES: usize = 2 * MAX_RULES;
/// How many distinct addresses of each family the rules can claim.
pub const MAX_ADDRESSES: usize = 1 << 16;
/// Places for addresses of each family: twice as many as addresses, so that building is quick.
pub const ADDRESS_PLACES: usize = 2 * MAX_ADDRESSES;
/// Displacements of each family.
pub const DISPLACEMENTS: usize = MAX_ADDRESSES / 2;
/// How many spans of ports the claims of all addresses can have.
pub const MAX_SPANS: usize = 1 << 18;
/// Places for ports: four protocols' worth, so that an image's parts are aligned to pages.
pub const PORT_PLACES: usize = 4 << 16;

/// Steps in which a binary search over [`MAX_SPANS`] spans ends.
const SEARCH_STEPS: usize = MAX_SPANS.ilog2() as usize + 1;

/// The places that a search can come to.
const SEARCH_MASK: usize = MAX_SPANS - 1;

/// The id of a rule, which is the index of its counters, below [`RULE_PLACES`].
pub type RuleId = u32;

/// A set of rule ids, a bit each.
pub type RuleSet = [u64; RULE_PLACES / 64];

/// What the image holds and the defaults of the ruleset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Header {
    /// The ruleset's generation.
    pub generation: u64,
    /// Hash of the ruleset's text, to find the record that belongs to it.
    pub text_hash: [u8; 32],
    /// Seed under which the IPv4 addresses were placed.
    pub v4_seed: u64,
    /// Seed under which the IPv6 addresses were placed.
    pub v6_seed: u64,
    /// Number of IPv4 places less one, a power of two less one; 0 if no rule claims an IPv4 address.
    pub v4_mask: u32,
    /// Number of IPv6 places less one, a power of two less one; 0 if no rule claims an IPv6 address.
    pub v6_mask: u32,
    /// Number of IPv4 displacements less one.
    pub v4_bucket_mask: u32,
    /// Number of IPv6 displacements less one.
    pub v6_bucket_mask: u32,
    /// Number of spans.
    pub spans: u32,
    /// 1 if any rule claims ports by the peer's port.
    pub source_claims: u32,
    /// 1 if any rule is a shadow.
    pub shadow_claims: u32,
    /// 1 if a table of claims is to be asked besides that of ports: of addresses, of peers' ports, of shadows.
    pub further_claims: u32,
    /// What happens to traffic that no rule claims.
    pub defaults: Defaults,
    /// Where the tables are that say which sources are in which lists.
    pub sources: Sources,
    /// How many flows are to be remembered; 0 if none are.
    pub flows: u32,
    /// How many half-open flows are to be remembered; 0 if none are.
    pub half_open: u32,
    /// What the hashes of sources with a rate each depend on: a secret of the instance.
    pub limits_seed: u64,
    /// How many places of the policies have a meaning.
    pub policies: u32,
    /// How many places of the targets have a meaning.
    pub targets: u32,
    /// How many places of the CPUs have a meaning.
    pub cpus: u32,
    /// Fills the header up to a multiple of 64 bytes.
    pub reserved: [u32; 9],
}

/// A claimed address and where the spans of its ports lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct V4Place {
    /// The address, big-endian.
    pub address: [u8; 4],
    /// Index of its first span.
    pub first: u32,
    /// How many spans it has; 0 for an empty place.
    pub count: u32,
}

/// A claimed address and where the spans of its ports lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct V6Place {
    /// The address, big-endian.
    pub address: [u8; 16],
    /// Index of its first span.
    pub first: u32,
    /// How many spans it has; 0 for an empty place.
    pub count: u32,
}

/// Neighbouring ports of one protocol that one rule claims at an address.
///
/// Ends are [`span_key`]s. An address's spans ascend and do not overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Span {
    /// The first port.
    pub first: u32,
    /// The last port.
    pub last: u32,
    /// Whose they are.
    pub entry: Entry,
    /// Which shadow they are, if any.
    pub shadow: Entry,
}

/// Whose a port is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// The rule's.
    pub entry: Entry,
    /// The shadow's.
    pub shadow: Entry,
}

impl Claim {
    /// Nobody's.
    pub const NONE: Self = Self {
        entry: Entry::UNCLAIMED,
        shadow: Entry::UNCLAIMED,
    };
}

/// A compiled ruleset. All zeros are the ruleset without rules.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct RulesetImage {
    /// Sizes, seeds and defaults.
    pub header: Header,
    /// Which rule ids the ruleset uses, a bit each; those of rules that never win a port too.
    pub rules: RuleSet,
    /// The claims of ports at any address, by [`Port::index`]. An entry is open if more is to be asked
    /// about the port: a claim of it at some address, or the terms of the rule that claims it.
    pub ports: [Entry; PORT_PLACES],
    /// Displacements of IPv4 buckets.
    pub v4_displacements: [u32; DISPLACEMENTS],
    /// Displacements of IPv6 buckets.
    pub v6_displacements: [u32; DISPLACEMENTS],
    /// IPv4 addresses.
    pub v4: [V4Place; ADDRESS_PLACES],
    /// IPv6 addresses.
    pub v6: [V6Place; ADDRESS_PLACES],
    /// The claims of ports at one address.
    pub spans: [Span; MAX_SPANS],
    /// The claims of ports by the peer's port, by [`Port::index`].
    pub source_ports: [Entry; PORT_PLACES],
    /// The claims of ports at any address by shadows, by [`Port::index`].
    pub shadow_ports: [Entry; PORT_PLACES],
    /// What rules ask, by rule id.
    pub policies: [Policy; RULE_PLACES],
    /// Which destinations rules have, by rule id.
    pub targets: [Target; RULE_PLACES],
    /// The lists of CPUs that are destinations, one behind the other.
    pub cpus: [u16; CPU_PLACES],
}

/// Two compiled rulesets and which of them is in force.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Rulesets {
    /// The generation in force.
    pub generation: Generation,
    /// Fills the line of the cache, which every packet reads.
    pub reserved: [u64; 7],
    /// The images; [`Generation::half`] says which is in force.
    pub images: [RulesetImage; 2],
}

impl Rulesets {
    /// The ruleset of a generation: of the one in force, which is read once for a packet, or of the one
    /// before.
    #[inline(always)]
    #[must_use]
    pub fn of(&self, generation: Generation) -> &RulesetImage {
        // By an index and not by a branch, so that the verifier has one way to go on and not two.
        let [even, _] = &self.images;
        match self.images.get(generation.half() as usize) {
            Some(image) => image,
            None => even,
        }
    }
}

const _: () = {
    assert!(Entry::RULE as usize == RULE_PLACES - 1);
    assert!(size_of::<Header>() == 256 && align_of::<Header>() == 8);
    assert!(size_of::<V4Place>() == 12 && size_of::<V6Place>() == 24 && size_of::<Span>() == 16);
    assert!(size_of::<RulesetImage>().is_multiple_of(64) && align_of::<RulesetImage>() == 8);
};

/// A port as spans are ordered: by protocol, then by number.
#[inline(always)]
#[must_use]
pub const fn span_key(transport: Transport, port: Port) -> u32 {
    (transport as u32) << 16 | port.number() as u32
}

impl RulesetImage {
    /// Whether any rule claims an address of this version.
    #[inline(always)]
    #[must_use]
    pub const fn claims_addresses(&self, version: Version) -> bool {
        match version {
            Version::V4 => self.header.v4_mask != 0,
            Version::V6 => self.header.v6_mask != 0,
        }
    }

    /// What the rules say about the ports of a packet for `destination`: a claim of this very
    /// address, else one of any address, else nothing.
    #[must_use]
    pub fn lookup(&self, destination: Option<Address>, ports: Ports) -> Entry {
        let exact = match destination {
            Some(Address::V4(address)) => self.at_v4(address, ports),
            Some(Address::V6(address)) => self.at_v6(address, ports),
            None => Claim::NONE,
        };
        exact.entry.or_else(|| self.at_any_address(ports))
    }

    /// What the rules that name no address say about a packet's ports.
    #[inline(always)]
    #[must_use]
    pub fn at_any_address(&self, ports: Ports) -> Entry {
        match self.ports.get(ports.destination.index(ports.transport)) {
            Some(&entry) => entry,
            None => Entry::UNCLAIMED,
        }
    }

    /// What the rules that name this IPv4 address say about a packet's ports.
    #[inline(always)]
    #[must_use]
    pub fn at_v4(&self, address: [u8; 4], ports: Ports) -> Claim {
        let header = &self.header;
        let hashed = hash::v4(address, header.v4_seed);
        let place = place(
            &self.v4_displacements,
            hashed,
            header.v4_bucket_mask,
            header.v4_mask,
        );
        match self.v4.get(place) {
            Some(place) if place.address == address => self.search(place.first, place.count, ports),
            _ => Claim::NONE,
        }
    }

    /// What the rules that name this IPv6 address say about a packet's ports.
    #[inline(always)]
    #[must_use]
    pub fn at_v6(&self, address: [u8; 16], ports: Ports) -> Claim {
        let header = &self.header;
        let hashed = hash::v6(address, header.v6_seed);
        let place = place(
            &self.v6_displacements,
            hashed,
            header.v6_bucket_mask,
            header.v6_mask,
        );
        match self.v6.get(place) {
            Some(place) if u128::from_ne_bytes(place.address) == u128::from_ne_bytes(address) => {
                self.search(place.first, place.count, ports)
            }
            _ => Claim::NONE,
        }
    }

    /// Finds the span of `count` spans from `first` on that holds the destination port.
    #[inline(always)]
    fn search(&self, first: u32, count: u32, ports: Ports) -> Claim {
        let key = span_key(ports.transport, ports.destination);
        let mut base = first as usize & SEARCH_MASK;
        let mut left = count as usize;
        // The last span that begins at or before the key lies in [base, base + left).
        for _ in 0..SEARCH_STEPS {
            if left <= 1 {
                break;
            }
            let half = left / 2;
            // Masked, so that the verifier takes all ways to here for one: the bounds of the place are
            // the same whichever half it is in.
            let at = (base + half) & SEARCH_MASK;
            match self.spans.get(at) {
                Some(span) if span.first <= key => base = at,
                Some(_) => {}
                None => return Claim::NONE,
            }
            left -= half;
        }
        match self.spans.get(base) {
            Some(span) if left == 1 && span.first <= key && key <= span.last => Claim {
                entry: span.entry,
                shadow: span.shadow,
            },
            _ => Claim::NONE,
        }
    }
}

/// What stands at an index of a table of ports.
///
/// The bound is one that LLVM does not know to be true already and so leaves where the index is made: before
/// Linux 6.9 the verifier loses it with a copy on the stack (`bpf: Assign ID to scalars on spill`).
#[inline(always)]
#[must_use]
pub fn at(table: &[Entry; PORT_PLACES], index: usize) -> Option<&Entry> {
    table.get(core::hint::black_box(index) & (PORT_PLACES - 1))
}

/// Where a hashed address stands.
#[inline(always)]
#[must_use]
pub fn place(displacements: &[u32], hashed: Hashed, bucket_mask: u32, mask: u32) -> usize {
    let bucket = (hashed.bucket & bucket_mask) as usize;
    match displacements.get(bucket) {
        Some(displacement) => (hashed.place.wrapping_add(*displacement) & mask) as usize,
        None => usize::MAX,
    }
}
