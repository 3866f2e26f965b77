//! What this host sends, seen on its way out: it makes flows, and nothing is held up.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map, programs::TcContext};
use portdemux_common::{
    decide::Pending,
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

/// Headers of packets lie in the first bytes of a buffer; these are brought there if they are not.
const HEADERS: usize = 192;

/// The packet that a CPU is about to send.
#[btf_map]
static SENDING: PerCpuArray<Pending, 1> = PerCpuArray::new();

/// A packet of the host's own stack, of which the first part can be read directly.
struct SocketBuffer {
    start: usize,
    end: usize,
    length: usize,
}

impl SocketBuffer {
    #[inline(always)]
    fn new(ctx: &TcContext) -> Self {
        Self {
            start: ctx.data(),
            end: ctx.data_end(),
            length: ctx.len() as usize,
        }
    }
}

impl Packet for SocketBuffer {
    #[inline(always)]
    fn length(&self) -> usize {
        self.length
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        read_linear(self.start, self.end, offset)
    }

    #[inline(always)]
    fn place(&self, offset: usize) -> Option<usize> {
        place_linear(offset)
    }

    #[inline(always)]
    fn read_words(&self, offset: usize) -> Option<[u64; 4]> {
        read_linear(self.start, self.end, offset)
    }
}

/// Notes a packet's flow.
#[inline(always)]
pub fn notice(ctx: &TcContext) {
    let length = ctx.len() as usize;
    let linear = ctx.data_end().wrapping_sub(ctx.data());
    if linear < HEADERS && linear < length {
        // Where it fails, what can be read is read.
        #[expect(clippy::cast_possible_truncation, reason = "HEADERS fits")]
        let _ = ctx.pull_data(length.min(HEADERS) as u32);
    }
    let frame = SocketBuffer::new(ctx);
    if parse::parse_sound(&frame, WriteDown) != Some(Some(())) {
        return;
    }
    note(ctx);
}

/// Notes the packet that was written down.
#[inline(always)]
fn note(ctx: &TcContext) -> Option<()> {
    let pending = SENDING.find(0)?;
    // SAFETY: the value is this CPU's, and no other program uses the map.
    let pending = unsafe { &mut *pending };
    pending.read(&SocketBuffer::new(ctx));
    let (_, ruleset) = ruleset::in_force()?;
    // SAFETY: the context is a socket buffer's for as long as the program runs.
    let segments = unsafe { (*ctx.skb.skb).gso_segs };
    flows::send(pending, &ruleset, segments)
}

/// Writes down what was read, if it is of a kind that has flows.
struct WriteDown;

impl Continuation<SocketBuffer> for WriteDown {
    type Output = Option<()>;

    #[inline(always)]
    fn sound(self, frame: &SocketBuffer, parsed: &Parsed) -> Option<()> {
        parsed.version?;
        let pending = SENDING.find(0)?;
        let (generation, _) = ruleset::in_force()?;
        let length = frame.length() as u64;
        // SAFETY: the value is this CPU's, and no other program uses the map.
        let pending = unsafe { &mut *pending };
        pending.write_down(parsed, Entry::UNCLAIMED, generation, length, false);
        Some(())
    }
}
