//! The maps that hold the rulesets.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use portdemux_common::{
    destination::Target,
    limits::Kind,
    parse::Version,
    policy::{Policy, Rate},
    ruleset::{
        Claim, Entry, Head, Header, Part, RuleId, RulesetTables, Rulesets, V4Place, V6Place,
    },
    sources::Table as _,
    state::Generation,
};

use crate::{
    Maps,
    verifier::{Elements as _, Lookup as _},
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
    /// A word of one of its tables.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "what is too large is in no map"
    )]
    fn word(self, part: Part, at: usize) -> Option<u64> {
        let tables = &self.0.header.tables;
        let first = tables.begin.wrapping_add(tables.parts[part as usize]);
        Maps.word(first.wrapping_add(at as u32))
    }

    /// Half a word of one of its tables.
    #[inline(always)]
    fn half(self, part: Part, at: usize) -> Option<u32> {
        let [first, second] = halves(self.word(part, at / 2)?);
        Some(if at.is_multiple_of(2) { first } else { second })
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
        match version {
            Version::V4 => self.half(Part::V4Displacements, bucket),
            Version::V6 => self.half(Part::V6Displacements, bucket),
        }
    }

    #[inline(always)]
    fn v4(&self, place: usize) -> Option<V4Place> {
        let [address, reserved] = halves(self.word(Part::V4, 2 * place)?);
        let [first, count] = halves(self.word(Part::V4, 2 * place + 1)?);
        Some(V4Place {
            address: address.to_ne_bytes(),
            reserved,
            first,
            count,
        })
    }

    #[inline(always)]
    fn v6(&self, place: usize) -> Option<V6Place> {
        let upper = self.word(Part::V6, 3 * place)?;
        let lower = self.word(Part::V6, 3 * place + 1)?;
        let [first, count] = halves(self.word(Part::V6, 3 * place + 2)?);
        Some(V6Place {
            address: bytemuck::cast([upper, lower]),
            first,
            count,
        })
    }

    #[inline(always)]
    fn span(&self, at: usize) -> Option<(u32, u32)> {
        let [first, last] = halves(self.word(Part::Spans, 2 * at)?);
        Some((first, last))
    }

    #[inline(always)]
    fn claim(&self, at: usize) -> Option<Claim> {
        let [entry, shadow] = halves(self.word(Part::Spans, 2 * at + 1)?);
        Some(Claim {
            entry: Entry::from_bits(entry),
            shadow: Entry::from_bits(shadow),
        })
    }

    #[inline(always)]
    fn source_port(&self, index: usize) -> Option<Entry> {
        Some(Entry::from_bits(self.half(Part::SourcePorts, index)?))
    }

    #[inline(always)]
    fn shadow_port(&self, index: usize) -> Option<Entry> {
        Some(Entry::from_bits(self.half(Part::ShadowPorts, index)?))
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
    fn target(&self, rule: RuleId) -> Option<Target> {
        let first = self.word(Part::Targets, 2 * rule as usize)?;
        let second = self.word(Part::Targets, 2 * rule as usize + 1)?;
        Some(bytemuck::cast([first, second]))
    }

    #[inline(always)]
    fn cpu(&self, at: usize) -> Option<u16> {
        let [first, second] = halves(self.word(Part::Cpus, at / 4)?);
        let two: [u16; 2] = bytemuck::cast(if (at / 2).is_multiple_of(2) {
            first
        } else {
            second
        });
        Some(if at.is_multiple_of(2) { two[0] } else { two[1] })
    }
}
