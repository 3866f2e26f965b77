//! The hook on the way out: tc, where what this host sends is seen.

use core::{cell::Cell, hint::cold_path};

use aya_ebpf::programs::TcContext;
use bytemuck::Pod;
use portdemux_common::{
    conntrack::Direction,
    packet::Packet,
    pipeline::{self, Egress, Scratch},
};

use crate::{
    conntrack,
    frame::{locate_linear, read_linear},
    hook::Hook,
    scratch,
};

/// How much of a packet is brought to where it can be read, if its headers are not there.
const HEADERS: usize = 192;

/// A packet of the host's own stack, of which the first part can be read directly.
pub(crate) struct SocketBuffer {
    start: usize,
    end: usize,
    length: usize,
    /// Whether something was to be read that lies beyond.
    is_missing: Cell<bool>,
}

impl SocketBuffer {
    #[inline(always)]
    fn new(ctx: &TcContext) -> Self {
        Self {
            start: ctx.data(),
            end: ctx.data_end(),
            length: ctx.len() as usize,
            is_missing: Cell::new(false),
        }
    }

    #[inline(always)]
    fn read_linear<T: Pod, const N: usize>(&self, offset: usize) -> Option<[T; N]> {
        let read = read_linear(self.start, self.end, offset);
        if read.is_none() && self.end.wrapping_sub(self.start) < self.length {
            cold_path();
            self.is_missing.set(true);
        }
        read
    }
}

impl Packet for SocketBuffer {
    #[inline(always)]
    fn length(&self) -> usize {
        self.length
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.read_linear(offset)
    }

    #[inline(always)]
    fn locate(&self, offset: usize) -> Option<usize> {
        locate_linear(offset)
    }

    #[inline(always)]
    fn read_words(&self, offset: usize) -> Option<[u64; 4]> {
        self.read_linear(offset)
    }
}

/// Notes a packet in its flow.
#[inline(always)]
pub fn notice(ctx: &TcContext) {
    pipeline::send(Hook::<_>::new(ctx));
}

impl pipeline::Hook for Hook<'_, TcContext> {
    type Scratch = &'static mut Scratch;
    type Frame = SocketBuffer;

    #[inline(always)]
    fn frame(self) -> SocketBuffer {
        SocketBuffer::new(self.ctx)
    }

    #[inline(always)]
    fn scratch(self) -> Option<&'static mut Scratch> {
        scratch::of(Direction::Sent)
    }
}

impl Egress for Hook<'_, TcContext> {
    #[inline(always)]
    fn is_short(self, frame: &SocketBuffer) -> bool {
        frame.is_missing.get()
    }

    #[inline(always)]
    fn pull(self, frame: &SocketBuffer) {
        #[expect(clippy::cast_possible_truncation, reason = "HEADERS fits")]
        let _ = self.ctx.pull_data(frame.length.min(HEADERS) as u32);
    }

    #[inline(always)]
    fn segments(self) -> u32 {
        // SAFETY: the context is a socket buffer's for as long as the program runs.
        unsafe { (*self.ctx.skb.skb).gso_segs }
    }

    #[inline(always)]
    fn count(self, port: usize, packets: u64, bytes: u64) {
        conntrack::count_sent(port, packets, bytes);
    }
}
