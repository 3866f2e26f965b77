//! The maps that hold the rulesets.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use bytemuck::Pod;
use portdemux_common::{
    entry::Entry,
    ids::{Generation, RuleId},
    limits::RateKind,
    parse::Version,
    policy::{Policy, Rate},
    ruleset::{
        Claim, Head, Header, LINE, Part, RulesetTables, Rulesets, Span, V4Slot, V6Slot, find_v4,
        find_v6, near, search,
    },
    target::Target,
};

use crate::{
    tables::{self, Line},
    verifier::{Elements as _, Lookup as _, within},
};

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

/// The heads of the rulesets; the control plane writes the idle one, then the generation with one 8-byte store.
#[btf_map]
static RULESETS: Array<Rulesets, 1, MMAPABLE> = Array::new();

/// A ruleset: its head, and where its tables lie that only some packets ask.
#[derive(Clone, Copy)]
pub(crate) struct Ruleset(&'static Head);

/// The ruleset of a generation that was in force when the packet came.
#[inline(always)]
#[must_use]
pub(crate) fn of(generation: Generation) -> Option<Ruleset> {
    Some(Ruleset(RULESETS.find_ref(0)?.of(generation)))
}

/// The ruleset in force, for the packet that is being looked at.
#[inline(always)]
#[must_use]
pub(crate) fn in_force() -> Option<Ruleset> {
    let rulesets = RULESETS.find_ref(0)?;
    // Once, as a whole: the control plane replaces it at any time.
    // SAFETY: a reference is valid for a read.
    let generation = unsafe { core::ptr::read_volatile(&raw const rulesets.generation) };
    Some(Ruleset(rulesets.of(generation)))
}

impl Ruleset {
    /// The ruleset that a function of its own was called for.
    #[inline(always)]
    pub(crate) fn given(head: *const Head) -> Option<Self> {
        // SAFETY: the caller hands on what [`Ruleset::head`] returns or, for all that the verifier knows, null; a map's
        // memory stays while the program runs.
        unsafe { head.as_ref() }.map(Self)
    }

    /// Its head, for a function of its own (Linux 5.13, `kernel/bpf/btf.c`, `btf_prepare_func_args`, for the pointer).
    #[inline(always)]
    pub(crate) const fn head(self) -> *const Head {
        self.0
    }

    /// Where an element of one of its tables stands of which as many stand in a line: a table begins at one.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "what is too large is in no map"
    )]
    fn line(self, part: Part, at: usize, in_line: usize) -> u32 {
        self.0.header.lines[part as usize].wrapping_add((at / in_line) as u32)
    }

    /// An element of one of its tables, of which as many stand in a line.
    ///
    /// Programs alone read what is in force, and nobody writes it.
    #[inline(always)]
    fn element<T: Pod, const IN_LINE: usize>(self, part: Part, at: usize) -> Option<&'static T> {
        const { assert!(IN_LINE * size_of::<T>() == size_of::<Line>()) };
        let elements: *const [T; IN_LINE] = tables::line(self.line(part, at, IN_LINE))?.cast();
        // SAFETY: a line has as many elements, of which every bit pattern is one.
        Some(within(unsafe { &*elements }, at))
    }

    /// A word of one of its tables.
    #[inline(always)]
    fn word(self, part: Part, at: usize) -> Option<u64> {
        tables::word(self.line(part, at, LINE), at)
    }
}

impl Ruleset {
    /// The MAC address that frames to a rule's target get, in the first six bytes of a word; none if they keep theirs.
    ///
    /// Taken out of the word where it lies: the verifier takes no load from the stack that is not aligned.
    #[inline(always)]
    pub(crate) fn mac(self, rule: RuleId) -> Option<u64> {
        let word = self.word(Part::Targets, 2 * rule as usize + 1)?;
        let mac = if cfg!(target_endian = "big") {
            word << 16
        } else {
            word >> 16
        };
        (mac != 0).then_some(mac)
    }
}

/// A word as the two numbers that it holds, in the order in which they lie in memory.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "halves")]
pub(crate) const fn halves(word: u64) -> [u32; 2] {
    let (low, high) = (word as u32, (word >> 32) as u32);
    if cfg!(target_endian = "big") {
        [high, low]
    } else {
        [low, high]
    }
}

