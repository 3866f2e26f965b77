//! Slots of addresses as instances before ABI 7 have them: without the span that is alone.

use portdemux_common::ruleset::{RulesetImage, V4Slot, V6Slot};

use crate::{image::claims, maps::mapped::Mapped};

const HALF: usize = size_of::<u32>();

/// How many bytes a slot of each version has, and how far into it the index of the first span stands, which the
/// number of spans follows. It begins with the address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AddressLayout {
    pub(super) v4: (usize, usize),
    pub(super) v6: (usize, usize),
}

impl AddressLayout {
    /// Reads those of an image into it, all else of which is there; `v4` and `v6` say where in the map they begin, in
    /// bytes.
    pub(crate) fn read(self, map: &Mapped, [v4, v6]: [usize; 2], image: &mut RulesetImage) {
        let (v4_count, v6_count) = (image.header.v4_slots(), image.header.v6_slots());
        for (at, slot) in read(map, v4, self.v4, v4_count).into_iter().enumerate() {
            image.v4[at] = V4Slot {
                address: slot.address(),
                reserved: 0,
                claims: claims(image, slot.first, slot.count),
            };
        }
        for (at, slot) in read(map, v6, self.v6, v6_count).into_iter().enumerate() {
            image.v6[at] = V6Slot {
                address: slot.address(),
                claims: claims(image, slot.first, slot.count),
                reserved: [0; 6],
            };
        }
    }
}

struct Place {
    /// The address, and zeros behind it.
    halves: [u32; 4],
    first: u32,
    count: u32,
}

impl Place {
    fn address<const N: usize>(&self) -> [u8; N] {
        let bytes: [u8; 16] = bytemuck::cast(self.halves);
        std::array::from_fn(|at| bytes[at])
    }
}

fn read(map: &Mapped, from: usize, (bytes, first): (usize, usize), count: usize) -> Vec<Place> {
    let mut words = vec![0_u64; (bytes * count).div_ceil(size_of::<u64>())];
    map.read(from, &mut words);
    let halves: &[u32] = bytemuck::cast_slice(&words);
    let slots = halves.chunks_exact(bytes / HALF).take(count);
    let read = |slot: &[u32]| {
        let mut halves = [0; 4];
        let address = (first / HALF).min(halves.len());
        halves[..address].copy_from_slice(&slot[..address]);
        Place {
            halves,
            first: slot[first / HALF],
            count: slot[first / HALF + 1],
        }
    };
    slots.map(read).collect()
}
