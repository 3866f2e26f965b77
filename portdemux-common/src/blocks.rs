//! Where counters lie: in blocks of a page, which a CPU is given when it first counts in one.
//!
//! All counters of a machine, for each of its CPUs, would be ten megabytes a CPU, most of it for ports to which no
//! packet ever comes. So they are laid out once ([`crate::counters::Layout`]), cut into blocks, and a CPU has some
//! blocks of its own, and a directory that says which of them stand for which of those ([`Own`]). A CPU adds to its own
//! blocks as to plain memory. When none is left for it, it counts in a set that all CPUs share, by atomic additions:
//! so every packet is counted, whatever is exhausted. A reader sums the shared block and those of all CPUs.

use core::mem::offset_of;

use bytemuck::{Pod, Zeroable};

/// Packets, and bytes of their frames from the destination MAC to the last byte before the FCS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Counter {
    /// Number of packets.
    pub packets: u64,
    /// Number of bytes.
    pub bytes: u64,
}

impl Counter {
    /// Counts some packets of `bytes` bytes in all.
    #[inline(always)]
    pub const fn add(&mut self, packets: u64, bytes: u64) {
        self.packets = self.packets.wrapping_add(packets);
        self.bytes = self.bytes.wrapping_add(bytes);
    }

    /// Counts one frame of `bytes` bytes.
    #[inline(always)]
    pub const fn count(&mut self, bytes: u64) {
        self.packets = self.packets.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(bytes);
    }
}

/// Counters of a block.
pub const COUNTERS: usize = 256;
/// Bytes of a block.
pub const BYTES: usize = COUNTERS * size_of::<Counter>();
/// Entries of a directory: more than there are blocks, and a power of two, so that a mask is a bound for the
/// verifier.
pub const ENTRIES: usize = 1 << 13;
/// How many blocks of its own each CPU can have: as many as make [`Own`] a mebibyte, a power of two, by which a look-up
/// finds a CPU's with a shift and a mask bounds an offset.
pub const OWN: usize = 247;
/// How many of them are for what rules and interfaces count, and for ports that rules claim: whoever sends to every
/// port must not make those count in the shared set.
pub const RESERVED: u32 = 64;

/// Counters that lie together: of the ones that count packets alone, two make one here.
pub type Block = [Counter; COUNTERS];

/// The blocks of a CPU; only programs on that CPU write it once it is made.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Own {
    /// How many blocks were given.
    pub given: u32,
    /// How many there are.
    pub count: u32,
    /// Fills the page.
    pub reserved: [u64; 511],
    /// Where its block begins, by the number of the block that it stands for: in bytes from the beginning of this, or 0
    /// if none was given. They stand near the beginning: the offset in an instruction reaches 32 KiB.
    pub directory: [u32; ENTRIES],
    /// The blocks.
    pub blocks: [Block; OWN],
}

const _: () = {
    assert!(BYTES == 4096 && size_of::<Own>() == 1 << 20);
    assert!(offset_of!(Own, blocks).is_multiple_of(BYTES));
};

impl Own {
    /// The bits that an offset in the directory can have.
    pub const OFFSET_MASK: usize = size_of::<Self>() - BYTES;

    /// What stands in the directory for a block of this index, which is below [`OWN`].
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "both are below a mebibyte")]
    pub const fn offset(index: u32) -> u32 {
        const FIRST: u32 = offset_of!(Own, blocks) as u32;
        FIRST.wrapping_add(index.wrapping_mul(BYTES as u32))
    }
}