impl RulesetTables for Ruleset {
    #[inline(always)]
    fn header(&self) -> &Header {
        &self.0.header
    }

    #[inline(always)]
    fn displacement(&self, version: Version, bucket: usize) -> Option<u32> {
        Some(within(&self.0.ports, near(version, bucket)).bits())
    }

    #[inline(always)]
    fn v4(&self, slot: usize) -> Option<&V4Slot> {
        self.element::<V4Slot, 2>(Part::V4, slot)
    }

    #[inline(always)]
    fn v6(&self, slot: usize) -> Option<&V6Slot> {
        self.element::<V6Slot, 1>(Part::V6, slot)
    }

    #[inline(always)]
    fn span(&self, at: usize) -> Option<&Span> {
        self.element::<Span, 4>(Part::Spans, at)
    }

    #[inline(always)]
    fn at_v4(&self, address: [u8; 4], key: u32) -> Claim {
        let address = u32::from_ne_bytes(address);
        Claim::of_word(portdemux_claim4(self.head(), address, key))
    }

    #[inline(always)]
    fn at_v6(&self, address: [u8; 16], key: u32) -> Claim {
        let [upper, lower]: [u64; 2] = bytemuck::cast(address);
        Claim::of_word(portdemux_claim6(self.head(), upper, lower, key))
    }

    #[inline(always)]
    fn search(&self, first: u32, count: u32, key: u32) -> Claim {
        Claim::of_word(portdemux_search(self.head(), first, count, key))
    }

    #[inline(always)]
    fn port(&self, index: usize) -> Option<Entry> {
        self.0.ports.element(index).copied()
    }

    #[inline(always)]
    fn source_port(&self, index: usize) -> Option<Entry> {
        self.element::<Entry, 16>(Part::SourcePorts, index).copied()
    }

    #[inline(always)]
    fn shadow_port(&self, index: usize) -> Option<Entry> {
        self.element::<Entry, 16>(Part::ShadowPorts, index).copied()
    }

    #[inline(always)]
    fn terms(&self, rule: RuleId) -> Option<Policy> {
        const WORDS: usize = size_of::<Policy>() / size_of::<u64>();
        let [lists, conditions] = halves(self.word(Part::Policies, WORDS * rule as usize)?);
        let [from, deny]: [u16; 2] = bytemuck::cast(lists);
        Some(Policy {
            from,
            deny,
            conditions,
            rate: Rate::default(),
            new_rate: Rate::default(),
        })
    }

    #[inline(always)]
    fn rate(&self, rule: RuleId, kind: RateKind) -> Option<Rate> {
        const WORDS: usize = size_of::<Policy>() / size_of::<u64>();
        let first = WORDS * rule as usize + 1 + 2 * kind as usize;
        Some(Rate {
            interval: self.word(Part::Policies, first)?,
            tolerance: self.word(Part::Policies, first + 1)?,
        })
    }

    #[inline(always)]
    fn target(&self, rule: RuleId) -> Option<&Target> {
        self.element::<Target, 4>(Part::Targets, rule as usize)
    }

    #[inline(always)]
    fn cpu(&self, at: usize) -> Option<u16> {
        self.element::<u16, 32>(Part::Cpus, at).copied()
    }
}

/// Finds the span of `count` spans from `first` on that holds a port.
///
/// A function of its own, as the ones below: each is verified once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portdemux_search(head: *const Head, first: u32, count: u32, key: u32) -> u64 {
    match Ruleset::given(head) {
        Some(ruleset) => search(&ruleset, first, count, key).word(),
        None => Claim::NONE.word(),
    }
}

/// Looks a port up among the claims of an IPv4 address, as it stands in the packet.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portdemux_claim4(head: *const Head, address: u32, key: u32) -> u64 {
    match Ruleset::given(head) {
        Some(ruleset) => find_v4(&ruleset, address.to_ne_bytes(), key).word(),
        None => Claim::NONE.word(),
    }
}

/// Looks a port up among the claims of an IPv6 address: its first and its last 8 bytes.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portdemux_claim6(head: *const Head, upper: u64, lower: u64, key: u32) -> u64 {
    match Ruleset::given(head) {
        Some(ruleset) => find_v6(&ruleset, bytemuck::cast([upper, lower]), key).word(),
        None => Claim::NONE.word(),
    }
}
