//! A compiled ruleset: what a packet's decision reads.
//!
//! User space builds the image, the kernel reads it, and so does everything on the host that wants
//! to know what the kernel would do. The heads of two lie side by side in one map; [`crate::state`] says
//! which of them is in force. What only some packets ask lies in another, which is as large as two rulesets
//! need. What is in force is never written.

mod tables;

use core::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

pub use self::tables::{RulesetTables, find_v4, find_v6, search};
use crate::{
    capacity::{ADDRESS_SLOTS, CPU_SLOTS, DISPLACEMENTS, MAX_SPANS, PORT_SLOTS, RULE_SLOTS},
    entry::Entry,
    hash::Hashed,
    ids::Generation,
    parse::{Address, Ports, Version},
    policy::{Defaults, Policy},
    sources::Sources,
    target::Target,
    wire::{Port, Transport},
};

/// A set of rule ids, a bit each.
pub type RuleSet = [u64; RULE_SLOTS / 64];

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
    /// Number of IPv4 slots less one, a power of two less one; 0 if no rule claims an IPv4 address.
    pub v4_mask: u32,
    /// Number of IPv6 slots less one, a power of two less one; 0 if no rule claims an IPv6 address.
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
    /// Not 0 if a table of claims is to be asked besides that of ports: of addresses, of peers' ports, of shadows.
    /// [`Header::ADDRESSES_ALONE`] if only that of addresses is, and nothing but claims decides about a packet with
    /// ports, whose rule asks nothing.
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
    /// How many slots of the policies have a meaning.
    pub policies: u32,
    /// How many slots of the targets have a meaning.
    pub targets: u32,
    /// How many slots of the CPUs have a meaning.
    pub cpus: u32,
    /// Where the tables are that only some packets ask.
    pub tables: TableIndex,
    /// In which line of that map each of them begins, by [`Part`]: what a look-up needs, in one load.
    pub lines: [u32; Part::COUNT],
    /// Fills the header up to a multiple of 64 bytes.
    pub reserved: [u32; 2],
}

impl Header {
    /// What [`Header::further_claims`] is where claims of addresses are all that is to be asked.
    pub const ADDRESSES_ALONE: u32 = 2;

    /// Whether, of a packet with ports, nothing but a claim of its address is to be asked besides its port.
    #[inline(always)]
    #[must_use]
    pub const fn asks_addresses_alone(&self) -> bool {
        self.further_claims == Self::ADDRESSES_ALONE
    }

    /// Number of slots for IPv4 addresses.
    #[must_use]
    pub const fn v4_slots(&self) -> usize {
        slots(self.v4_mask)
    }

    /// Number of slots for IPv6 addresses.
    #[must_use]
    pub const fn v6_slots(&self) -> usize {
        slots(self.v6_mask)
    }
}

/// A mask of 0 says that there is no table.
const fn slots(mask: u32) -> usize {
    if mask == 0 { 0 } else { mask as usize + 1 }
}

/// Words of 64 bits that the map of tables has in each of its values, a line of the cache: one look-up finds them. A
/// table begins at a line, and an element of it stands in one.
pub const LINE: usize = 8;

/// Where the tables of a ruleset lie in the map of tables, in words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct TableIndex {
    /// Where the part of the map begins that is this ruleset's.
    pub begin: u32,
    /// How many words its tables have, those of sources not counted.
    pub words: u32,
    /// How many words the map has; 0 if nobody said. A larger map takes the place of one that is full, and who has
    /// that one open still looks for it.
    pub capacity: u32,
    /// Where each begins, by [`Part`], from `begin` on.
    pub parts: [u32; Part::COUNT],
}

/// A table of a ruleset that only some packets ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Part {
    /// [`RulesetImage::v4_displacements`].
    V4Displacements,
    /// [`RulesetImage::v6_displacements`].
    V6Displacements,
    /// [`RulesetImage::v4`].
    V4,
    /// [`RulesetImage::v6`].
    V6,
    /// [`RulesetImage::spans`].
    Spans,
    /// [`RulesetImage::source_ports`].
    SourcePorts,
    /// [`RulesetImage::shadow_ports`].
    ShadowPorts,
    /// [`RulesetImage::policies`].
    Policies,
    /// [`RulesetImage::targets`].
    Targets,
    /// [`RulesetImage::cpus`].
    Cpus,
}

impl Part {
    /// How many there are.
    pub const COUNT: usize = 10;
}

/// A claimed address and the spans of its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct V4Slot {
    /// The address, big-endian.
    pub address: [u8; 4],
    /// Fills half a line.
    pub reserved: u32,
    /// What it claims.
    pub claims: Claims,
}

/// A claimed IPv6 address and the spans of its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct V6Slot {
    /// The address, big-endian.
    pub address: [u8; 16],
    /// What it claims.
    pub claims: Claims,
    /// Fills a line.
    pub reserved: [u32; 6],
}

/// The spans of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Claims {
    /// Index of the first span.
    pub first: u32,
    /// How many there are; 0 for an empty slot.
    pub count: u32,
    /// The first one, so that one that is alone need not be looked up.
    pub span: Span,
}

/// Neighbouring ports of one protocol that one rule claims at an address.
///
/// Ends are [`span_key`]s. An address's spans ascend and do not overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
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

impl Span {
    /// Whose a port is, by its [`span_key`].
    #[inline(always)]
    const fn claim(&self, key: u32) -> Claim {
        if self.first <= key && key <= self.last {
            Claim {
                entry: self.entry,
                shadow: self.shadow,
            }
        } else {
            Claim::NONE
        }
    }
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

