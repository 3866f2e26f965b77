//! What this host sends, seen on its way out: it makes flows, and nothing is held up.

use core::{cell::Cell, hint::cold_path};

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map, programs::TcContext};
use bytemuck::Pod;
use portdemux_common::{
    decide::Metadata,
    packet::Packet,
    parse::{self, Continuation, Parsed},
    ruleset::Entry,
};

use crate::{
    flows,
    frame::{place_linear, read_linear},
    ruleset,
    verifier::Lookup as _,
};

/// How much of a packet is brought to where it can be read, if its headers are not there.
const HEADERS: usize = 192;

/// The packet that a CPU is about to send.
#[btf_map]
static SENDING: PerCpuArray<Metadata, 1> = PerCpuArray::new();

/// A packet of the host's own stack, of which the first part can be read directly.
struct SocketBuffer {
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
    fn place(&self, offset: usize) -> Option<usize> {
        place_linear(offset)
    }

    #[inline(always)]
    fn read_words(&self, offset: usize) -> Option<[u64; 4]> {
        self.read_linear(offset)
    }
}

/// Notes a packet's flow.
///
/// Of a TCP segment nothing but the headers can be read directly, and what is sent is a clone of it. To bring more there
/// copies the segment, so it is done only where a header is missing.
#[inline(always)]
pub fn notice(ctx: &TcContext) {
    let mut is_pulled = false;
    loop {
        let frame = SocketBuffer::new(ctx);
        let read = write_down(&frame);
        if is_pulled || !frame.is_missing.get() {
            if let Some(metadata) = read {
                note(ctx, metadata);
            }
            return;
        }
        cold_path();
        // Where it fails, what can be read is read.
        #[expect(clippy::cast_possible_truncation, reason = "HEADERS fits")]
        let _ = ctx.pull_data(frame.length.min(HEADERS) as u32);
        is_pulled = true;
    }
}

/// Reads a packet and writes it down, if it is of a kind that has flows.
#[inline(always)]
fn write_down(frame: &SocketBuffer) -> Option<&'static mut Metadata> {
    parse::parse_sound(frame, WriteDown)??;
    let metadata = SENDING.find(0)?;
    // SAFETY: the value is this CPU's, no other program uses the map, and its memory stays while the program runs.
    let metadata = unsafe { &mut *metadata };
    metadata.read(frame);
    Some(metadata)
}

/// Notes the packet that was written down.
#[inline(always)]
fn note(ctx: &TcContext, metadata: &mut Metadata) -> Option<()> {
    let ruleset = ruleset::in_force()?;
    // SAFETY: the context is a socket buffer's for as long as the program runs.
    let segments = unsafe { (*ctx.skb.skb).gso_segs };
    flows::send(metadata, &ruleset, segments)
}

/// Writes down what was read, if it is of a kind that has flows.
struct WriteDown;

impl Continuation<SocketBuffer> for WriteDown {
    type Output = Option<()>;

    #[inline(always)]
    fn sound(self, frame: &SocketBuffer, parsed: &Parsed) -> Option<()> {
        parsed.version?;
        let metadata = SENDING.find(0)?;
        let generation = ruleset::in_force()?.generation();
        let length = frame.length() as u64;
        // SAFETY: the value is this CPU's, and no other program uses the map.
        let metadata = unsafe { &mut *metadata };
        metadata.write_down(parsed, Entry::UNCLAIMED, generation, length, false);
        Some(())
    }
}
