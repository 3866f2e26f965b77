//! The maps that hold the rulesets.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use bytemuck::Pod;
use portdemux_common::{
    destination::Target,
    limits::Kind,
    parse::Version,
    policy::{Policy, Rate},
    ruleset::{
        Entry, Head, Header, LINE, Part, RuleId, RulesetTables, Rulesets, Span, V4Place, V6Place,
    },
    sources::Table as _,
    state::Generation,
};

use crate::{
    Maps,
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

/// The generation in force, and its ruleset, for the packet that is being looked at.
#[inline(always)]
#[must_use]
pub(crate) fn in_force() -> Option<(Generation, Ruleset)> {
    let rulesets = RULESETS.find_ref(0)?;
    // Once: what the image is found by must be what the packet is said to be decided by.
    // SAFETY: a reference is valid for a read.
    let generation = unsafe { core::ptr::read_volatile(&raw const rulesets.generation) };
    Some((generation, Ruleset(rulesets.of(generation))))
}

impl Ruleset {
    /// Where an element of one of its tables stands that has as many words, in words.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "what is too large is in no map"
    )]
    fn place(self, part: Part, at: usize, words: usize) -> u32 {
        let tables = &self.0.header.tables;
        let first = tables.begin.wrapping_add(tables.parts[part as usize]);
        first.wrapping_add((at * words) as u32)
    }

    /// An element of one of its tables, of which as many stand in a line.
    ///
    /// Programs alone read what is in force, and nobody writes it.
    #[inline(always)]
    fn element<T: Pod, const IN_LINE: usize>(self, part: Part, at: usize) -> Option<&'static T> {
        const { assert!(IN_LINE * size_of::<T>() == size_of::<Line>()) };
        let place = self.place(part, at / IN_LINE, LINE);
        let elements: *const [T; IN_LINE] = tables::line(place)?.cast();
        // SAFETY: a line has as many elements, of which every bit pattern is one.
        Some(within(unsafe { &*elements }, at))
    }

    /// A word of one of its tables.
    #[inline(always)]
    fn word(self, part: Part, at: usize) -> Option<u64> {
        Maps.word(self.place(part, at, 1))
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
    fn port(&self, index: usize) -> Option<Entry> {
        self.0.ports.element(index).copied()
    }

    #[inline(always)]
    fn displacement(&self, version: Version, bucket: usize) -> Option<u32> {
        let part = match version {
            Version::V4 => Part::V4Displacements,
            Version::V6 => Part::V6Displacements,
        };
        self.element::<u32, 16>(part, bucket).copied()
    }

    #[inline(always)]
    fn v4(&self, place: usize) -> Option<&V4Place> {
        self.element::<V4Place, 2>(Part::V4, place)
    }

    #[inline(always)]
    fn v6(&self, place: usize) -> Option<&V6Place> {
        self.element::<V6Place, 1>(Part::V6, place)
    }

    #[inline(always)]
    fn span(&self, at: usize) -> Option<&Span> {
        self.element::<Span, 4>(Part::Spans, at)
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
    fn rate(&self, rule: RuleId, kind: Kind) -> Option<Rate> {
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