    /// The claim of this word: the rule's entry in bits 0 to 31, the shadow's in 32 to 63.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "halves")]
    pub const fn of_word(word: u64) -> Self {
        Self {
            entry: Entry::from_bits(word as u32),
            shadow: Entry::from_bits((word >> 32) as u32),
        }
    }

    /// It in one word.
    #[inline(always)]
    #[must_use]
    pub const fn word(self) -> u64 {
        self.entry.bits() as u64 | (self.shadow.bits() as u64) << 32
    }
}

/// What every packet asks of a compiled ruleset. All zeros are the ruleset without rules.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Head {
    /// Sizes, seeds and defaults.
    pub header: Header,
    /// Which rule ids the ruleset uses, a bit each; those of rules that never win a port too.
    pub rules: RuleSet,
    /// The claims of ports at any address, by [`Port::index`]. An entry is open if more is to be asked
    /// about the port: a claim of it at some address, or the terms of the rule that claims it.
    ///
    /// What no port has is for displacements, by [`near`]. None of them has the bit of a claim.
    pub ports: [Entry; PORT_SLOTS],
}

/// Index of an address bucket's displacement in [`Head::ports`], where a packet finds it without a look-up in another
/// map.
#[inline(always)]
#[must_use]
pub const fn near(version: Version, bucket: usize) -> usize {
    let first = match version {
        Version::V4 => 0,
        Version::V6 => DISPLACEMENTS,
    };
    (Transport::COUNT << 16) + first + bucket
}

/// A compiled ruleset as the host has it: all tables as large as they can be. The kernel has the head of it, and
/// of the tables as much as the ruleset needs ([`TableIndex`]).
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct RulesetImage {
    /// What every packet asks.
    pub head: Head,
    /// Displacements of IPv4 buckets.
    pub v4_displacements: [u32; DISPLACEMENTS],
    /// Displacements of IPv6 buckets.
    pub v6_displacements: [u32; DISPLACEMENTS],
    /// IPv4 addresses.
    pub v4: [V4Slot; ADDRESS_SLOTS],
    /// IPv6 addresses.
    pub v6: [V6Slot; ADDRESS_SLOTS],
    /// The claims of ports at one address.
    pub spans: [Span; MAX_SPANS],
    /// The claims of ports by the peer's port, by [`Port::index`].
    pub source_ports: [Entry; PORT_SLOTS],
    /// The claims of ports at any address by shadows, by [`Port::index`].
    pub shadow_ports: [Entry; PORT_SLOTS],
    /// What rules ask, by rule id.
    pub policies: [Policy; RULE_SLOTS],
    /// Which destinations rules have, by rule id.
    pub targets: [Target; RULE_SLOTS],
    /// The lists of CPUs that are destinations, one behind the other.
    pub cpus: [u16; CPU_SLOTS],
}

impl Deref for RulesetImage {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

impl DerefMut for RulesetImage {
    fn deref_mut(&mut self) -> &mut Head {
        &mut self.head
    }
}

/// The heads of two compiled rulesets and which of them is in force.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Rulesets {
    /// The generation in force.
    pub generation: Generation,
    /// Fills the line of the cache, which every packet reads.
    pub reserved: [u64; 7],
    /// The heads; [`Generation::half`] says which is in force.
    pub heads: [Head; 2],
}

impl Rulesets {
    /// The ruleset of a generation: of the one in force, which is read once for a packet, or of the one
    /// before.
    #[inline(always)]
    #[must_use]
    pub fn of(&self, generation: Generation) -> &Head {
        // By an index and not by a branch, so that the verifier has one way to go on and not two.
        let [even, _] = &self.heads;
        match self.heads.get(generation.half() as usize) {
            Some(head) => head,
            None => even,
        }
    }
}

const _: () = {
    assert!(Entry::RULE as usize == RULE_SLOTS - 1);
    assert!(size_of::<Header>() == 320 && align_of::<Header>() == 8);
    assert!(size_of::<V4Slot>() == 32 && size_of::<V6Slot>() == 64 && size_of::<Span>() == 16);
    assert!(size_of::<Head>().is_multiple_of(64) && align_of::<RulesetImage>() == 8);
    // All displacements stand behind the ports, and none has the bit of a claim.
    assert!(near(Version::V6, DISPLACEMENTS) == PORT_SLOTS);
    assert!(ADDRESS_SLOTS <= Entry::RULE as usize + 1);
    // No value over 4 MiB: kernels before 6.0 refuse it (`kernel/bpf/arraymap.c`, `array_map_alloc_check`).
    assert!(size_of::<Rulesets>() <= 4 << 20);
};

/// A port as spans are ordered: by protocol, then by number.
#[inline(always)]
#[must_use]
pub const fn span_key(transport: Transport, port: Port) -> u32 {
    (transport as u32) << 16 | port.number() as u32
}

impl RulesetImage {
    /// What the rules say about the ports of a packet for `destination`: a claim of this very
    /// address, else one of any address, else nothing.
    #[must_use]
    pub fn lookup(&self, destination: Option<Address>, ports: Ports) -> Entry {
        let exact = match destination {
            Some(address) => self.at_address(address, ports),
            None => Claim::NONE,
        };
        exact.entry.or_else(|| self.at_any_address(ports))
    }
}

/// Where a hashed address stands whose bucket has this displacement.
#[inline(always)]
#[must_use]
pub const fn slot(hashed: Hashed, displacement: u32, mask: u32) -> usize {
    (hashed.slot.wrapping_add(displacement) & mask) as usize
}
