//! The map that holds the tables of rulesets that only some packets ask, and those of sources.

use core::hint::cold_path;

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use portdemux_common::{ruleset::LINE, sources::SourceTable};

use crate::{
    variant::{Maps, Variant},
    verifier::{Lookup as _, within},
};

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

/// What of the map is found at once.
pub(crate) type Line = [u64; LINE];

/// The tables of two rulesets; how many lines there are, the loader says. Of what a ruleset in force names, the
/// sources are changed by whole words, and nothing else is.
#[btf_map]
static TABLES: Array<Line, 1, MMAPABLE> = Array::new();

/// A line, by its number.
#[inline(always)]
pub(crate) fn line(number: u32) -> Option<*const Line> {
    let Some(line) = TABLES.find(number) else {
        cold_path();
        return None;
    };
    Some(line)
}

/// A word of a line, which its last bits say.
#[inline(always)]
pub(crate) fn word(number: u32, at: usize) -> Option<u64> {
    // SAFETY: a map's memory stays while the program runs.
    let word = within(unsafe { &*line(number)? }, at);
    // SAFETY: the word is one of the map's. The control plane may store another at any time, so
    // that it is read once, as a whole.
    Some(unsafe { core::ptr::read_volatile(word) })
}

impl<V: Variant> SourceTable for Maps<V> {
    #[inline(always)]
    fn word(&self, slot: u32) -> Option<u64> {
        word(slot >> LINE.ilog2(), slot as usize)
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        V::coarse()
    }
}
