//! The map that says what came of first fragments.

use aya_ebpf::{
    btf_maps::{Array, PerCpuArray},
    macros::btf_map,
    programs::XdpContext,
};
use portdemux_common::{
    decide::{Metadata, Outcome},
    flows::table::Word as _,
    fragments::{self, Bucket, Buckets, Piece, Table},
    reason::Verdict,
};

use crate::{
    Maps, Witness, flows,
    ruleset::Ruleset,
    targets,
    verifier::{Elements as _, Lookup as _, launder},
    words::Shared,
};

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

/// What came of first fragments; whoever makes the map writes the secret of its tags.
#[btf_map]
static FRAGMENTS: Array<Buckets<u64>, 1, MMAPABLE> = Array::new();

/// The fragment that a CPU is busy with.
#[btf_map]
static PIECE: PerCpuArray<Piece, 1> = PerCpuArray::new();

/// The table in the map.
#[inline(always)]
fn buckets() -> Option<&'static Buckets<Shared>> {
    let buckets = FRAGMENTS.find(0)?;
    // SAFETY: both are the same words, and a map's memory stays while the program runs.
    Some(unsafe { &*buckets.cast() })
}

impl Table for Maps {
    type Word = Shared;

    #[inline(always)]
    fn seed(&self) -> u64 {
        match buckets() {
            Some(buckets) => buckets.seed.load(),
            None => 0,
        }
    }

    #[inline(always)]
    fn bucket(&self, at: u32) -> Option<&Bucket<Shared>> {
        buckets()?.buckets.element(at as usize)
    }

    #[inline(always)]
    fn launder(&self, number: u64) -> u64 {
        launder(number).unwrap_or(u64::MAX)
    }
}

/// The fragment that a CPU is busy with, taken up anew.
#[inline(always)]
fn piece() -> Option<&'static mut Piece> {
    let piece = PIECE.find(0)?;
    // SAFETY: the value is this CPU's, and taken up once in each step.
    Some(unsafe { &mut *piece })
}

/// Counts a first fragment of which this came, and remembers that for the others of its packet.
#[inline(always)]
pub(crate) fn lead<W: Witness>(
    ctx: &XdpContext,
    metadata: &Metadata,
    outcome: Outcome,
    witness: W,
) -> Option<Verdict> {
    *piece()? = metadata.piece(outcome);
    fragments::note(&Maps, piece()?, flows::now());
    count(ctx, metadata, witness)
}

/// Decides about a later fragment as about the first one, and counts it with that. Nobody is told of one
/// that is rejected.
#[inline(always)]
pub(crate) fn follow<W: Witness>(
    ctx: &XdpContext,
    metadata: &Metadata,
    ruleset: &Ruleset,
    witness: W,
) -> Option<Verdict> {
    *piece()? = metadata.piece(metadata.decide_later(ruleset).outcome());
    fragments::follow(&Maps, piece()?, flows::now());
    Some(match count(ctx, metadata, witness)? {
        taken @ (Verdict::Pass | Verdict::Redirect) => taken,
        Verdict::Drop | Verdict::Reject => Verdict::Drop,
    })
}

#[inline(always)]
fn count<W: Witness>(ctx: &XdpContext, metadata: &Metadata, witness: W) -> Option<Verdict> {
    let piece = piece()?;
    let outcome = Outcome(piece.outcome);
    let (length, port) = (metadata.length, piece.port as usize);
    Some(targets::count(ctx, length, port, outcome, witness))
}
