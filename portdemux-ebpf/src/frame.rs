//! Access to the bytes of a frame.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    programs::XdpContext,
};
use portdemux_common::packet::{Packet, PacketMut};

use crate::verifier;

/// Frames up to this length lie in one buffer on every driver with an MTU of 1,500: an Ethernet
/// header, two VLAN tags and the packet.
const ONE_BUFFER: usize = 1_522;

/// No header begins further into a frame than this: link layer, IP header and eight extension
/// headers of 2 KiB. The verifier needs a bound, and not one of the form 2ⁿ − 1.
const MAX_OFFSET: usize = 20_000;

/// A power of two that is greater.
const OFFSETS: usize = 1 << 15;
const _: () = assert!(MAX_OFFSET < OFFSETS);

/// The part of a frame that lies in its first buffer and can be read directly.
pub(crate) struct LinearFrame {
    start: usize,
    end: usize,
}

impl LinearFrame {
    /// The frame a program was handed.
    #[inline(always)]
    pub(crate) fn new(ctx: &XdpContext) -> Self {
        Self {
            start: ctx.data(),
            end: ctx.data_end(),
        }
    }

    /// Whether the frame is so long that further buffers may follow.
    #[inline(always)]
    pub(crate) fn may_have_more(&self) -> bool {
        self.end - self.start > ONE_BUFFER
    }
}

impl Packet for LinearFrame {
    #[inline(always)]
    fn length(&self) -> usize {
        self.end - self.start
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        read_linear(self.start, self.end, offset)
    }

    #[inline(always)]
    fn locate(&self, offset: usize) -> Option<usize> {
        locate_linear(offset)
    }

    #[inline(always)]
    fn read_words(&self, offset: usize) -> Option<[u64; 4]> {
        read_linear(self.start, self.end, offset)
    }
}

impl PacketMut for LinearFrame {
    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> bool {
        let Some(offset) = locate_linear(offset) else {
            return false;
        };
        let start = self.start + offset;
        if start + N > self.end {
            return false;
        }
        // SAFETY: as in `read_linear`; the program may change the frame that it was handed.
        unsafe { core::ptr::write(start as *mut [u8; N], bytes) };
        true
    }
}

/// An offset of a packet that can be read directly, in a register of which the verifier knows its bounds.
#[inline(always)]
pub(crate) fn locate_linear(offset: usize) -> Option<usize> {
    if offset > MAX_OFFSET {
        return None;
    }
    let offset = verifier::masked::<OFFSETS>(offset);
    // SAFETY: it was compared above, and is what it was.
    unsafe { core::hint::assert_unchecked(offset <= MAX_OFFSET) };
    Some(offset)
}

/// Reads `N` bytes or words at `offset` of a packet that can be read directly from `start` to `end`.
#[inline(always)]
pub(crate) fn read_linear<T: bytemuck::Pod, const N: usize>(
    start: usize,
    end: usize,
    offset: usize,
) -> Option<[T; N]> {
    if offset > MAX_OFFSET {
        return None;
    }
    let start = start + offset;
    if start + size_of::<[T; N]>() > end {
        return None;
    }
    // SAFETY: the bytes lie between the packet's start and its end, which the kernel keeps in place while
    // the program runs; a `Pod` has no invalid values.
    Some(unsafe { core::ptr::read_unaligned(start as *const [T; N]) })
}

/// A frame in all its buffers, read through a helper call.
pub struct WholeFrame<'a> {
    ctx: &'a XdpContext,
    length: usize,
}

impl<'a> WholeFrame<'a> {
    /// The frame a program was handed.
    #[inline(always)]
    #[must_use]
    pub fn new(ctx: &'a XdpContext) -> Self {
        // SAFETY: the helper takes the context of an XDP program (Linux 5.18,
        // net/core/filter.c, bpf_xdp_get_buff_len).
        let length = unsafe { bpf_xdp_get_buff_len(ctx.as_ptr().cast()) };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the BPF target has 64 bits"
        )]
        Self {
            ctx,
            length: length as usize,
        }
    }
}

impl Packet for WholeFrame<'_> {
    #[inline(always)]
    fn length(&self) -> usize {
        self.length
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > MAX_OFFSET {
            return None;
        }
        let mut bytes = [0; N];
        // SAFETY: the helper writes N bytes to the array or fails (Linux 5.18, net/core/filter.c,
        // bpf_xdp_load_bytes).
        #[expect(clippy::cast_possible_truncation, reason = "both fit in 32 bits")]
        let failure = unsafe {
            bpf_xdp_load_bytes(
                self.ctx.as_ptr().cast(),
                offset as u32,
                bytes.as_mut_ptr().cast(),
                N as u32,
            )
        };
        if failure != 0 {
            return None;
        }
        // The verifier refuses loads from the stack that are not aligned, and the compiler would merge
        // neighbouring bytes into such loads. These it must leave apart.
        Some(core::array::from_fn(|locate| match bytes.get(locate) {
            // SAFETY: a reference to a byte is valid for a read of it.
            Some(byte) => unsafe { core::ptr::read_volatile(byte) },
            None => 0,
        }))
    }
}
