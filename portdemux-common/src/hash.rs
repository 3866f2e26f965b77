//! Hashes, the same for whoever builds a table and who reads it.
//!
//! Destination addresses are placed by multiply-shift hashing (Dietzfelbinger et al., 1997): the builder picks seeds for which the table
//! comes out free of collisions, so a lookup never probes twice.

/// What a key hashes to: a bucket and a slot relative to the bucket's displacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// Which displacement applies, before masking.
    pub bucket: u32,
    /// Where the key would stand with displacement 0, before masking.
    pub slot: u32,
}

/// Hashes an IPv4 address as it stands in the packet.
#[inline(always)]
#[must_use]
pub fn v4(address: [u8; 4], seed: u64) -> Hashed {
    mix(u64::from(u32::from_ne_bytes(address)), seed)
}

/// Hashes an IPv6 address as it stands in the packet.
#[inline(always)]
#[must_use]
pub fn v6(address: [u8; 16], seed: u64) -> Hashed {
    let [high, low]: [u64; 2] = bytemuck::cast(address);
    // The seed takes part, so that no two addresses fold into one under every seed.
    let folded = high.wrapping_mul(seed | 1);
    mix((folded ^ (folded >> 32)).wrapping_add(low), seed)
}

#[inline(always)]
fn mix(key: u64, seed: u64) -> Hashed {
    // The multiplier is odd, so that no key bit is lost.
    let product = (key ^ (key >> 32)).wrapping_mul(seed | 1);
    let again = (product ^ (product >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves are what is wanted"
    )]
    Hashed {
        bucket: (again >> 32) as u32,
        slot: (again ^ (again >> 27)) as u32,
    }
}

/// Mixes the bits of a word (xor, shift and multiply with a constant of `SplitMix64`, Steele et al. 2014).
#[inline(always)]
#[must_use]
pub const fn mixed(word: u64) -> u64 {
    let word = (word ^ (word >> 32)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word ^ (word >> 29)
}
